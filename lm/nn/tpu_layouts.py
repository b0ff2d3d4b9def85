"""Matmuls and barriers in forms that suit the TPU's compiler and registers.

Each function returns the values of the formula in its docstring; the forms affect only speed.
experiments/LOG.md has the measurements.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from lm.parallel import sharding

LANES = 128  # values along the last axis of a TPU register


def fills_lanes(head_width: int) -> bool:
    """Returns whether heads of this width fill registers, so that a heads axis needs no copies."""
    return head_width % LANES == 0


def to_heads(
    x_BTD: Float[Array, "B T D"], kernel_DNH: Float[Array, "D N H"]
) -> Float[Array, "B T N H"]:
    """Computes Σ_D x · kernel. Heads that do not fill registers share one axis in the matmul.

    Args:
      x_BTD: inputs.
      kernel_DNH: weights of N heads of width H.
    """
    D, N, H = kernel_DNH.shape
    if fills_lanes(H):
        return jnp.einsum("BTD,DNH->BTNH", x_BTD, kernel_DNH)
    return jnp.einsum("BTD,DF->BTF", x_BTD, _matrix(kernel_DNH, (D, N * H))).reshape(
        *x_BTD.shape[:2], N, H
    )


def from_heads(
    x_BTNH: Float[Array, "B T N H"], kernel_NHD: Float[Array, "N H D"]
) -> Float[Array, "B T D"]:
    """Computes Σ_NH x · kernel. Heads that do not fill registers share one axis in the matmul.

    Args:
      x_BTNH: outputs of N heads of width H.
      kernel_NHD: weights of N heads of width H.
    """
    N, H, D = kernel_NHD.shape
    if fills_lanes(H):
        return jnp.einsum("BTNH,NHD->BTD", x_BTNH, kernel_NHD)
    return jnp.einsum(
        "BTF,FD->BTD", x_BTNH.reshape(*x_BTNH.shape[:2], N * H), _matrix(kernel_NHD, (N * H, D))
    )


def _matrix(kernel: Float[Array, "_ _ _"], shape: tuple[int, int]) -> Float[Array, "_ _"]:
    """The kernel with heads merged into one axis.

    The TPU compiler reduce-scatters the gradient of a sharded kernel of rank 2. With heads of width
    64 it all-reduces the gradient of a rank-3 kernel, which sends twice the bytes. The barrier
    hides the reshape.
    """
    matrix = kernel.reshape(shape)
    return jax.lax.optimization_barrier(matrix) if sharding.parts("width") > 1 else matrix


def rotate_by_product(
    x_BTNH: Float[Array, "B T N H"],
    sin_BT1h: Float[Array, "B T 1 h"],
    cos_BT1h: Float[Array, "B T 1 h"],
) -> Float[Array, "B T N H"]:
    """Rotates each head: [a, b] → [a cos - b sin, b cos + a sin], where h = H / 2.

    A matmul with a permutation matrix exchanges the halves; it is exact in bfloat16. Splitting
    rows of full register width into halves and concatenating them is slow on a TPU.

    Args:
      x_BTNH: queries or keys.
      sin_BT1h: sine of each angle.
      cos_BT1h: cosine of each angle.
    """
    return _rotate_by_product(
        x_BTNH,
        jnp.concatenate([sin_BT1h, sin_BT1h], -1),
        jnp.concatenate([cos_BT1h, cos_BT1h], -1),
    )


@jax.custom_vjp
def _rotate_by_product(
    x_BTNH: Float[Array, "B T N H"],
    sin_BT1H: Float[Array, "B T 1 H"],
    cos_BT1H: Float[Array, "B T 1 H"],
) -> Float[Array, "B T N H"]:
    """Rotates heads; the backward pass rotates the gradient back by the same angles."""
    half = x_BTNH.shape[-1] // 2
    exchange_HJ = np.roll(np.eye(2 * half), half, axis=1)
    exchange_HJ[half:] *= -1  # [a, b] → [-b, a]
    exchanged_BTNH = jnp.einsum("BTNH,HJ->BTNJ", x_BTNH, jnp.asarray(exchange_HJ, x_BTNH.dtype))
    return (
        x_BTNH.astype(jnp.float32) * cos_BT1H + exchanged_BTNH.astype(jnp.float32) * sin_BT1H
    ).astype(x_BTNH.dtype)


_rotate_by_product.defvjp(
    lambda x, sin, cos: (_rotate_by_product(x, sin, cos), (sin, cos)),
    lambda kept, d: (_rotate_by_product(d, -kept[0], kept[1]), None, None),
)


def compute_once(x: Shaped[Array, "*B"]) -> Shaped[Array, "*B"]:
    """Returns `x`, and keeps the compiler from recomputing it in every fusion that reads it."""
    return jax.lax.optimization_barrier(x)
