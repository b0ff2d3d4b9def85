"""Attention in blocks of queries, compiled by XLA: the scores of one block at a time.

A causal block skips all later keys, which halves the matmuls and the scores. The scores of a block
are small enough for a TPU to keep them on the chip. The backward pass recomputes them.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lm.nn.attention.mask import Mask, allowed

# Queries of a block, unless the row then had more than MAX_BLOCKS: each block copies its keys out
# of the row's, which with eight blocks costs more than it saves (experiments/LOG.md).
MIN_BLOCK = 256
MAX_BLOCKS = 4


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
    block = max(MIN_BLOCK, -(-T // MAX_BLOCKS))
    attend_block = jax.checkpoint(
        functools.partial(jax.nn.dot_product_attention, scale=scale, implementation="xla")
    )
    # Where the row is a part of a longer one, which part depends on the device.
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
