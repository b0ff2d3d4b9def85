"""Devices, named axes, and the one table that maps logical axes to mesh axes.

Model code names logical axes only ("width", "heads", "vocabulary"); RULES alone says where they lie.
"""

import dataclasses
import math
import os
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lm.lookup import UserError

AXES = ("data", "fsdp", "tensor")

# Logical axis -> mesh axes. What is not listed is replicated.
RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "width": ("fsdp",),  # of parameters: the axis that fully sharded data parallelism splits
    "feedforward": ("tensor",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "vocabulary": ("tensor",),
}


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; -1 (at most once) takes all that are left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self):
        sizes = [getattr(self, axis) for axis in AXES]
        if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
            raise ValueError(f"sizes {dict(zip(AXES, sizes, strict=True))}: each is a positive number, and at most one is -1")


def initialize() -> None:
    """Joins the other processes, if this is one of several.

    On TPU slices of several hosts JAX finds its peers itself. Elsewhere the environment says it:
    LM_COORDINATOR=host:port, LM_PROCESSES=n, LM_PROCESS=i. A process that vanishes without a word ends the others after LM_HEARTBEAT
    seconds (default 100).
    """
    try:
        heartbeat = int(os.environ.get("LM_HEARTBEAT", "100"))
        if heartbeat < 1:
            raise ValueError
    except ValueError:
        raise UserError(f"LM_HEARTBEAT={os.environ['LM_HEARTBEAT']!r} should be a whole number of seconds, at least 1") from None
    if "LM_COORDINATOR" in os.environ:
        try:
            count, index = int(os.environ["LM_PROCESSES"]), int(os.environ["LM_PROCESS"])
        except (KeyError, ValueError) as error:
            raise UserError("LM_COORDINATOR needs LM_PROCESSES=<count> and LM_PROCESS=<index> beside it, both whole numbers") from error
        jax.distributed.initialize(os.environ["LM_COORDINATOR"], count, index, heartbeat_timeout_seconds=heartbeat)
    elif len(os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")) > 1:
        jax.distributed.initialize(heartbeat_timeout_seconds=heartbeat)


def make(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """The mesh with axes data, fsdp, tensor over the devices.

    Raises:
      UserError: the sizes do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = [config.data, config.fsdp, config.tensor]
    known = math.prod(size for size in sizes if size != -1)
    if -1 in sizes and len(devices) % known == 0:
        sizes[sizes.index(-1)] = len(devices) // known
    if math.prod(sizes) != len(devices):
        asked = " × ".join(f"{axis}={size}" for axis, size in zip(AXES, (config.data, config.fsdp, config.tensor), strict=True))
        raise UserError(
            f"config.mesh asks for {asked}, but there are {len(devices)} {devices[0].platform} device(s); the product must be"
            f" {len(devices)}. (To emulate 8 devices on a CPU: XLA_FLAGS=--xla_force_host_platform_device_count=8)"
        )
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def spec(axes: Sequence[str | None], rank: int | None = None) -> PartitionSpec:
    """The PartitionSpec of an array with these logical axes.

    Args:
      axes: a logical name, or None, for each dimension.
      rank: the array's rank; if it is larger, leading dimensions (stacked layers) are replicated.
    """
    padding = 0 if rank is None else rank - len(axes)
    return PartitionSpec(*[None] * padding, *[RULES.get(axis) if axis else None for axis in axes])


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Asks the partitioner to lay `x` out by its logical axes; does nothing without a mesh."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(axes))


def check_divisible(mesh: jax.sharding.Mesh, shardings_and_shapes: dict[str, tuple[PartitionSpec, tuple[int, ...]]]) -> None:
    """Refuses a mesh that does not divide a parameter evenly, naming the parameter and the axis."""
    for name, (partition, shape) in shardings_and_shapes.items():
        for size, entry in zip(shape, partition, strict=False):
            axes = entry if isinstance(entry, tuple) else (entry,) if entry else ()
            parts = math.prod(mesh.shape[axis] for axis in axes)
            if size % parts:
                raise UserError(
                    f"config.mesh splits {name} {shape} {parts} ways along {'×'.join(axes)}, but {size} is not a multiple of {parts};"
                    f" choose sizes of {'×'.join(axes)} that divide {size}"
                )


def local_rows(sharding: NamedSharding, batch_size: int) -> np.ndarray:
    """The rows of a global batch that this process's devices hold, sorted."""
    rows: set[int] = set()
    for index in sharding.addressable_devices_indices_map((batch_size,)).values():
        assert index is not None
        rows.update(range(*index[0].indices(batch_size)))
    return np.asarray(sorted(rows))
