"""Formulas of positions: sinusoidal, rotary, and T5's relative buckets."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lm.nn import tpu_layouts


def sinusoids(length: int, width: int) -> Float[Array, "T D"]:
    """Returns fixed sine and cosine positions (Vaswani et al. 2017, section 3.5).

    Sines are in the first half of the width, cosines in the second.

    Args:
      length: T, number of positions.
      width: D, width of each position's vector.
    """
    half = (width + 1) // 2
    angle = np.arange(length)[:, None] * 10000.0 ** (-np.arange(half) / half)
    return jnp.asarray(
        np.concatenate([np.sin(angle), np.cos(angle)], axis=1)[:, :width], jnp.float32
    )


def rotate(
    x_BTNH: Float[Array, "B T N H"], positions_BT: Int[Array, "B T"], base: float
) -> Float[Array, "B T N H"]:
    """Applies rotary position embedding (Su et al. 2021), computed in float32.

    Dimension i is paired with i + H/2, as in Llama.

    Args:
      x_BTNH: queries or keys.
      positions_BT: position of each token in its document.
      base: base of the wavelengths; pair i turns by position · base^(-2i/H) radians.
    """
    half = x_BTNH.shape[-1] // 2
    frequency_H = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle_BT1H = (
        positions_BT[:, :, None, None].astype(jnp.float32) * frequency_H[None, None, None, :]
    )
    sin, cos = jnp.sin(angle_BT1H), jnp.cos(angle_BT1H)
    if x_BTNH.dtype == jnp.bfloat16 and tpu_layouts.fills_lanes(x_BTNH.shape[-1]):
        return tpu_layouts.rotate_by_product(x_BTNH, sin, cos)
    a, b = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BTNH.dtype)


def relative_buckets(
    T: int, S: int, *, buckets: int, distance: int, bidirectional: bool
) -> Int[np.ndarray, "T S"]:
    """Returns T5's bucket of each pair of a query and a key (Raffel et al. 2020, section 2.1).

    Each small distance has its own bucket; larger distances share buckets on a logarithmic scale.

    Args:
      T: number of queries.
      S: number of keys.
      buckets: number of buckets.
      distance: distance in tokens from which all positions share the last bucket.
      bidirectional: whether half of the buckets are for keys after the query; otherwise such keys
        share the bucket of distance 0.
    """
    offset_TS = np.arange(S)[None, :] - np.arange(T)[:, None]
    if bidirectional:
        buckets //= 2
    distance_TS = np.abs(offset_TS) if bidirectional else np.maximum(-offset_TS, 0)
    exact = buckets // 2
    # float32 as in T5's code, to get the same bucket boundaries.
    ratio_TS = np.log(np.maximum(distance_TS, 1).astype(np.float32) / exact) / np.log(
        np.float32(distance) / exact
    )
    far_TS = np.minimum(exact + (ratio_TS * (buckets - exact)).astype(np.int32), buckets - 1)
    return np.where(distance_TS < exact, distance_TS, far_TS) + (
        buckets * (offset_TS > 0) if bidirectional else 0
    )
