"""Context parallelism: attention of any kind over a sequence that is split over devices.

Each device holds the queries, keys and values of one part of every row. "gather" collects the keys
and values of all parts and runs the chosen kind on them. "ring" (Liu et al. 2023) passes keys and
values from device to device, so that no device ever holds more than one part of them; whatever the
kind, it computes each block in float32 by the formula of attention.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from lm.nn.attention.mask import Mask, allowed
from lm.parallel import mesh as meshes
from lm.parallel import sharding

Attend = Callable[..., Array]  # like `attend` in lm/nn/attention/reference.py


def split(attend: Attend) -> Attend:
    """Returns a version of `attend` for rows that are split over the devices of the mesh in use.

    The result takes the same arguments and returns the same values as `attend`; if rows are not
    split, it is `attend` itself.
    """
    return attend if sharding.parts("length") == 1 else functools.partial(_attend, attend)


def _attend(
    attend: Attend,
    q_BTNH: Float[Array, "B T N H"],
    k_BSKH: Float[Array, "B S K H"],
    v_BSKH: Float[Array, "B S K H"],
    mask: Mask,
    *,
    scale: float,
    bias: Float[Array, "1 N T S"] | None = None,
) -> Float[Array, "B T N H"]:
    axis, count = sharding.axes("length"), sharding.parts("length")
    T, S = q_BTNH.shape[1], k_BSKH.shape[1]
    # Pad rows to a multiple of the number of parts. Padding belongs to no segment: no query attends
    # to it.
    q_BTNH, k_BSKH, v_BSKH = (_pad(x, count) for x in (q_BTNH, k_BSKH, v_BSKH))
    mask = dataclasses.replace(
        mask,
        query_segments=_pad(mask.query_segments, count, -1),
        key_segments=_pad(mask.key_segments, count, -1),
        prefix=None if mask.prefix is None else _pad(mask.prefix, count),
    )
    if bias is not None:
        bias = jnp.pad(bias, ((0, 0), (0, 0), (0, -T % count), (0, -S % count)))
    queries = sharding.spec(("batch", "length", "heads", None))
    keys = sharding.spec(("batch", "length", "kv_heads", None))
    rows = sharding.spec(("batch", "length"))  # the sharding of every array of the mask
    biases = sharding.spec((None, "heads", "length", None))

    def local(
        q: Float[Array, "B T N H"],
        k: Float[Array, "B S K H"],
        v: Float[Array, "B S K H"],
        mask: Mask,
        bias: Float[Array, "1 N T _"] | None,
    ) -> Float[Array, "B T N H"]:
        """Computes attention of this device's queries to the keys of all devices."""
        mask = dataclasses.replace(mask, query_start=jax.lax.axis_index(axis) * q.shape[1])
        if meshes.options().context_attention == "ring":
            return _ring(q, k, v, mask, bias, scale, axis, count)
        gather = functools.partial(jax.lax.all_gather, axis_name=axis, axis=1, tiled=True)
        k, v, segments = gather(k), gather(v), gather(mask.key_segments)
        prefix = None if mask.prefix is None else gather(mask.prefix)
        mask = dataclasses.replace(mask, key_segments=segments, prefix=prefix)
        return attend(q, k, v, mask, scale=scale, bias=bias)

    in_specs = (queries, keys, keys, rows, biases)
    o_BTNH = jax.shard_map(local, in_specs=in_specs, out_specs=queries, check_vma=False)(
        q_BTNH, k_BSKH, v_BSKH, mask, bias
    )
    return o_BTNH[:, :T]


def _ring(
    q_BTNH: Float[Array, "B T N H"],
    k_BSKH: Float[Array, "B S K H"],
    v_BSKH: Float[Array, "B S K H"],
    mask: Mask,
    bias: Float[Array, "1 N T _"] | None,
    scale: float,
    axis: tuple[str, ...],
    count: int,
) -> Float[Array, "B T N H"]:
    """Computes attention of this device's queries to one block of keys after another.

    The backward pass recomputes each block.
    """
    B, T, N, H = q_BTNH.shape
    S, K = k_BSKH.shape[1:3]
    G = N // K
    device = jax.lax.axis_index(axis)
    q_BTKGH = q_BTNH.reshape(B, T, K, G, H)

    @jax.checkpoint
    def block(
        best: Float[Array, "B K G T 1"],
        total: Float[Array, "B K G T 1"],
        o: Float[Array, "B K G T H"],
        k: Float[Array, "B S K H"],
        v: Float[Array, "B S K H"],
        segments: Int[Array, "B S"],
        prefix: Bool[Array, "B S"] | None,
        key_start: Int[Array, ""],
    ) -> tuple[Array, Array, Array]:
        """Adds a block of keys to the running softmax: its maximum, its sum and its output."""
        logits = (
            jnp.einsum("BTKGH,BSKH->BKGTS", q_BTKGH, k, preferred_element_type=jnp.float32) * scale
        )
        if bias is not None:
            part = jax.lax.dynamic_slice_in_dim(bias.astype(jnp.float32), key_start, S, axis=3)
            logits += part.reshape(part.shape[0], K, G, T, S)
        ok = allowed(
            dataclasses.replace(mask, key_segments=segments, prefix=prefix, key_start=key_start)
        )
        logits = jnp.where(ok[:, :, None], logits, jnp.finfo(jnp.float32).min)
        # The result does not depend on the shift, so no gradient flows through it.
        higher = jax.lax.stop_gradient(jnp.maximum(best, logits.max(-1, keepdims=True)))
        weights, shrink = jnp.exp(logits - higher), jnp.exp(best - higher)
        values = jnp.einsum(
            "BKGTS,BSKH->BKGTH", weights.astype(v.dtype), v, preferred_element_type=jnp.float32
        )
        return higher, total * shrink + weights.sum(-1, keepdims=True), o * shrink + values

    best = jnp.full((B, K, G, T, 1), jnp.finfo(jnp.float32).min)
    total, o = jnp.zeros_like(best), jnp.zeros((B, K, G, T, H), jnp.float32)
    passed = (k_BSKH, v_BSKH, mask.key_segments, mask.prefix)
    around = [(source, (source + 1) % count) for source in range(count)]
    for step in range(count):
        best, total, o = block(best, total, o, *passed, (device - step) % count * S)
        if step < count - 1:
            passed = jax.tree.map(lambda x: jax.lax.ppermute(x, axis, around), passed)
    return jnp.moveaxis(o / total, 3, 1).reshape(B, T, N, H).astype(v_BSKH.dtype)


def _pad(x: Shaped[Array, "B T *N"], count: int, value: int = 0) -> Shaped[Array, "B _ *N"]:
    """Pads axis 1 to a multiple of `count`."""
    rest = -x.shape[1] % count
    return (
        jnp.pad(x, ((0, 0), (0, rest), *[(0, 0)] * (x.ndim - 2)), constant_values=value)
        if rest
        else x
    )
