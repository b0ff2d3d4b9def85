"""How a block's activations and kernels are split over the mesh.

Between the sublayers of a block each device has all features of some positions. Inside a sublayer
it has some heads or part of the feed-forward width, at all positions of its part of the row
(Korthikanti et al. 2022). `gather_sequence` converts the first placement to the second, and
`scatter_sequence` converts it back. Parameters are split where they are defined (`axes` of
`Scope.param`). lm/parallel/sharding.py maps the names of axes to mesh axes. Without a mesh every
function here is the identity.
"""

from jaxtyping import Array, Float

from lm.nn import remat, tpu_layouts
from lm.parallel import sharding


def gather_sequence(x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """All-gathers the sequence over "tensor", so that heads or F can be sharded."""
    return sharding.constrain(x_BTD, "batch", "length", None)


def scatter_sequence(x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """Shards the sequence of a sublayer's or embedding's output over "tensor"."""
    return sharding.constrain(x_BTD, "batch", "sequence", None)


def split_heads(x_BTNH: Float[Array, "B T N H"]) -> Float[Array, "B T N H"]:
    """Splits the heads of queries, or of the result of attention, over "tensor"."""
    return sharding.constrain(x_BTNH, "batch", "length", "heads", None)


def split_kv_heads(x_BSKH: Float[Array, "B S K H"]) -> Float[Array, "B S K H"]:
    """Splits the key-value heads of keys or values over "tensor"."""
    return sharding.constrain(x_BSKH, "batch", "length", "kv_heads", None)


def split_feedforward(h_BTF: Float[Array, "B T F"]) -> Float[Array, "B T F"]:
    """Splits F over "tensor", inside the feed-forward layer."""
    return sharding.constrain(h_BTF, "batch", "length", "feedforward")


def split_vocabulary(logits: Float[Array, "*B V"]) -> Float[Array, "*B V"]:
    """Splits the vocabulary axis of logits over "tensor"."""
    return sharding.constrain(logits, "batch", *["length"] * (logits.ndim - 2), "vocabulary")


def gather_projections(
    query_DNH: Float[Array, "D N H"],
    key_DKH: Float[Array, "D K H"],
    value_DKH: Float[Array, "D K H"],
    policy: str,
) -> tuple[Float[Array, "D N H"], Float[Array, "D K H"], Float[Array, "D K H"]]:
    """Gathers attention's input kernels along D if the backward pass recomputes their matmuls.

    One gathered kernel then serves both the recomputed matmul and its gradient. The partitioner
    would gather the kernel once for each of the two.

    Args:
      query_DNH: kernel of the queries.
      key_DKH: kernel of the keys.
      value_DKH: kernel of the values.
      policy: name of the remat policy (lm/nn/remat.py).
    """
    if policy not in remat.POLICIES or not tpu_layouts.fills_lanes(query_DNH.shape[-1]):
        return query_DNH, key_DKH, value_DKH
    return (
        sharding.constrain(query_DNH, None, "heads", None),
        sharding.constrain(key_DKH, None, "kv_heads", None),
        sharding.constrain(value_DKH, None, "kv_heads", None),
    )
