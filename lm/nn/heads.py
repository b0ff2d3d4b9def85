"""Prediction heads."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Shaped

from lm.core.protocols import Model
from lm.nn.config import ModelConfig
from lm.nn.layers import ACTIVATIONS, GATED, Norm, Scope

POOLINGS = ("first", "mean", "segments")


class MaskedHead(nnx.Module):
    """BERT's head for masked tokens.

    A dense layer, the activation and a norm precede the model's vocabulary matrix; a bias for each
    vocabulary entry follows it.

    Attributes:
      output_bias: bias of each vocabulary entry, [V].
    """

    def __init__(self, config: ModelConfig, scope: Scope) -> None:
        D = config.width
        self.kernel = scope.param("kernel", (D, D), ("width", None), config.kernel_std(D))
        self.bias = scope.param("bias", (D,), (None,), 0.0)
        self.norm = Norm(config, scope / "norm")
        self.output_bias = scope.param("output_bias", (config.vocab_size,), ("vocabulary",), 0.0)
        self.activation = GATED.get(config.activation, config.activation)

    def transform(self, h_BPD: Float[Array, "B P D"]) -> Float[Array, "B P D"]:
        """Returns the hidden states that the vocabulary matrix multiplies, before `output_bias`."""
        dtype = h_BPD.dtype
        h_BPD = (
            jnp.einsum("BPD,DE->BPE", h_BPD, self.kernel[...].astype(dtype))
            + self.bias[...].astype(dtype)[None, None]
        )
        return self.norm(ACTIVATIONS[self.activation](h_BPD))

    def __call__(self, model: Model, h_BPD: Float[Array, "B P D"]) -> Float[Array, "B P V"]:
        """Returns logits over the vocabulary.

        Args:
          model: model with the vocabulary matrix.
          h_BPD: hidden states at the predicted positions.
        """
        return (
            model.logits(self.transform(h_BPD))
            + self.output_bias[...].astype(h_BPD.dtype)[None, None]
        )


class PairHead(nnx.Module):
    """Two logits for each pair of segments in a row.

    Pooling "first" is BERT's: tanh of a dense layer on the pair's first token, then a dense layer.
    Pooling "mean" replaces the first token by the mean of all tokens of the pair. Pooling
    "segments" compares the means u and v of the pair's two parts, scaled to norm 1, by u, v,
    |u - v| and u·v (Conneau et al. 2017, InferSent); its output weights start at zero, and small
    models learn faster with it.
    """

    def __init__(self, config: ModelConfig, scope: Scope, pooling: str) -> None:
        D = config.width
        self.pooling = pooling
        if pooling == "segments":
            self.output = scope.param("output", (4 * D, 2), (None, None), 0.0)
        else:
            self.kernel = scope.param("kernel", (D, D), ("width", None), config.kernel_std(D))
            self.bias = scope.param("bias", (D,), (None,), 0.0)
            self.output = scope.param("output", (D, 2), ("width", None), config.kernel_std(D))
        self.output_bias = scope.param("output_bias", (2,), (None,), 0.0)

    def __call__(
        self,
        h_BTD: Float[Array, "B T D"],
        segments_BT: Int[Array, "B T"],
        types_BT: Int[Array, "B T"],
        slots: int = 1,
    ) -> Float[Array, "B P 2"]:
        """Returns logits of the pairs in segments 1 … P; logits of absent segments are meaningless.

        Args:
          h_BTD: hidden states.
          segments_BT: number of each token's pair in the row, from 1; 0 is padding.
          types_BT: 0 for tokens in the first part of a pair, 1 in the second.
          slots: P, the maximum number of pairs per row.
        """
        h_BTD = h_BTD.astype(jnp.float32)
        of_BPT = segments_BT[:, None, :] == jnp.arange(1, slots + 1)[None, :, None]
        if self.pooling == "segments":
            u_BPD, v_BPD = (
                _unit(mean(h_BTD, of_BPT & (types_BT == part)[:, None])) for part in (0, 1)
            )
            # √D keeps every feature near 1, whatever the width.
            root = u_BPD.shape[-1] ** 0.5
            features = (
                jnp.concatenate(
                    [u_BPD, v_BPD, jnp.abs(u_BPD - v_BPD), u_BPD * v_BPD * root], axis=-1
                )
                * root
            )
        elif self.pooling == "first":
            first_BP = of_BPT.argmax(-1)
            pooled_BPD = jnp.take_along_axis(h_BTD, first_BP[..., None], axis=1)
            features = jnp.tanh(pooled_BPD @ self.kernel[...] + self.bias[...][None, None])
        else:
            features = jnp.tanh(mean(h_BTD, of_BPT) @ self.kernel[...] + self.bias[...][None, None])
        return features @ self.output[...] + self.output_bias[...][None, None]


class ReplacedHead(nnx.Module):
    """ELECTRA's discriminator: a dense layer, the activation, and one logit for each token.

    A logit above 0 predicts that the token was replaced.
    """

    def __init__(self, config: ModelConfig, scope: Scope) -> None:
        D = config.width
        self.kernel = scope.param("kernel", (D, D), ("width", None), config.kernel_std(D))
        self.bias = scope.param("bias", (D,), (None,), 0.0)
        self.output = scope.param("output", (D, 1), ("width", None), config.kernel_std(D))
        self.output_bias = scope.param("output_bias", (1,), (None,), 0.0)
        self.activation = GATED.get(config.activation, config.activation)

    def __call__(self, h_BTD: Float[Array, "B T D"]) -> Float[Array, "B T"]:
        """Returns logits of all tokens, in float32."""
        dtype = h_BTD.dtype
        h_BTD = (
            jnp.einsum("BTD,DE->BTE", h_BTD, self.kernel[...].astype(dtype))
            + self.bias[...].astype(dtype)[None, None]
        )
        h_BTD = ACTIVATIONS[self.activation](h_BTD).astype(jnp.float32)
        return (h_BTD @ self.output[...])[..., 0] + self.output_bias[...][None]


def mean(h_BTD: Float[Array, "B T D"], keep: Shaped[Array, "B *P T"]) -> Float[Array, "B *P D"]:
    """Returns the mean over the kept positions, or 0 if no position is kept.

    Args:
      h_BTD: hidden states.
      keep: whether each position is kept, as bool or 0/1.
    """
    weight = keep.astype(h_BTD.dtype)
    total = jnp.einsum("BTD,B...T->B...D", h_BTD, weight)
    return total / jnp.maximum(weight.sum(-1), 1.0)[..., None]


def classify(
    logits: Float[Array, "*B V"], targets: Int[Array, "*B"], weights: Float[Array, "*B"]
) -> tuple[tuple[Float[Array, ""], Float[Array, ""]], tuple[Float[Array, ""], Float[Array, ""]]]:
    """Returns cross-entropy and hits of class logits, each as (sum, weight), in float32.

    Args:
      logits: logits of V classes, for each example.
      targets: index of each example's correct class.
      weights: weight of each example.

    Returns:
      (Σ weight · nll in nats, Σ weight), (Σ weight · hit, Σ weight).
    """
    logits = logits.astype(jnp.float32)
    weights = weights.astype(jnp.float32)
    nll = optax.losses.softmax_cross_entropy_with_integer_labels(logits, targets)
    hits = (logits.argmax(-1) == targets).astype(jnp.float32)
    total = weights.sum()
    return ((nll * weights).sum(), total), ((hits * weights).sum(), total)


def _unit(x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """Vectors of norm 1; differentiable at 0."""
    return x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-6)
