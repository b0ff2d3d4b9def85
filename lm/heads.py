"""What objectives put on top of a model: each head says its own parameters and formula."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from lm.layers import ACTIVATIONS, GATED, Norm, Scope
from lm.transformer import TransformerConfig

POOLINGS = ("first", "mean", "segments")


class MaskedHead(nnx.Module):
    """BERT's: a dense layer, the activation and a norm before the shared vocabulary matrix, and a bias a word after it."""

    def __init__(self, config: TransformerConfig, scope: Scope):
        D = config.width
        self.kernel = scope.param("kernel", (D, D), ("width", None), config.kernel_std(D))
        self.bias = scope.param("bias", (D,), (None,), 0.0)
        self.norm = Norm(config, scope / "norm")
        self.output_bias = scope.param("output_bias", (config.vocab_size,), ("vocabulary",), 0.0)
        self.activation = GATED.get(config.activation, config.activation)

    def __call__(self, model, h_BPD: Float[Array, "B P D"]) -> Float[Array, "B P V"]:
        dtype = h_BPD.dtype
        h_BPD = jnp.einsum("BPD,DE->BPE", h_BPD, self.kernel[...].astype(dtype)) + self.bias[...].astype(dtype)[None, None]
        h_BPD = self.norm(ACTIVATIONS[self.activation](h_BPD))
        return model.logits(h_BPD) + self.output_bias[...].astype(dtype)[None, None]


class PairHead(nnx.Module):
    """Two scores for a pair of segments.

    Pooling "first" is BERT's: tanh of a dense layer on the first token, then a dense layer. "mean" takes the mean of all
    tokens instead of the first. "segments" compares the means u and v of the two segments by u, v, |u - v| and u·v
    (Conneau et al. 2017, InferSent), each norm 1, and starts at zero: small models learn it sooner.
    """

    def __init__(self, config: TransformerConfig, scope: Scope, pooling: str):
        D = config.width
        self.pooling = pooling
        if pooling == "segments":
            self.output = scope.param("output", (4 * D, 2), (None, None), 0.0)
        else:
            self.kernel = scope.param("kernel", (D, D), ("width", None), config.kernel_std(D))
            self.bias = scope.param("bias", (D,), (None,), 0.0)
            self.output = scope.param("output", (D, 2), ("width", None), config.kernel_std(D))
        self.output_bias = scope.param("output_bias", (2,), (None,), 0.0)

    def __call__(self, h_BTD: Float[Array, "B T D"], segments_BT: Int[Array, "B T"], types_BT: Int[Array, "B T"]) -> Float[Array, "B 2"]:
        h_BTD = h_BTD.astype(jnp.float32)
        used_BT = segments_BT > 0
        if self.pooling == "segments":
            u_BD, v_BD = (_unit(mean(h_BTD, used_BT & (types_BT == part))) for part in (0, 1))
            # √D keeps every feature near 1, whatever the width.
            features = jnp.concatenate([u_BD, v_BD, jnp.abs(u_BD - v_BD), u_BD * v_BD * u_BD.shape[1] ** 0.5], axis=1)
            features *= u_BD.shape[1] ** 0.5
        else:
            pooled_BD = h_BTD[:, 0] if self.pooling == "first" else mean(h_BTD, used_BT)
            features = jnp.tanh(pooled_BD @ self.kernel[...] + self.bias[...][None])
        return features @ self.output[...] + self.output_bias[...][None]


def mean(h_BTD: Float[Array, "B T D"], keep_BT: Array) -> Float[Array, "B D"]:
    """Mean over the kept positions; 0 where none is kept."""
    weight_BT = keep_BT.astype(h_BTD.dtype)
    return jnp.einsum("BTD,BT->BD", h_BTD, weight_BT) / jnp.maximum(weight_BT.sum(1), 1.0)[:, None]


def classify(logits: Float[Array, "*B V"], targets: Int[Array, "*B"], weights: Float[Array, "*B"]):
    """Cross-entropy and hits of class scores, each as (sum, weight), in float32.

    Returns:
      (Σ weight · nll in nats, Σ weight), (Σ weight · hit, Σ weight).
    """
    logits = logits.astype(jnp.float32)
    weights = weights.astype(jnp.float32)
    nll = optax.losses.softmax_cross_entropy_with_integer_labels(logits, targets)
    hits = (logits.argmax(-1) == targets).astype(jnp.float32)
    total = weights.sum()
    return ((nll * weights).sum(), total), ((hits * weights).sum(), total)


def _unit(x_BD: Float[Array, "B D"]) -> Float[Array, "B D"]:
    return x_BD * jax.lax.rsqrt(jnp.square(x_BD).sum(1, keepdims=True) + 1e-6)
