"""Cross-entropy over the vocabulary without ever holding the scores of all positions.

The positions are cut into chunks. Each chunk's scores, loss and gradients are made at once while the scores are in cache; only
the gradients are kept. The products are as many as in the plain computation, which `lm.nn.heads.classify` of the logits is.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lm.parallel import mesh as meshes


@dataclasses.dataclass(frozen=True)
class LossOptions:
    """What is added to the likelihood.

    Attributes:
      label_smoothing: share ε of the target that is spread over all words: (1 - ε) · nll + ε · mean over words of -log p (Szegedy et al.
        2016).
      z_loss: factor on log² Z, which keeps the scores' normaliser near 1 (Chowdhery et al. 2022, PaLM: 1e-4).
    """

    label_smoothing: float = 0.0
    z_loss: float = 0.0

    def __post_init__(self):
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(f"label_smoothing={self.label_smoothing} must lie in [0, 1)")
        if self.z_loss < 0.0:
            raise ValueError(f"z_loss={self.z_loss} must not be negative")


PLAIN = LossOptions()


class Sums(NamedTuple):
    """Weighted sums, float32: of what is minimised, over all positions []; of -log p in nats and of hits, over each row [B].

    Only `loss` has a gradient: the one to the table is summed over rows while the scores are there.
    """

    loss: jax.Array
    nll: jax.Array
    hits: jax.Array


def cross_entropy(
    h_BTD: Float[Array, "B T D"],
    table_VD: Float[Array, "V D"],
    targets_BT: Int[Array, "B T"],
    weights_BT: Float[Array, "B T"],
    chunks: int = 1,
    bias_V: Float[Array, "V"] | None = None,
    options: LossOptions = PLAIN,
) -> Sums:
    """Loss and hits of the scores h · tableᵀ + bias, in float32.

    Args:
      h_BTD: hidden states in the compute dtype. table_VD: a row for each word, in the compute dtype.
      targets_BT: word ids. weights_BT: float32; no gradient flows to them.
      chunks: parts that T is cut into; T is padded to a multiple of it.
      bias_V: added to the scores. options: smoothing and z-loss.

    A hit is a target whose score no other word's exceeds; with n words at the top it counts 1/n.
    """
    if chunks > 1 and (rest := -h_BTD.shape[1] % chunks):
        h_BTD = jnp.pad(h_BTD, ((0, 0), (0, rest), (0, 0)))
        targets_BT, weights_BT = (jnp.pad(x, ((0, 0), (0, rest))) for x in (targets_BT, weights_BT))
    loss, nll, hits = _cross_entropy(
        h_BTD, table_VD, bias_V, targets_BT, weights_BT, chunks, options
    )
    return Sums(loss, jax.lax.stop_gradient(nll), jax.lax.stop_gradient(hits))


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _cross_entropy(h_BTD, table_VD, bias_V, targets_BT, weights_BT, chunks, options) -> Sums:
    return _forward(
        h_BTD, table_VD, bias_V, targets_BT, weights_BT, chunks, options, gradients=False
    )[0]


def _forward(h_BTD, table_VD, bias_V, targets_BT, weights_BT, chunks, options, gradients=True):
    """P groups of rows, one for each share of the devices that split the batch: no sum crosses devices before the end.

    Without `gradients` nothing is computed for them: left to the compiler, a scan would go on summing them up.
    """
    smoothing, z_loss = options.label_smoothing, options.z_loss
    B, V, P = len(h_BTD), len(table_VD), _groups(len(h_BTD))
    words_V = jnp.arange(V)[None, None, None]
    table_VD = meshes.constrain(table_VD, "vocabulary", None)  # gathered once, not by each chunk

    def body(carry, part):
        sums, d_table_PVD, d_bias_PV = carry
        h, targets, weights = part
        logits = jnp.einsum("PBTD,VD->PBTV", h, table_VD, preferred_element_type=jnp.float32)
        if bias_V is not None:
            logits += bias_V.astype(jnp.float32)[None, None, None]
        best = logits.max(-1, keepdims=True)
        powers = jnp.exp(logits - best)
        total = powers.sum(-1, keepdims=True)
        is_target = words_V == targets[..., None]
        log_z = (jnp.log(total) + best)[..., 0]
        # A masked sum instead of a gather: it stays where the vocabulary's shards are.
        score = jnp.where(is_target, logits, 0.0).sum(-1)
        nll = log_z * weights - score * weights
        # Words that tie share the hit: a model that scores all alike is right once in V. Counted in float32, like the sums above: so
        # that one pass over the scores makes all three.
        ties = (logits >= best).astype(jnp.float32).sum(-1)
        loss, hits = nll, (score >= best[..., 0]) * weights / ties
        scale, wanted = weights, weights
        if smoothing:
            loss = (1 - smoothing) * nll + smoothing * weights * (log_z - logits.mean(-1))
            wanted = (1 - smoothing) * weights
        if z_loss:
            loss = loss + z_loss * jnp.square(log_z) * weights
            scale = weights * (1 + 2 * z_loss * log_z)
        sums = Sums(sums.loss + loss.sum((1, 2)), sums.nll + nll.sum(2), sums.hits + hits.sum(2))
        if not gradients:
            return (sums, None, None), None
        d_logits = powers * (scale[..., None] / total) - jnp.where(
            is_target, wanted[..., None], 0.0
        )
        if smoothing:
            d_logits -= (smoothing / V) * weights[..., None]
        if bias_V is not None:
            d_bias_PV += d_logits.sum((1, 2))
        d_logits = d_logits.astype(h.dtype)
        d_h = jnp.einsum("PBTV,VD->PBTD", d_logits, table_VD)
        d_table_PVD += jnp.einsum("PBTV,PBTD->PVD", d_logits, h, preferred_element_type=jnp.float32)
        return (sums, d_table_PVD, d_bias_PV), d_h

    zeros = jnp.zeros((P, B // P), jnp.float32)
    d_table_PVD = d_bias_PV = None
    if gradients:
        d_table_PVD = meshes.constrain(
            jnp.zeros((P, *table_VD.shape), jnp.float32), "batch", "vocabulary", None
        )
        d_bias_PV = None if bias_V is None else jnp.zeros((P, V), jnp.float32)
    start = (Sums(jnp.zeros(P), zeros, zeros), d_table_PVD, d_bias_PV)
    grouped = tuple(x.reshape(P, B // P, *x.shape[1:]) for x in (h_BTD, targets_BT, weights_BT))
    grouped = tuple(
        meshes.constrain(x, "batch", None, "length", *[None] * (x.ndim - 3)) for x in grouped
    )
    if chunks == 1:
        (sums, d_table_PVD, d_bias_PV), d_h = body(start, grouped)
    else:
        (sums, d_table_PVD, d_bias_PV), d_h = jax.lax.scan(
            body, start, tuple(_split(x, chunks) for x in grouped)
        )
    sums = Sums(sums.loss.sum(), sums.nll.reshape(B), sums.hits.reshape(B))
    if not gradients:
        return sums, None
    assert d_table_PVD is not None
    d_h = d_h if chunks == 1 else _join(d_h)
    d_table_VD = meshes.constrain(_sum(d_table_PVD.astype(table_VD.dtype)), "vocabulary", "width")
    d_bias_V = (
        d_bias_PV if d_bias_PV is None or bias_V is None else _sum(d_bias_PV.astype(bias_V.dtype))
    )
    return sums, (d_h.reshape(h_BTD.shape), d_table_VD, d_bias_V)


def _groups(rows: int) -> int:
    parts = meshes.parts("batch")
    return parts if rows % parts == 0 else 1


def _sum(x: Array) -> Array:
    """Over the first axis, in x's own dtype: what crosses devices is no wider than the parameter's gradient."""
    return x[0] if len(x) == 1 else jax.lax.reduce(x, jnp.zeros((), x.dtype), jax.lax.add, (0,))


def _backward(chunks, options, kept, cotangents):
    d_h_BTD, d_table_VD, d_bias_V = kept
    scale = cotangents.loss
    table = (d_table_VD * scale).astype(d_table_VD.dtype)
    bias = None if d_bias_V is None else (d_bias_V * scale).astype(d_bias_V.dtype)
    return (d_h_BTD * scale).astype(d_h_BTD.dtype), table, bias, None, None


def _split(x: Array, chunks: int) -> Array:
    """[P, B, T, …] → [chunks, P, B, T / chunks, …]: consecutive positions; every so-many-th one where T is split over devices, so that each
    device has a share of every chunk."""
    if meshes.parts("length") > 1:
        return jnp.moveaxis(
            x.reshape(*x.shape[:2], x.shape[2] // chunks, chunks, *x.shape[3:]), 3, 0
        )
    return jnp.moveaxis(x.reshape(*x.shape[:2], chunks, x.shape[2] // chunks, *x.shape[3:]), 2, 0)


def _join(parts: Array) -> Array:
    """The inverse of `_split`."""
    parts = jnp.moveaxis(parts, 0, 3 if meshes.parts("length") > 1 else 2)
    return parts.reshape(*parts.shape[:2], -1, *parts.shape[4:])


_cross_entropy.defvjp(_forward, _backward)
