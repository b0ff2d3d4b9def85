"""Cross-entropy over the vocabulary without materializing the full logits.

The positions are cut into chunks. Logits, loss and gradients of a chunk are computed together while
the logits are in cache; only the gradients are kept. This takes as many matmuls as the plain
computation, `lm.nn.heads.classify` applied to the full logits.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from lm.parallel import sharding

# Gradients of the loss with respect to h_BTD, table_VD and bias_V.
_Gradients = tuple[Float[Array, "B T D"], Float[Array, "V D"], Float[Array, "V"] | None]
# Arguments of _row_log_probs.
_Inputs = tuple[
    Float[Array, "B T D"],
    Float[Array, "V D"],
    Float[Array, "V"] | None,
    Int[Array, "B T"],
    Float[Array, "B T"],
]
# (loss [P], nll [P, B / P], hits [P, B / P]), and gradients to the table and bias with an axis P.
_Carry = tuple[tuple[Array, Array, Array], Array | None, Array | None]


@dataclasses.dataclass(frozen=True)
class LossOptions:
    """Terms added to the negative log-likelihood.

    Attributes:
      label_smoothing: fraction ε of the target that is spread over the vocabulary:
        (1 - ε) · nll + ε · mean over the vocabulary of -log p (Szegedy et al. 2016).
      z_loss: factor on log² Z, a term that keeps the normalizer Z of the softmax near 1; 1e-4 in
        PaLM (Chowdhery et al. 2022).
    """

    label_smoothing: float = 0.0
    z_loss: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(f"label_smoothing={self.label_smoothing} must be in [0, 1)")
        if self.z_loss < 0.0:
            raise ValueError(f"z_loss={self.z_loss} must not be negative")


PLAIN = LossOptions()


class Sums(NamedTuple):
    """Loss, negative log-likelihood and hits of a batch: weighted sums over targets, in float32.

    Only `loss` has a gradient. The gradient of the table is summed over rows while the logits are
    in cache, so that the per-row sums `nll` and `hits` have no gradient.

    Attributes:
      loss: the loss to minimize in nats, summed over all positions, [].
      nll: -log p in nats, summed over the positions of each row, [B].
      hits: correct predictions, summed over the positions of each row, [B].
    """

    loss: Float[Array, ""]
    nll: Float[Array, "B"]
    hits: Float[Array, "B"]


def cross_entropy(
    h_BTD: Float[Array, "B T D"],
    table_VD: Float[Array, "V D"],
    targets_BT: Int[Array, "B T"],
    weights_BT: Float[Array, "B T"],
    chunks: int = 1,
    bias_V: Float[Array, "V"] | None = None,
    options: LossOptions = PLAIN,
) -> Sums:
    """Computes loss and hits of the logits h · tableᵀ + bias, in float32.

    A prediction is correct if no token has a higher logit than the target; an n-way tie counts 1/n.

    Args:
      h_BTD: hidden states in the compute dtype.
      table_VD: vocabulary matrix with a row for each entry, in the compute dtype.
      targets_BT: ids of the correct tokens.
      weights_BT: float32 weight of each target; no gradient flows to the weights.
      chunks: number of parts that T is cut into; T is padded to a multiple of this number.
      bias_V: bias added to the logits, or None.
      options: label smoothing and z-loss.
    """
    h_BTD, targets_BT, weights_BT = _pad(h_BTD, targets_BT, weights_BT, chunks)
    loss, nll, hits = _cross_entropy(
        h_BTD, table_VD, bias_V, targets_BT, weights_BT, chunks, options
    )
    return Sums(loss, jax.lax.stop_gradient(nll), jax.lax.stop_gradient(hits))


def row_log_probs(
    h_BTD: Float[Array, "B T D"],
    table_VD: Float[Array, "V D"],
    targets_BT: Int[Array, "B T"],
    weights_BT: Float[Array, "B T"],
    chunks: int = 1,
    bias_V: Float[Array, "V"] | None = None,
) -> Float[Array, "B"]:
    """Returns each row's Σ_t weight · log p(target) in nats, for losses that are no sum over rows.

    Unlike the sums in `Sums`, each row's value has its own gradient, as preference and
    sequence-level objectives require. The backward pass recomputes the logits chunk by chunk, so
    that neither pass holds the logits of more than one chunk.

    Args:
      h_BTD: hidden states in the compute dtype.
      table_VD: vocabulary matrix with a row for each entry, in the compute dtype.
      targets_BT: ids of the correct tokens.
      weights_BT: float32 weight of each target; no gradient flows to the weights.
      chunks: number of parts that T is cut into; T is padded to a multiple of this number.
      bias_V: bias added to the logits, or None.
    """
    h_BTD, targets_BT, weights_BT = _pad(h_BTD, targets_BT, weights_BT, chunks)
    return _row_log_probs(h_BTD, table_VD, bias_V, targets_BT, weights_BT, chunks)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _cross_entropy(
    h_BTD: Float[Array, "B T D"],
    table_VD: Float[Array, "V D"],
    bias_V: Float[Array, "V"] | None,
    targets_BT: Int[Array, "B T"],
    weights_BT: Float[Array, "B T"],
    chunks: int,
    options: LossOptions,
) -> Sums:
    return _forward(
        h_BTD, table_VD, bias_V, targets_BT, weights_BT, chunks, options, gradients=False
    )[0]


def _forward(
    h_BTD: Float[Array, "B T D"],
    table_VD: Float[Array, "V D"],
    bias_V: Float[Array, "V"] | None,
    targets_BT: Int[Array, "B T"],
    weights_BT: Float[Array, "B T"],
    chunks: int,
    options: LossOptions,
    gradients: bool = True,
) -> tuple[Sums, _Gradients | None]:
    """Computes the sums, and the gradients of the loss.

    Rows form P groups, one for each part of the devices that split the batch: no sum crosses
    devices before the end.

    Args:
      gradients: if false, gradients are skipped explicitly, because XLA does not remove unused
        sums from a scan.
    """
    smoothing, z_loss = options.label_smoothing, options.z_loss
    B, V, P = len(h_BTD), len(table_VD), _groups(len(h_BTD))
    ids_V = jnp.arange(V)[None, None, None]
    table_VD = sharding.constrain(table_VD, "vocabulary", None)  # gathered once, not per chunk

    def body(
        carry: _Carry, part: tuple[Array, Array, Array]
    ) -> tuple[_Carry, Float[Array, "P B T D"] | None]:
        """Adds a chunk [P, B / P, T / chunks, …] to the sums; returns its gradient to h."""
        (loss_P, nll_PB, hits_PB), d_table_PVD, d_bias_PV = carry
        h, targets, weights = part
        logits = jnp.einsum("PBTD,VD->PBTV", h, table_VD, preferred_element_type=jnp.float32)
        if bias_V is not None:
            logits += bias_V.astype(jnp.float32)[None, None, None]
        best = logits.max(-1, keepdims=True)
        powers = jnp.exp(logits - best)
        total = powers.sum(-1, keepdims=True)
        is_target = ids_V == targets[..., None]
        log_z = (jnp.log(total) + best)[..., 0]
        # A masked sum instead of a gather: it stays where the vocabulary's shards are.
        target_logit = jnp.where(is_target, logits, 0.0).sum(-1)
        nll = log_z * weights - target_logit * weights
        # Tokens that tie share the hit: equal logits for all V tokens count 1/V. Ties are counted
        # in float32, like the sums above, so that one pass over the logits computes all three.
        ties = (logits >= best).astype(jnp.float32).sum(-1)
        loss, hits = nll, (target_logit >= best[..., 0]) * weights / ties
        # d_logits = scale · softmax - target_weights at the target.
        scale, target_weights = weights, weights
        if smoothing:
            loss = (1 - smoothing) * nll + smoothing * weights * (log_z - logits.mean(-1))
            target_weights = (1 - smoothing) * weights
        if z_loss:
            loss = loss + z_loss * jnp.square(log_z) * weights
            scale = weights * (1 + 2 * z_loss * log_z)
        sums = loss_P + loss.sum((1, 2)), nll_PB + nll.sum(2), hits_PB + hits.sum(2)
        if d_table_PVD is None:
            return (sums, None, None), None
        d_logits = powers * (scale[..., None] / total) - jnp.where(
            is_target, target_weights[..., None], 0.0
        )
        if smoothing:
            d_logits -= (smoothing / V) * weights[..., None]
        if d_bias_PV is not None:
            d_bias_PV += d_logits.sum((1, 2))
        d_logits = d_logits.astype(h.dtype)
        d_h = jnp.einsum("PBTV,VD->PBTD", d_logits, table_VD)
        d_table_PVD += jnp.einsum("PBTV,PBTD->PVD", d_logits, h, preferred_element_type=jnp.float32)
        return (sums, d_table_PVD, d_bias_PV), d_h

    zeros = jnp.zeros((P, B // P), jnp.float32)
    d_table_PVD = d_bias_PV = None
    if gradients:
        d_table_PVD = sharding.constrain(
            jnp.zeros((P, *table_VD.shape), jnp.float32), "batch", "vocabulary", None
        )
        d_bias_PV = None if bias_V is None else jnp.zeros((P, V), jnp.float32)
    start = ((jnp.zeros(P), zeros, zeros), d_table_PVD, d_bias_PV)
    h, targets, weights = (
        x.reshape(P, B // P, *x.shape[1:]) for x in (h_BTD, targets_BT, weights_BT)
    )
    h, targets, weights = (
        sharding.constrain(x, "batch", None, "length", *[None] * (x.ndim - 3))
        for x in (h, targets, weights)
    )
    if chunks == 1:
        (sums, d_table_PVD, d_bias_PV), d_h = body(start, (h, targets, weights))
    else:
        h, targets, weights = (_split(x, chunks) for x in (h, targets, weights))
        (sums, d_table_PVD, d_bias_PV), d_h = jax.lax.scan(body, start, (h, targets, weights))
    loss_P, nll_PB, hits_PB = sums
    totals = Sums(loss_P.sum(), nll_PB.reshape(B), hits_PB.reshape(B))
    if not gradients:
        return totals, None
    assert d_table_PVD is not None and d_h is not None
    d_h = d_h if chunks == 1 else _join(d_h)
    d_table_VD = sharding.constrain(_sum(d_table_PVD.astype(table_VD.dtype)), "vocabulary", "width")
    d_bias_V = (
        d_bias_PV if d_bias_PV is None or bias_V is None else _sum(d_bias_PV.astype(bias_V.dtype))
    )
    return totals, (d_h.reshape(h_BTD.shape), d_table_VD, d_bias_V)


def _backward(
    chunks: int, options: LossOptions, gradients: _Gradients, cotangents: Sums
) -> tuple[Array | None, ...]:
    d_h_BTD, d_table_VD, d_bias_V = gradients
    scale = cotangents.loss
    table = (d_table_VD * scale).astype(d_table_VD.dtype)
    bias = None if d_bias_V is None else (d_bias_V * scale).astype(d_bias_V.dtype)
    return (d_h_BTD * scale).astype(d_h_BTD.dtype), table, bias, None, None


_cross_entropy.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _row_log_probs(
    h_BTD: Float[Array, "B T D"],
    table_VD: Float[Array, "V D"],
    bias_V: Float[Array, "V"] | None,
    targets_BT: Int[Array, "B T"],
    weights_BT: Float[Array, "B T"],
    chunks: int,
) -> Float[Array, "B"]:
    sums, _ = _forward(
        h_BTD, table_VD, bias_V, targets_BT, weights_BT, chunks, PLAIN, gradients=False
    )
    return -sums.nll


def _row_log_probs_forward(
    h_BTD: Float[Array, "B T D"],
    table_VD: Float[Array, "V D"],
    bias_V: Float[Array, "V"] | None,
    targets_BT: Int[Array, "B T"],
    weights_BT: Float[Array, "B T"],
    chunks: int,
) -> tuple[Float[Array, "B"], _Inputs]:
    kept = (h_BTD, table_VD, bias_V, targets_BT, weights_BT)
    return _row_log_probs(*kept, chunks), kept


def _row_log_probs_backward(
    chunks: int, kept: _Inputs, d_B: Float[Array, "B"]
) -> tuple[Array | None, ...]:
    """The loss's own gradients: Σ_b d_b · row_b is the negative loss under weights d_b · weight."""
    h_BTD, table_VD, bias_V, targets_BT, weights_BT = kept
    _, gradients = _forward(
        h_BTD, table_VD, bias_V, targets_BT, -d_B[:, None] * weights_BT, chunks, PLAIN
    )
    assert gradients is not None
    return *gradients, None, None


_row_log_probs.defvjp(_row_log_probs_forward, _row_log_probs_backward)


def _pad(
    h_BTD: Float[Array, "B T D"],
    targets_BT: Int[Array, "B T"],
    weights_BT: Float[Array, "B T"],
    chunks: int,
) -> tuple[Float[Array, "B U D"], Int[Array, "B U"], Float[Array, "B U"]]:
    """Pads T to a multiple of `chunks`, with weight 0."""
    if chunks > 1 and (rest := -h_BTD.shape[1] % chunks):
        h_BTD = jnp.pad(h_BTD, ((0, 0), (0, rest), (0, 0)))
        targets_BT, weights_BT = (jnp.pad(x, ((0, 0), (0, rest))) for x in (targets_BT, weights_BT))
    return h_BTD, targets_BT, weights_BT


def _groups(rows: int) -> int:
    parts = sharding.parts("batch")
    return parts if rows % parts == 0 else 1


def _sum(x: Float[Array, "P *V"]) -> Float[Array, "*V"]:
    """The sum over the first axis in x's own dtype.

    The arrays sent between devices are thus no wider than the parameter's gradient.
    """
    return x[0] if len(x) == 1 else jax.lax.reduce(x, jnp.zeros((), x.dtype), jax.lax.add, (0,))


def _split(x: Shaped[Array, "P B T *D"], chunks: int) -> Shaped[Array, "_ P B _ *D"]:
    """[P, B, T, …] → [chunks, P, B, T / chunks, …].

    A chunk is a range of positions. Where devices split T, a chunk is every chunks-th position
    instead, so that each device has a part of every chunk.
    """
    if sharding.parts("length") > 1:
        return jnp.moveaxis(
            x.reshape(*x.shape[:2], x.shape[2] // chunks, chunks, *x.shape[3:]), 3, 0
        )
    return jnp.moveaxis(x.reshape(*x.shape[:2], chunks, x.shape[2] // chunks, *x.shape[3:]), 2, 0)


def _join(parts: Shaped[Array, "C P B T *D"]) -> Shaped[Array, "P B _ *D"]:
    """The inverse of `_split`."""
    parts = jnp.moveaxis(parts, 0, 3 if sharding.parts("length") > 1 else 2)
    return parts.reshape(*parts.shape[:2], -1, *parts.shape[4:])
