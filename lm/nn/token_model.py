"""Shared by models of tokens: the embedding, the vocabulary head and its loss."""

from flax import nnx
from jaxtyping import Array, Float, Int

from lm.core.protocols import Batch
from lm.nn.config import ModelConfig
from lm.nn.cross_entropy import PLAIN, LossOptions, Sums
from lm.nn.embedding import Embedding
from lm.nn.layers import DropoutKeys, Scope


class TokenModel(nnx.Module):
    """Token embedding and vocabulary head; a subclass adds the layers between them.

    Attributes:
      embedding: embeddings, and the map back to the vocabulary.
      heads: mapping from names to the modules that the objective adds.
      pipelined: whether a mesh may split the layers into stages; class attribute.
    """

    pipelined = False

    def __init__(self, config: ModelConfig, scope: Scope) -> None:
        self.embedding = Embedding(config, scope / "embedding")
        self.heads: nnx.Dict = nnx.Dict()

    def embed(self, batch: Batch, dropout_keys: DropoutKeys | None = None) -> Float[Array, "B T D"]:
        """Returns the embedded tokens of a batch, the input of the first layer."""
        return self.embedding(batch["tokens"], batch["positions"], batch.get("types"), dropout_keys)

    def states(
        self, batch: Batch, dropout_keys: DropoutKeys | None = None
    ) -> Float[Array, "B T D"]:
        """Returns hidden states after the last layer; batch fields as in lm/nn/token_loss.py."""
        raise NotImplementedError

    def features(
        self, batch: Batch, dropout_keys: DropoutKeys | None = None
    ) -> Float[Array, "B T D"]:
        """Returns hidden states that represent a text, for probes and fine-tuning."""
        return self.states(batch, dropout_keys)

    def logits(self, h: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        """Returns logits over the vocabulary for hidden states."""
        return self.embedding.logits(h)

    def cross_entropy(
        self,
        h_BTD: Float[Array, "B T D"],
        targets_BT: Int[Array, "B T"],
        weights_BT: Float[Array, "B T"],
        bias_V: Float[Array, "V"] | None = None,
        options: LossOptions = PLAIN,
    ) -> Sums:
        """Returns the weighted loss of the vocabulary head, in chunks (lm/nn/cross_entropy.py).

        Args:
          h_BTD: hidden states.
          targets_BT: ids of the correct tokens.
          weights_BT: weight of each target.
          bias_V: bias added to the logits, or None.
          options: label smoothing and z-loss.
        """
        return self.embedding.cross_entropy(h_BTD, targets_BT, weights_BT, bias_V, options)

    def row_log_probs(
        self,
        h_BTD: Float[Array, "B T D"],
        targets_BT: Int[Array, "B T"],
        weights_BT: Float[Array, "B T"],
        bias_V: Float[Array, "V"] | None = None,
    ) -> Float[Array, "B"]:
        """Returns Σ_t weight · log p(target) of each row in nats; each has its own gradient.

        Args:
          h_BTD: hidden states.
          targets_BT: ids of the correct tokens.
          weights_BT: weight of each target.
          bias_V: bias added to the logits, or None.
        """
        return self.embedding.row_log_probs(h_BTD, targets_BT, weights_BT, bias_V)
