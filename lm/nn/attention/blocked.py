"""Attention in blocks of queries, compiled by XLA: the scores of one block at a time, against the keys that it may see.

A causal block skips all later keys, which halves the products and the scores; and the scores of a block are small enough for a TPU to keep
them on the chip. The backward pass computes a block's scores again.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lm.nn.attention.mask import Mask, allowed

# A row is cut into blocks of so many queries, but into no more than so many blocks: each block's keys are copied out of the row's, which
# with eight blocks costs more than it saves (experiments/LOG.md).
ROWS, MOST = 256, 4


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
    T, S = q_BTNH.shape[1], k_BSKH.shape[1]
    block = max(ROWS, -(-T // MOST))
    attend_block = jax.checkpoint(
        functools.partial(jax.nn.dot_product_attention, scale=scale, implementation="xla")
    )
    # Where the row is a piece of a longer one, only the device knows which.
    skips = mask.kind == "causal" and mask.query_start is None and mask.key_start is None
    outputs = []
    for start in range(0, T, block):
        rows = slice(start, min(start + block, T))
        keys = slice(0, rows.stop if skips else S)
        bias_part = None if bias is None else bias[:, :, rows, keys]
        outputs.append(
            attend_block(
                q_BTNH[:, rows],
                k_BSKH[:, keys],
                v_BSKH[:, keys],
                bias_part,
                allowed(mask, rows, keys),
            )
        )
    return jnp.concatenate(outputs, axis=1)
