"""What the backward pass computes again instead of keeping it: rematerialisation policies by name.

Layers tag values by `jax.ad_checkpoint.checkpoint_name`; a policy says which tags are kept, and where.

    none         keeps everything.
    attention    keeps everything but the insides of attention (scores, softmax), which are computed again from q, k and v.
    minimal      keeps the results of matrix products (PRODUCTS) and of attention; computes norms, activations and scores again.
    dots         keeps the results of products with parameters; computes all of attention again too.
    full         keeps each block's input only.
    offload      keeps each block's input in the host's memory, nothing on the device.
"""

from collections.abc import Callable

import jax

# Tags: results of the projections, of attention, and a block's input.
PRODUCTS = ("query", "key", "value", "attended", "attention_out", "up", "gate", "feedforward_out")
BLOCK_INPUT = "block_input"

_policies = jax.checkpoint_policies
# Policies of a whole block; "none" and "attention" have none.
POLICIES: dict[str, Callable] = {
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


def block(name: str, function: Callable) -> Callable:
    """The function of a whole block under the policy of this name."""
    return jax.checkpoint(function, policy=POLICIES[name]) if name in POLICIES else function


def attention(name: str, function: Callable) -> Callable:
    """The function from queries, keys and values to attention's result under the policy of this name."""
    return jax.checkpoint(function) if name == "attention" else function
