"""Rematerialization policies: which values the backward pass recomputes instead of keeping.

Layers tag values with `tag`; a policy decides which tagged values are kept, and where.

    none         keeps everything.
    attention    keeps everything but the intermediate values of attention (scores, softmax);
                 recomputes them from q, k and v.
    minimal      keeps the results of matmuls (PRODUCTS) and of attention; recomputes norms,
                 activations and scores.
    dots         keeps the results of matmuls with parameters; recomputes all of attention too.
    full         keeps each block's input only.
    offload      keeps each block's input in the host's memory, nothing on the device.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

# Tags of the results of the projections, of the result of attention, and of a block's input.
PRODUCTS = ("query", "key", "value", "attended", "attention_out", "up", "gate", "feedforward_out")
BLOCK_INPUT = "block_input"

_policies = jax.checkpoint_policies
# Policies that apply to a full block; "none" and "attention" do not.
POLICIES: dict[str, Callable[..., Any]] = {
    "minimal": _policies.save_only_these_names(*PRODUCTS),
    "dots": _policies.dots_with_no_batch_dims_saveable,
    "full": _policies.nothing_saveable,
    "offload": _policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[BLOCK_INPUT],
        offload_src="device",
        offload_dst="pinned_host",
    ),
}


def tag(x: Float[Array, "*B"], name: str) -> Float[Array, "*B"]:
    """Returns `x` with a name that policies can refer to.

    Args:
      x: array of any shape.
      name: one of PRODUCTS, or BLOCK_INPUT.
    """
    assert name in PRODUCTS or name == BLOCK_INPUT, name
    return checkpoint_name(x, name)


def block(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Applies a remat policy to a block.

    Args:
      name: name of a policy (see the module).
      function: function that runs a full block.
    """
    return jax.checkpoint(function, policy=POLICIES[name]) if name in POLICIES else function


def attention(name: str, function: Callable[..., Array]) -> Callable[..., Array]:
    """Applies a remat policy to attention.

    Args:
      name: name of a policy (see the module).
      function: function from (q, k, v, …) to the result of attention.
    """
    return jax.checkpoint(function) if name == "attention" else function
