"""Attention by `jax.nn.dot_product_attention`, compiled by XLA: the default on every device."""

import jax
from jaxtyping import Array, Float

from lm.nn.attention.mask import Mask, allowed


def attend(
    q_BTNH: Float[Array, "B T N H"],
    k_BSKH: Float[Array, "B S K H"],
    v_BSKH: Float[Array, "B S K H"],
    mask: Mask,
    *,
    scale: float,
    bias: Float[Array, "1 N T S"] | None = None,
) -> Float[Array, "B T N H"]:
    """Same contract as `lm.nn.attention.reference.attend`."""
    return jax.nn.dot_product_attention(
        q_BTNH, k_BSKH, v_BSKH, bias=bias, mask=allowed(mask), scale=scale, implementation="xla"
    )
