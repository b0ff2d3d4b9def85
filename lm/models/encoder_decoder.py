"""A Transformer encoder-decoder: a causal decoder that also reads an encoded input.

Source: Raffel et al. 2020 (T5).
"""

from jaxtyping import Array, Float, Int

from lm.core.protocols import Batch
from lm.nn import flops
from lm.nn.attention.mask import Mask
from lm.nn.config import TransformerConfig
from lm.nn.layers import DropoutKeys, Scope
from lm.nn.stack import Stack
from lm.nn.token_model import TokenModel


class Model(TokenModel):
    """(input tokens, target tokens) → the decoder's hidden states → logits.

    Both stacks share the embedding.
    """

    Config = TransformerConfig
    masks = ("cross",)
    pipelined = True

    def __init__(self, config: TransformerConfig, scope: Scope) -> None:
        super().__init__(config, scope)
        self.encoder = Stack(config, scope / "encoder", bidirectional=True)
        self.stack = Stack(config, scope / "stack", bidirectional=False, cross=True)

    @staticmethod
    def flops(config: TransformerConfig, length: int, inputs: int = 0) -> int:
        """Returns the FLOPs of a forward pass of one row, without the vocabulary head.

        Args:
          config: the model's shape.
          length: number of positions that the decoder reads.
          inputs: number of positions that the encoder reads.
        """
        return flops.stack(config, inputs) + flops.stack(config, length, memory=inputs)

    def states(
        self, batch: Batch, dropout_keys: DropoutKeys | None = None
    ) -> Float[Array, "B T D"]:
        """Returns the decoder's hidden states; batch fields as in lm/nn/token_loss.py."""
        encoder_keys, decoder_keys = (None, None) if dropout_keys is None else dropout_keys.split()
        memory_BSD = self.encode(
            batch["input_tokens"],
            segments_BS=batch["input_segments"],
            positions_BS=batch["input_positions"],
            dropout_keys=encoder_keys,
        )
        return self.hidden(
            batch["tokens"],
            segments_BT=batch["segments"],
            positions_BT=batch["positions"],
            memory_BSD=memory_BSD,
            memory_segments_BS=batch["input_segments"],
            dropout_keys=decoder_keys,
        )

    def features(
        self, batch: Batch, dropout_keys: DropoutKeys | None = None
    ) -> Float[Array, "B T D"]:
        """Returns the encoder's hidden states of the tokens, for probes and fine-tuning."""
        return self.encode(
            batch["tokens"],
            segments_BS=batch["segments"],
            positions_BS=batch["positions"],
            dropout_keys=dropout_keys,
        )

    def encode(
        self,
        tokens_BS: Int[Array, "B S"],
        *,
        segments_BS: Int[Array, "B S"],
        positions_BS: Int[Array, "B S"],
        dropout_keys: DropoutKeys | None = None,
    ) -> Float[Array, "B S D"]:
        """Returns the encoder's hidden states of the input.

        Args:
          tokens_BS: token ids.
          segments_BS: number of each token's example in the row, from 1; 0 is padding.
          positions_BS: position of each token in its example.
          dropout_keys: dropout keys of the rows; None turns dropout off.
        """
        embedding_keys, stack_keys = (None, None) if dropout_keys is None else dropout_keys.split()
        x_BSD = self.embed({"tokens": tokens_BS, "positions": positions_BS}, embedding_keys)
        return self.encoder(x_BSD, positions_BS, Mask(segments_BS, segments_BS), stack_keys)

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
        """Returns the decoder's hidden states, given an encoded input.

        Args:
          tokens_BT: ids that the decoder reads.
          segments_BT: number of each token's example in the row, from 1; 0 is padding.
          positions_BT: position of each token in its example.
          memory_BSD: hidden states of the input, as from `encode`.
          memory_segments_BS: number of each input token's example in the row. A target attends only
            to the input of its own example.
          dropout_keys: dropout keys of the rows; None turns dropout off.
        """
        embedding_keys, stack_keys = (None, None) if dropout_keys is None else dropout_keys.split()
        x_BTD = self.embed({"tokens": tokens_BT, "positions": positions_BT}, embedding_keys)
        mask = Mask(segments_BT, segments_BT, kind="causal")
        cross_mask = Mask(segments_BT, memory_segments_BS)
        return self.stack(x_BTD, positions_BT, mask, stack_keys, memory_BSD, cross_mask)
