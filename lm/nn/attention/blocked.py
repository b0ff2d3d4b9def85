"""Attention in blocks of queries, compiled by XLA; computes the scores of one block at a time.

A causal block skips all later keys, which halves the matmuls and the scores. The scores of a block
are small enough for a TPU to keep them on the chip. The backward pass recomputes
the scores.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lm.nn.attention.mask import Mask, allowed

# Number of queries per block; larger if a row would otherwise have more than MAX_BLOCKS blocks.
# Each block copies its keys from the row: with eight blocks this costs more than blocking saves
# (experiments/LOG.md).
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
    # If the row is part of a longer row, the device determines which part.
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
