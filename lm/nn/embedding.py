"""Parameters that are looked up by token or position, and the map back to the vocabulary."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from lm.nn import cross_entropy, placement
from lm.nn.config import ModelConfig, TransformerConfig
from lm.nn.cross_entropy import PLAIN, LossOptions, Sums
from lm.nn.layers import DropoutKeys, Norm, Scope, dropout
from lm.nn.positions import relative_buckets, sinusoids


class Embedding(nnx.Module):
    """The sum of token, position and type embeddings, and the tied or untied vocabulary head."""

    def __init__(self, config: ModelConfig, scope: Scope) -> None:
        self.config = config
        D, V = config.width, config.vocab_size
        std = config.embedding_std
        self.tokens = scope.param("tokens", (V, D), ("vocabulary", "width"), std)
        if config.positions == "learned":
            self.positions = scope.param("positions", (config.max_length, D), (None, "width"), std)
        if config.types:
            self.types = scope.param("types", (config.types, D), (None, "width"), std)
        if config.embedding_norm:
            self.norm = Norm(config, scope / "norm")
        if not config.tied:
            self.unembed = scope.param(
                "unembed", (V, D), ("vocabulary", "width"), config.kernel_std(D)
            )

    def __call__(
        self,
        tokens_BT: Int[Array, "B T"],
        positions_BT: Int[Array, "B T"],
        types_BT: Int[Array, "B T"] | None,
        dropout_keys: DropoutKeys | None,
    ) -> Float[Array, "B T D"]:
        """Embeds tokens, in the compute dtype.

        Args:
          tokens_BT: token ids.
          positions_BT: position of each token in its document.
          types_BT: segment type of each token, if the model has types; None for type 0.
          dropout_keys: dropout keys of the rows; None turns dropout off.
        """
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        x_BTD = self.tokens[...].astype(dtype)[tokens_BT]
        if config.embedding_scaled:
            x_BTD *= config.width**0.5
        if config.positions == "learned":
            x_BTD += self.positions[...].astype(dtype)[positions_BT]
        elif config.positions == "sinusoidal":
            x_BTD += sinusoids(config.max_length, config.width).astype(dtype)[positions_BT]
        if config.types:
            types_BT = jnp.zeros_like(tokens_BT) if types_BT is None else types_BT
            x_BTD += self.types[...].astype(dtype)[types_BT]
        if config.embedding_norm:
            x_BTD = self.norm(x_BTD)
        return placement.scatter_sequence(dropout(x_BTD, config.dropout, dropout_keys))

    def logits(self, h: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        """Returns logits over the vocabulary, in the dtype of the hidden states."""
        logits = jnp.einsum("...D,VD->...V", self._scaled(h), self._table(h.dtype))
        return placement.split_vocabulary(logits)

    def cross_entropy(
        self,
        h_BTD: Float[Array, "B T D"],
        targets_BT: Int[Array, "B T"],
        weights_BT: Float[Array, "B T"],
        bias_V: Float[Array, "V"] | None = None,
        options: LossOptions = PLAIN,
    ) -> Sums:
        """Returns weighted sums of loss, nll and hits, in chunks (lm/nn/cross_entropy.py).

        Args:
          h_BTD: hidden states.
          targets_BT: ids of the correct tokens.
          weights_BT: weight of each target.
          bias_V: bias added to the logits, or None.
          options: label smoothing and z-loss.
        """
        return cross_entropy.cross_entropy(
            self._scaled(h_BTD),
            self._table(h_BTD.dtype),
            targets_BT,
            weights_BT,
            self._chunks(h_BTD),
            bias_V,
            options,
        )

    def row_log_probs(
        self,
        h_BTD: Float[Array, "B T D"],
        targets_BT: Int[Array, "B T"],
        weights_BT: Float[Array, "B T"],
        bias_V: Float[Array, "V"] | None = None,
    ) -> Float[Array, "B"]:
        """Returns Σ_t weight · log p(target) of each row in nats, differentiable, in chunks.

        Args:
          h_BTD: hidden states.
          targets_BT: ids of the correct tokens.
          weights_BT: weight of each target.
          bias_V: bias added to the logits, or None.
        """
        return cross_entropy.row_log_probs(
            self._scaled(h_BTD),
            self._table(h_BTD.dtype),
            targets_BT,
            weights_BT,
            self._chunks(h_BTD),
            bias_V,
        )

    def _chunks(self, h_BTD: Float[Array, "B T D"]) -> int:
        return min(self.config.head_chunks, h_BTD.shape[1])

    def _scaled(self, h: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        return h * self.config.width**-0.5 if self.config.logits_scaled else h

    def _table(self, dtype: jnp.dtype) -> Float[Array, "V D"]:
        return (self.tokens[...] if self.config.tied else self.unembed[...]).astype(dtype)


class RelativeBias(nnx.Module):
    """T5's relative position bias: one table per stack (Raffel et al. 2020, section 2.1)."""

    def __init__(self, config: TransformerConfig, scope: Scope, *, bidirectional: bool) -> None:
        self.table = scope.param(
            "table",
            (config.relative_buckets, config.heads),
            (None, "heads"),
            config.kernel_std(config.width),
        )
        self.buckets, self.distance = config.relative_buckets, config.relative_distance
        self.bidirectional = bidirectional

    def __call__(self, T: int, S: int) -> Float[Array, "1 N T S"]:
        """Returns the bias on the attention logits of T queries and S keys."""
        bucket_TS = relative_buckets(
            T,
            S,
            buckets=self.buckets,
            distance=self.distance,
            bidirectional=self.bidirectional,
        )
        return jnp.transpose(self.table[...][bucket_TS], (2, 0, 1))[None]
