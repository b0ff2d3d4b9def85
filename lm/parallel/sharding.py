"""The only table that maps logical axes to mesh axes, and functions that place arrays by it.

Model code names logical axes only ("width", "heads", "vocabulary"). RULES alone decides which mesh
axes (lm/parallel/mesh.py) split them.
"""

import contextlib
import contextvars
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Int

from lm.parallel.mesh import DeviceMismatch, describe

# Logical axis → mesh axes that split it. A logical axis that is not listed is replicated.
RULES: dict[str, tuple[str, ...]] = {
    # Activations. Rows are independent, so the batch is split over every mesh axis that does not
    # split the sequence.
    "batch": ("slice", "data", "fsdp", "stage"),
    # The residual stream: norms and sums act on each position independently. Use "length" for
    # positions if another axis of the array is sharded over "tensor".
    "sequence": ("context", "tensor"),
    "length": ("context",),
    # Parameters. "layers" is the leading axis of stacked layers. Nearly every matrix has the axis
    # "width", so ZeRO-3 splits nearly all of the state along it.
    "layers": ("stage",),
    "width": ("fsdp",),
    # Weights and activations: column- then row-parallel matmuls, with one all-reduce at the end
    # (Megatron).
    "feedforward": ("tensor",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "vocabulary": ("tensor",),
}

_RULES: contextvars.ContextVar[dict[str, tuple[str, ...]]] = contextvars.ContextVar(
    "mesh rules", default=RULES
)


@contextlib.contextmanager
def override_rules(**changes: tuple[str, ...]) -> Iterator[None]:
    """Context manager: replaces entries of RULES inside the block.

    Args:
      **changes: logical axis → mesh axes that split it.
    """
    token = _RULES.set(_RULES.get() | changes)
    try:
        yield
    finally:
        _RULES.reset(token)


def axes(logical: str) -> tuple[str, ...]:
    """Returns the mesh axes that split a logical axis."""
    return _RULES.get().get(logical, ())


def parts(logical: str, mesh: jax.sharding.Mesh | None = None) -> int:
    """Returns the number of parts that a logical axis is split into; 1 without a mesh.

    Args:
      logical: name of the logical axis.
      mesh: the mesh; by default the mesh in use.
    """
    shape = dict((jax.sharding.get_abstract_mesh() if mesh is None else mesh).shape)
    return math.prod(shape.get(axis, 1) for axis in axes(logical))


def spec(names: Sequence[str | None], rank: int | None = None) -> PartitionSpec:
    """Returns the PartitionSpec of an array with these logical axes.

    Args:
      names: for each dimension, the name of a logical axis, or None.
      rank: rank of the array; if it exceeds the number of names, the first dimension stacks
        layers.
    """
    if rank is not None and rank > len(names):
        names = ("layers", *[None] * (rank - len(names) - 1), *names)
    return PartitionSpec(*[axes(name) or None if name else None for name in names])


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """Constrains the sharding of an array.

    Args:
      x: the array.
      *names: for each dimension, the name of a logical axis, or None.

    Returns:
      `x` with the constraint, or `x` itself without a mesh.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(names))


def check_divisible(
    mesh: jax.sharding.Mesh,
    shardings_and_shapes: Mapping[str, tuple[PartitionSpec, tuple[int, ...]]],
) -> None:
    """Checks that the mesh divides every parameter evenly.

    Args:
      mesh: the mesh.
      shardings_and_shapes: mapping from parameter names to pairs of PartitionSpec and shape.

    Raises:
      DeviceMismatch: a mesh axis does not divide the dimension that it splits; the message names
        the parameter and the axis.
    """
    for name, (partition, shape) in shardings_and_shapes.items():
        for size, entry in zip(shape, partition, strict=False):
            split_by = entry if isinstance(entry, tuple) else (entry,) if entry else ()
            count = math.prod(mesh.shape[axis] for axis in split_by)
            if size % count:
                along = "×".join(split_by)
                raise DeviceMismatch(
                    f"config.mesh splits {name} {shape} {count} ways along {along}, but {size} is"
                    f" not a multiple of {count}; choose sizes of {along} that divide {size}"
                    + (
                        f", or --config.model.vocab_size={-(-size // 128) * 128}"
                        if split_by == axes("vocabulary") and size > 10_000
                        else ""
                    )
                )


def check_batch(mesh: jax.sharding.Mesh, batch_size: int, microbatches: int = 1) -> None:
    """Checks that the mesh divides every microbatch of a batch evenly.

    Args:
      mesh: the mesh.
      batch_size: number of rows of the batch.
      microbatches: number of parts of the batch that are computed one after another.

    Raises:
      DeviceMismatch: `batch_size` is not a multiple of `microbatches` times the number of parts
        into which the mesh splits the batch.
    """
    count = parts("batch", mesh)
    if batch_size % (count * microbatches):
        split = describe({axis: mesh.shape[axis] for axis in axes("batch")})
        raise DeviceMismatch(
            f"config.training.batch_size={batch_size} is not a multiple of the {count} parts that"
            f" the mesh splits it into ({split})"
            + (f" times config.training.microbatches={microbatches}" if microbatches > 1 else "")
            + "; choose a multiple, or other sizes of config.mesh"
        )


def split_rows(batch: Any, count: int) -> Any:
    """Splits the rows of every array of a tree into parts: [B, …] → [count, B / count, …].

    Row r goes to part r mod count, so that each device keeps its rows.

    Args:
      batch: tree of arrays [B, …].
      count: number of parts, a divisor of B.
    """
    return jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, count, *x.shape[1:]), 1, 0), batch)


def join_rows(parts: Any) -> Any:
    """Inverts `split_rows`: [count, B / count, …] → [B, …]."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:]), parts)


def local_rows(sharding: NamedSharding, batch_size: int) -> Int[np.ndarray, "N"]:
    """Returns the rows of a global batch that this process's devices hold, in ascending order.

    Args:
      sharding: sharding of the batch's first axis.
      batch_size: number of rows of the global batch.
    """
    rows: set[int] = set()
    for index in sharding.addressable_devices_indices_map((batch_size,)).values():
        assert index is not None
        rows.update(range(*index[0].indices(batch_size)))
    return np.asarray(sorted(rows))
