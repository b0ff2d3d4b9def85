"""Attention over a sequence that is split over devices (context parallelism), for any attention kind.

Each device holds the queries, keys and values of one piece of every row. "gather" collects the keys and values of all pieces and runs
the chosen kind on them. "ring" (Liu et al. 2023) passes keys and values from device to device, so that none ever holds more than one
piece of them; it computes blocks by the formula itself, in float32, whatever the kind.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lm.nn.attention.mask import Mask, allowed
from lm.parallel import mesh as meshes

Attend = Callable[..., jax.Array]


def split(attend: Attend) -> Attend:
    """`attend` on the mesh in use: itself where rows are whole, else the same function of the pieces."""
    return attend if meshes.parts("length") == 1 else functools.partial(_attend, attend)


def _attend(
    attend: Attend, q_BTNH, k_BSKH, v_BSKH, mask: Mask, *, scale: float, bias=None
) -> Float[Array, "B T N H"]:
    axis, count, T, S = (
        meshes.axes("length"),
        meshes.parts("length"),
        q_BTNH.shape[1],
        k_BSKH.shape[1],
    )
    # Rows that the pieces do not divide are filled up. What is filled in belongs to no segment: no query of the row sees it.
    q_BTNH, k_BSKH, v_BSKH = (_fill(x, count) for x in (q_BTNH, k_BSKH, v_BSKH))
    segments = _fill(mask.query_segments, count, -1), _fill(mask.key_segments, count, -1)
    prefix = None if mask.prefix is None else _fill(mask.prefix, count)
    if bias is not None:
        bias = jnp.pad(bias, ((0, 0), (0, 0), (0, -T % count), (0, -S % count)))
    keys, rows = (
        meshes.spec(("batch", "length", "kv_heads", None)),
        meshes.spec(("batch", "length")),
    )
    queries, biases = (
        meshes.spec(("batch", "length", "heads", None)),
        meshes.spec((None, "heads", "length", None)),
    )

    def local(q, k, v, query_segments, key_segments, prefix, bias):
        start = jax.lax.axis_index(axis) * q.shape[1]
        mine = Mask(query_segments, key_segments, prefix, mask.kind, start)
        if meshes.options().context_attention == "ring":
            return _ring(q, k, v, mine, bias, scale, axis, count)
        k, v, key_segments = (
            jax.lax.all_gather(x, axis, axis=1, tiled=True) for x in (k, v, key_segments)
        )
        if prefix is not None:
            prefix = jax.lax.all_gather(prefix, axis, axis=1, tiled=True)
        return attend(
            q,
            k,
            v,
            Mask(query_segments, key_segments, prefix, mask.kind, start),
            scale=scale,
            bias=bias,
        )

    in_specs = (queries, keys, keys, rows, rows, rows, biases)
    o_BTNH = jax.shard_map(local, in_specs=in_specs, out_specs=queries, check_vma=False)(
        q_BTNH, k_BSKH, v_BSKH, *segments, prefix, bias
    )
    return o_BTNH[:, :T]


def _ring(
    q_BTNH, k_BSKH, v_BSKH, mask: Mask, bias, scale: float, axis: tuple[str, ...], count: int
) -> Float[Array, "B T N H"]:
    """Attention of this device's queries, block of keys by block; each block is computed again in the backward pass."""
    B, T, N, H = q_BTNH.shape
    S, K = k_BSKH.shape[1:3]
    G = N // K
    here = jax.lax.axis_index(axis)
    q_BTKGH = q_BTNH.reshape(B, T, K, G, H)

    @jax.checkpoint
    def block(best, total, o, k, v, key_segments, prefix, key_start):
        logits = (
            jnp.einsum("BTKGH,BSKH->BKGTS", q_BTKGH, k, preferred_element_type=jnp.float32) * scale
        )
        if bias is not None:
            part = jax.lax.dynamic_slice_in_dim(bias.astype(jnp.float32), key_start, S, axis=3)
            logits += part.reshape(part.shape[0], K, G, T, S)
        may = allowed(
            Mask(mask.query_segments, key_segments, prefix, mask.kind, mask.query_start, key_start)
        )
        logits = jnp.where(may[:, :, None], logits, jnp.finfo(jnp.float32).min)
        # The result does not depend on the shift: no gradient through it.
        higher = jax.lax.stop_gradient(jnp.maximum(best, logits.max(-1, keepdims=True)))
        weights, shrink = jnp.exp(logits - higher), jnp.exp(best - higher)
        values = jnp.einsum(
            "BKGTS,BSKH->BKGTH", weights.astype(v.dtype), v, preferred_element_type=jnp.float32
        )
        return higher, total * shrink + weights.sum(-1, keepdims=True), o * shrink + values

    best = jnp.full((B, K, G, T, 1), jnp.finfo(jnp.float32).min)
    total, o = jnp.zeros_like(best), jnp.zeros((B, K, G, T, H), jnp.float32)
    moving = (k_BSKH, v_BSKH, mask.key_segments, mask.prefix)
    around = [(device, (device + 1) % count) for device in range(count)]
    for step in range(count):
        best, total, o = block(best, total, o, *moving, (here - step) % count * S)
        if step < count - 1:
            moving = jax.tree.map(lambda x: jax.lax.ppermute(x, axis, around), moving)
    return jnp.moveaxis(o / total, 3, 1).reshape(B, T, N, H).astype(v_BSKH.dtype)


def _fill(x: Array, count: int, value: int = 0) -> Array:
    """Pads axis 1 to a multiple of `count`."""
    rest = -x.shape[1] % count
    return (
        jnp.pad(x, ((0, 0), (0, rest), *[(0, 0)] * (x.ndim - 2)), constant_values=value)
        if rest
        else x
    )
