"""Cross-entropy over the vocabulary without ever holding the scores of all positions.

The positions are cut into chunks. Each chunk's scores, loss and gradients are made at once while the scores are in cache; only
the gradients are kept. The products are as many as in the plain computation, which `lm.heads.classify` of the logits is.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def cross_entropy(
    h_BTD: Float[Array, "B T D"], table_VD: Float[Array, "V D"], targets_BT: Int[Array, "B T"], weights_BT: Float[Array, "B T"], chunks: int
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Σ weight · nll (nats) and Σ weight · hit of the scores h · tableᵀ, in float32.

    Args:
      h_BTD: hidden states in the compute dtype. table_VD: a row for each word, in the compute dtype.
      targets_BT: word ids. weights_BT: float32; no gradient flows to them.
      chunks: parts that T is cut into; must divide T.

    A hit is a target whose score no other word's exceeds.
    """
    return _forward(h_BTD, table_VD, targets_BT, weights_BT, chunks)[0]


def _forward(h_BTD, table_VD, targets_BT, weights_BT, chunks):
    words_V = jnp.arange(table_VD.shape[0])[None, None]

    def body(carry, part):
        nll, hits, d_table_VD = carry
        h, targets, weights = part
        logits = jnp.einsum("BTD,VD->BTV", h, table_VD, preferred_element_type=jnp.float32)
        best = logits.max(-1, keepdims=True)
        powers = jnp.exp(logits - best)
        total = powers.sum(-1, keepdims=True)
        is_target = words_V == targets[..., None]
        # A masked sum instead of a gather: it stays where the vocabulary's shards are.
        score = jnp.where(is_target, logits, 0.0).sum(-1)
        nll += ((jnp.log(total) + best)[..., 0] * weights - score * weights).sum()
        hits += ((score >= best[..., 0]) * weights).sum()
        d_logits = (powers * (weights[..., None] / total) - jnp.where(is_target, weights[..., None], 0.0)).astype(h.dtype)
        d_h = jnp.einsum("BTV,VD->BTD", d_logits, table_VD)
        d_table_VD += jnp.einsum("BTV,BTD->VD", d_logits, h, preferred_element_type=jnp.float32)
        return (nll, hits, d_table_VD), d_h

    start = (jnp.zeros(()), jnp.zeros(()), jnp.zeros(table_VD.shape, jnp.float32))
    if chunks == 1:
        (nll, hits, d_table_VD), d_h_BTD = body(start, (h_BTD, targets_BT, weights_BT))
    else:
        parts = tuple(_split(x, chunks) for x in (h_BTD, targets_BT, weights_BT))
        (nll, hits, d_table_VD), d_h = jax.lax.scan(body, start, parts)
        d_h_BTD = jnp.moveaxis(d_h, 0, 1).reshape(h_BTD.shape)
    return (nll, hits), (d_h_BTD, d_table_VD.astype(table_VD.dtype))


def _backward(chunks, kept, cotangents):
    d_h_BTD, d_table_VD = kept
    scale = cotangents[0]
    return (d_h_BTD * scale).astype(d_h_BTD.dtype), (d_table_VD * scale).astype(d_table_VD.dtype), None, None


def _split(x: Array, chunks: int) -> Array:
    """[B, T, …] → [chunks, B, T / chunks, …]."""
    return jnp.moveaxis(x.reshape(x.shape[0], chunks, x.shape[1] // chunks, *x.shape[2:]), 1, 0)


cross_entropy.defvjp(_forward, _backward)
