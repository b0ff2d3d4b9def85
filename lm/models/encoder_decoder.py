"""A Transformer encoder-decoder: a causal decoder that also sees an encoded input (T5, Raffel et al. 2020)."""

from flax import nnx
from jaxtyping import Array, Float, Int

from lm.nn.attention.mask import Mask
from lm.nn.config import TransformerConfig
from lm.nn.layers import DropoutKeys, Embedding, Scope
from lm.nn.stack import Stack


class Model(nnx.Module):
    """(input tokens, target tokens) → hidden states of the decoder → scores over the vocabulary. Embeddings are shared."""

    masks = ("cross",)

    def __init__(self, config: TransformerConfig, scope: Scope):
        self.embedding = Embedding(config, scope / "embedding")
        self.encoder = Stack(config, scope / "encoder", bidirectional=True)
        self.stack = Stack(config, scope / "stack", bidirectional=False, cross=True)
        self.heads: nnx.Dict = nnx.Dict()

    def encode(
        self,
        tokens_BS: Int[Array, "B S"],
        *,
        segments_BS: Int[Array, "B S"],
        positions_BS: Int[Array, "B S"],
        dropout_keys: DropoutKeys | None = None,
    ) -> Float[Array, "B S D"]:
        """Hidden states of the input; arguments as for `hidden`."""
        split_keys = (None, None) if dropout_keys is None else dropout_keys.split()
        x_BSD = self.embedding(tokens_BS, positions_BS, None, split_keys[0])
        return self.encoder(x_BSD, positions_BS, Mask(segments_BS, segments_BS), split_keys[1])

    def hidden(
        self,
        tokens_BT: Int[Array, "B T"],
        *,
        segments_BT: Int[Array, "B T"],
        positions_BT: Int[Array, "B T"],
        memory_BSD: Float[Array, "B S D"],
        memory_segments_BS: Int[Array, "B S"],
        dropout_keys: DropoutKeys | None = None,
    ) -> Float[Array, "B T D"]:
        """Hidden states of the decoder.

        Args:
          tokens_BT: decoder input ids. segments_BT: example number in the row, from 1; 0 is padding.
          positions_BT: position in the example. memory_BSD: what `encode` returned for the inputs.
          memory_segments_BS: example number of each input; a target sees the input of its own example only.
          dropout_keys: for dropout; None in evaluation.
        """
        split_keys = (None, None) if dropout_keys is None else dropout_keys.split()
        x_BTD = self.embedding(tokens_BT, positions_BT, None, split_keys[0])
        mask = Mask(segments_BT, segments_BT, kind="causal")
        return self.stack(
            x_BTD,
            positions_BT,
            mask,
            split_keys[1],
            memory_BSD,
            Mask(segments_BT, memory_segments_BS),
        )

    def logits(self, h: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        """Scores over the vocabulary for hidden states."""
        return self.embedding.logits(h)
