"""Devices with named axes, and the one table that maps logical axes to mesh axes.

Model code names logical axes only ("width", "heads", "vocabulary"). RULES alone decides which mesh
axes split them. The axes of the mesh:

    slice     data parallelism over slices, which the data-centre network joins; all other axes stay
              inside a slice
    data      data parallelism: splits the batch, replicates the parameters
    fsdp      splits the batch, and each parameter with its optimiser state (ZeRO-3, Rajbhandari et
              al. 2020)
    stage     pipeline parallelism: splits the layers (lm/parallel/pipeline.py), and outside the
              pipeline the batch
    context   splits the sequence, in attention too (lm/nn/attention/context_parallel.py)
    tensor    splits heads, feed-forward and vocabulary (Shoeybi et al. 2019), and between them the
              sequence (Korthikanti et al. 2022)
"""

import contextlib
import contextvars
import dataclasses
import importlib.util
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Int

from lm.core.plugins import UserError

AXES = ("slice", "data", "fsdp", "stage", "context", "tensor")

# Logical axis → mesh axes that split it. A logical axis that is not listed is replicated.
RULES: dict[str, tuple[str, ...]] = {
    # Activations. Rows are independent, so the batch takes every axis that splits no sequence.
    "batch": ("slice", "data", "fsdp", "stage"),
    # The residual stream: norms and sums work on each position alone. Where heads, feed-forward or
    # vocabulary take "tensor" in the same array, positions are "length".
    "sequence": ("context", "tensor"),
    "length": ("context",),
    # Parameters. "layers" leads stacked layers; nearly every matrix has the axis "width", so
    # ZeRO-3 splits nearly all of the state by it.
    "layers": ("stage",),
    "width": ("fsdp",),
    # Both. Products keep these axes apart until one sum over the devices (Megatron).
    "feedforward": ("tensor",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "vocabulary": ("tensor",),
}

CONTEXT_ATTENTION = ("gather", "ring")


class DeviceMismatch(UserError):
    """A mesh, or a batch or model on it, that does not fit the number of devices.

    Callers that may lay a program out differently catch it and choose another mesh.
    """


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; -1 (at most once) takes all that remain.

    Attributes:
      slice: slices joined by the data-centre network.
      data: devices along "data".
      fsdp: devices along "fsdp".
      stage: stages of the pipeline.
      context: devices along "context".
      tensor: devices along "tensor".
      pipeline_microbatches: parts that a pipeline cuts the batch into; 0 takes as many as stages.
      pipeline_repeats: how often each part passes through the stages, each time through other
        layers; more make the bubble smaller.
      context_attention: "gather" collects all keys and values on each device, "ring" passes them
        from device to device.
    """

    slice: int = 1
    data: int = -1
    fsdp: int = 1
    stage: int = 1
    context: int = 1
    tensor: int = 1
    pipeline_microbatches: int = 0
    pipeline_repeats: int = 1
    context_attention: str = "gather"

    def __post_init__(self) -> None:
        sizes = self.sizes()
        if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
            raise ValueError(
                f"sizes {dict(zip(AXES, sizes, strict=True))}: each is a positive number, and at"
                " most one is -1"
            )
        if self.pipeline_microbatches < 0 or self.pipeline_repeats < 1:
            raise ValueError(
                f"pipeline_microbatches={self.pipeline_microbatches} must be at least 0, and"
                f" pipeline_repeats={self.pipeline_repeats} at least 1"
            )
        if self.context_attention not in CONTEXT_ATTENTION:
            raise ValueError(
                f"context_attention={self.context_attention!r} is not one of"
                f" {', '.join(CONTEXT_ATTENTION)}"
            )

    def sizes(self) -> list[int]:
        """Devices along each of AXES, as given."""
        return [getattr(self, axis) for axis in AXES]


_ONE_DEVICE = MeshConfig()
_CONFIG: contextvars.ContextVar[MeshConfig] = contextvars.ContextVar(
    "mesh config", default=_ONE_DEVICE
)
_RULES: contextvars.ContextVar[dict[str, tuple[str, ...]]] = contextvars.ContextVar(
    "mesh rules", default=RULES
)


def initialize() -> None:
    """Connects to the other processes of the job, if there are any.

    On a TPU machine JAX finds its peers itself. Elsewhere the environment names them:
    LM_COORDINATOR=host:port, LM_PROCESSES=<count>, LM_PROCESS=<index>. When a process disappears
    without notice, the others end after LM_HEARTBEAT seconds (default 100).

    Raises:
      UserError: one of these variables is missing or not a number.
    """
    try:
        heartbeat = int(os.environ.get("LM_HEARTBEAT", "100"))
        if heartbeat < 1:
            raise ValueError
    except ValueError:
        raise UserError(
            f"LM_HEARTBEAT={os.environ['LM_HEARTBEAT']!r} should be a whole number of seconds, at"
            " least 1"
        ) from None
    if "LM_COORDINATOR" in os.environ:
        try:
            count, index = int(os.environ["LM_PROCESSES"]), int(os.environ["LM_PROCESS"])
        except (KeyError, ValueError) as error:
            raise UserError(
                "LM_COORDINATOR needs LM_PROCESSES=<count> and LM_PROCESS=<index> beside it, both"
                " whole numbers"
            ) from error
        jax.distributed.initialize(
            os.environ["LM_COORDINATOR"], count, index, heartbeat_timeout_seconds=heartbeat
        )
    elif _has_chips() or _environment_names_peers():
        try:
            jax.distributed.initialize(heartbeat_timeout_seconds=heartbeat)
        except (RuntimeError, ValueError):  # not on a cloud that could name the peers
            if _environment_names_peers():
                raise


def _has_chips() -> bool:
    """Whether this machine has TPU chips and JAX may use them."""
    chips = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")]
    platforms = os.environ.get("JAX_PLATFORMS", "")
    return (
        bool(chips)
        and importlib.util.find_spec("libtpu") is not None
        and (not platforms or "tpu" in platforms)
    )


def _environment_names_peers() -> bool:
    """Whether the environment of a TPU job names several hosts or slices."""
    several_hosts = any(
        "," in os.environ.get(name, "")
        for name in ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")
    )
    return several_hosts or os.environ.get("MEGASCALE_NUM_SLICES", "1") not in ("", "1")


def make(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """Makes the mesh of a config, with all of AXES.

    Args:
      config: devices along each axis.
      devices: devices to use; by default all.

    Raises:
      DeviceMismatch: the sizes do not multiply to the number of devices, or the slices are not
        those of the machine.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = config.sizes()
    known = math.prod(size for size in sizes if size != -1)
    if -1 in sizes and len(devices) % known == 0:
        sizes[sizes.index(-1)] = len(devices) // known
    if math.prod(sizes) != len(devices):
        product = (
            " × ".join(
                f"{axis}={size}"
                for axis, size in zip(AXES, config.sizes(), strict=True)
                if size != 1
            )
            or "one device"
        )
        emulation = (
            " (To emulate 8 devices on a CPU: XLA_FLAGS=--xla_force_host_platform_device_count=8)"
        )
        raise DeviceMismatch(
            f"config.mesh asks for {product}, but there are {len(devices)} {devices[0].platform}"
            f" device(s); the product must be {len(devices)}."
            + (emulation if devices[0].platform == "cpu" else "")
        )
    grid = _device_grid(devices, sizes)
    return jax.sharding.Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _device_grid(devices: list[jax.Device], sizes: list[int]) -> np.ndarray:
    """The devices as an array of these sizes, with neighbours on an axis close on the network."""
    if devices[0].platform != "tpu":
        return np.asarray(devices).reshape(sizes)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1 and sizes[0] == 1:
        return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    if sizes[0] != slices:
        raise DeviceMismatch(
            f"config.mesh.slice={sizes[0]}, but the devices are in {slices} slices; set"
            f" config.mesh.slice={slices}"
        )
    across = [slices] + [1] * (len(AXES) - 1)
    return mesh_utils.create_hybrid_device_mesh(
        [1, *sizes[1:]], across, devices, allow_split_physical_axes=True
    )


@contextlib.contextmanager
def use(mesh: jax.sharding.Mesh, config: MeshConfig) -> Iterator[None]:
    """Context manager: functions traced inside are laid out on this mesh."""
    token = _CONFIG.set(config)
    try:
        with jax.set_mesh(mesh):
            yield
    finally:
        _CONFIG.reset(token)


@contextlib.contextmanager
def override_rules(**changes: tuple[str, ...]) -> Iterator[None]:
    """Context manager: replaces the mesh axes of the named logical axes."""
    token = _RULES.set(_RULES.get() | changes)
    try:
        yield
    finally:
        _RULES.reset(token)


def options() -> MeshConfig:
    """The config of the mesh in use."""
    return _CONFIG.get()


def axes(logical: str) -> tuple[str, ...]:
    """The mesh axes that split a logical axis."""
    return _RULES.get().get(logical, ())


def parts(logical: str, mesh: jax.sharding.Mesh | None = None) -> int:
    """Returns the number of parts that a logical axis is split into; 1 without a mesh.

    Args:
      logical: the logical axis.
      mesh: by default the mesh in use.
    """
    shape = dict((jax.sharding.get_abstract_mesh() if mesh is None else mesh).shape)
    return math.prod(shape.get(axis, 1) for axis in axes(logical))


def spec(names: Sequence[str | None], rank: int | None = None) -> PartitionSpec:
    """Returns the PartitionSpec of an array with these logical axes.

    Args:
      names: a logical name, or None, for each dimension.
      rank: the array's rank. If it exceeds the number of names, the first dimension is that of
        stacked layers.
    """
    if rank is not None and rank > len(names):
        names = ("layers", *[None] * (rank - len(names) - 1), *names)
    return PartitionSpec(*[axes(name) or None if name else None for name in names])


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """Constrains the layout of `x` to its logical axes; returns `x` unchanged without a mesh."""
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
      shardings_and_shapes: parameter → its PartitionSpec and shape.

    Raises:
      DeviceMismatch: it does not; the message names the parameter and the axis.
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
      batch_size: rows of the batch.
      microbatches: parts of the batch that are computed one after another.

    Raises:
      DeviceMismatch: it does not.
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


def describe(sizes: Mapping[str, Any]) -> str:
    """The mesh axes of more than one device, as "fsdp 8 × tensor 2"; other keys are ignored."""
    return (
        " × ".join(f"{axis} {sizes[axis]}" for axis in AXES if sizes.get(axis, 1) > 1)
        or "one device"
    )


def split_rows(batch: Any, count: int) -> Any:
    """[B, …] → [count, B / count, …] for every array of a tree.

    Row r goes to part r mod count, so that each device keeps its rows.
    """
    return jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, count, *x.shape[1:]), 1, 0), batch)


def join_rows(parts: Any) -> Any:
    """The inverse of `split_rows`."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:]), parts)


def local_rows(sharding: NamedSharding, batch_size: int) -> Int[np.ndarray, "N"]:
    """The rows of a global batch that this process's devices hold, in ascending order."""
    rows: set[int] = set()
    for index in sharding.addressable_devices_indices_map((batch_size,)).values():
        assert index is not None
        rows.update(range(*index[0].indices(batch_size)))
    return np.asarray(sorted(rows))
