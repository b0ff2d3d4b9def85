"""Attention written out: the definition that faster kinds are tested against."""

import jax
import jax.numpy as jnp
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
    """Scaled dot-product attention with grouped queries.

    The softmax runs in float32. A query that may attend to no key (padding) gets the mean of all
    values; this result is never read.

    Sources: Vaswani et al. 2017, eq. 1; Ainslie et al. 2023.

    Args:
      q_BTNH: queries of N heads, a multiple of K.
      k_BSKH: keys of K heads.
      v_BSKH: values of K heads.
      mask: which query may attend to which key.
      scale: factor on the logits, usually H**-0.5.
      bias: bias added to the scaled logits, or None.
    """
    B, T, N, H = q_BTNH.shape
    K = k_BSKH.shape[2]
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H)
    logits_BKGTS = (
        jnp.einsum("BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH, preferred_element_type=jnp.float32) * scale
    )
    if bias is not None:
        logits_BKGTS += bias.astype(jnp.float32).reshape(bias.shape[0], K, N // K, *bias.shape[2:])
    logits_BKGTS = jnp.where(allowed(mask)[:, :, None], logits_BKGTS, jnp.finfo(jnp.float32).min)
    weights_BKGTS = jax.nn.softmax(logits_BKGTS, axis=-1).astype(v_BSKH.dtype)
    return jnp.einsum("BKGTS,BSKH->BTKGH", weights_BKGTS, v_BSKH).reshape(B, T, N, H)
