"""Devices, named axes, and the one table that maps logical axes to mesh axes.

Model code names logical axes only ("width", "heads", "vocabulary"); RULES alone says where they lie. What each mesh axis splits:

    slice     the batch, over slices joined by the data-centre network; everything else stays inside a slice
    data      the batch
    fsdp      the batch, and each parameter with its optimiser state (ZeRO-3, Rajbhandari et al. 2020)
    stage     the layers, in a pipeline of microbatches (lm/parallel/pipeline.py); outside of the pipeline the batch
    context   the sequence, attention included (lm/nn/attention/context_parallel.py)
    tensor    heads, feed-forward and vocabulary (Shoeybi et al. 2019), and the sequence between them (Korthikanti et al. 2022)
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

from lm.core.plugins import UserError

AXES = ("slice", "data", "fsdp", "stage", "context", "tensor")

# Logical axis -> mesh axes. What is not listed is replicated.
RULES: dict[str, tuple[str, ...]] = {
    # Of activations.
    "batch": ("slice", "data", "fsdp", "stage"),
    "sequence": ("context", "tensor"),  # of the residual stream
    "length": ("context",),  # where tensor splits heads, feed-forward or vocabulary
    # Of parameters.
    "layers": ("stage",),  # the leading axis of stacked layers
    "width": ("fsdp",),
    # Of both.
    "feedforward": ("tensor",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "vocabulary": ("tensor",),
}

CONTEXT_ATTENTION = ("gather", "ring")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; -1 (at most once) takes all that are left.

    Attributes:
      pipeline_microbatches: parts that a pipeline cuts the batch into; 0 takes as many as stages.
      pipeline_repeats: how often each part goes round the stages, each time through other layers; more make the bubble smaller.
      context_attention: "gather" collects all keys and values on each device, "ring" passes them on from device to device.
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

    def __post_init__(self):
        sizes = self.sizes()
        if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
            raise ValueError(
                f"sizes {dict(zip(AXES, sizes, strict=True))}: each is a positive number, and at most one is -1"
            )
        if self.pipeline_microbatches < 0 or self.pipeline_repeats < 1:
            raise ValueError(
                f"pipeline_microbatches={self.pipeline_microbatches} must be at least 0, and"
                f" pipeline_repeats={self.pipeline_repeats} at least 1"
            )
        if self.context_attention not in CONTEXT_ATTENTION:
            raise ValueError(
                f"context_attention={self.context_attention!r} is not one of {', '.join(CONTEXT_ATTENTION)}"
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
    """Joins the other processes, if this is one of several.

    On a TPU machine JAX finds its peers itself, if there are any. Elsewhere the environment says it: LM_COORDINATOR=host:port,
    LM_PROCESSES=n, LM_PROCESS=i. A process that vanishes without a word ends the others after LM_HEARTBEAT
    seconds (default 100).
    """
    try:
        heartbeat = int(os.environ.get("LM_HEARTBEAT", "100"))
        if heartbeat < 1:
            raise ValueError
    except ValueError:
        raise UserError(
            f"LM_HEARTBEAT={os.environ['LM_HEARTBEAT']!r} should be a whole number of seconds, at least 1"
        ) from None
    if "LM_COORDINATOR" in os.environ:
        try:
            count, index = int(os.environ["LM_PROCESSES"]), int(os.environ["LM_PROCESS"])
        except (KeyError, ValueError) as error:
            raise UserError(
                "LM_COORDINATOR needs LM_PROCESSES=<count> and LM_PROCESS=<index> beside it, both whole numbers"
            ) from error
        jax.distributed.initialize(
            os.environ["LM_COORDINATOR"], count, index, heartbeat_timeout_seconds=heartbeat
        )
    elif _has_chips() or _told_of_peers():
        try:
            jax.distributed.initialize(heartbeat_timeout_seconds=heartbeat)
        except (RuntimeError, ValueError):  # no cloud to ask for peers
            if _told_of_peers():
                raise


def _has_chips() -> bool:
    """Whether this machine has TPU chips that JAX is to use."""
    chips = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")]
    wanted = os.environ.get("JAX_PLATFORMS", "")
    return (
        bool(chips)
        and importlib.util.find_spec("libtpu") is not None
        and (not wanted or "tpu" in wanted)
    )


def _told_of_peers() -> bool:
    """Whether the environment of a TPU job names several hosts or slices."""
    several = any(
        "," in os.environ.get(name, "")
        for name in ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")
    )
    return several or os.environ.get("MEGASCALE_NUM_SLICES", "1") not in ("", "1")


def make(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """The mesh with all of AXES over the devices.

    Raises:
      UserError: the sizes do not multiply to the number of devices, or the slices are not those of the machine.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = config.sizes()
    known = math.prod(size for size in sizes if size != -1)
    if -1 in sizes and len(devices) % known == 0:
        sizes[sizes.index(-1)] = len(devices) // known
    if math.prod(sizes) != len(devices):
        asked = (
            " × ".join(
                f"{axis}={size}"
                for axis, size in zip(AXES, config.sizes(), strict=True)
                if size != 1
            )
            or "one device"
        )
        raise UserError(
            f"config.mesh asks for {asked}, but there are {len(devices)} {devices[0].platform} device(s); the product must be"
            f" {len(devices)}."
            + (
                " (To emulate 8 devices on a CPU: XLA_FLAGS=--xla_force_host_platform_device_count=8)"
                if devices[0].platform == "cpu"
                else ""
            )
        )
    return jax.sharding.Mesh(_placed(devices, sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _placed(devices: list[jax.Device], sizes: list[int]) -> np.ndarray:
    """The devices as an array of these sizes, neighbours along an axis near each other on the machine's network."""
    if devices[0].platform != "tpu":
        return np.asarray(devices).reshape(sizes)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1 and sizes[0] == 1:
        return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    if sizes[0] != slices:
        raise UserError(
            f"config.mesh.slice={sizes[0]}, but the devices lie in {slices} slices; set config.mesh.slice={slices}"
        )
    across = [slices] + [1] * (len(AXES) - 1)
    return mesh_utils.create_hybrid_device_mesh(
        [1, *sizes[1:]], across, devices, allow_split_physical_axes=True
    )


@contextlib.contextmanager
def use(mesh: jax.sharding.Mesh, config: MeshConfig) -> Iterator[None]:
    """Inside, what is traced is laid out on this mesh."""
    token = _CONFIG.set(config)
    try:
        with jax.set_mesh(mesh):
            yield
    finally:
        _CONFIG.reset(token)


@contextlib.contextmanager
def rules(**changes: tuple[str, ...]) -> Iterator[None]:
    """Inside, these logical axes lie elsewhere."""
    token = _RULES.set(_RULES.get() | changes)
    try:
        yield
    finally:
        _RULES.reset(token)


def options() -> MeshConfig:
    """The config of the mesh in use."""
    return _CONFIG.get()


def axes(logical: str) -> tuple[str, ...]:
    """The mesh axes that a logical axis is split over."""
    return _RULES.get().get(logical, ())


def parts(logical: str, mesh: jax.sharding.Mesh | None = None) -> int:
    """Into how many parts a logical axis is split, on the mesh in use by default; 1 without a mesh."""
    shape = dict((jax.sharding.get_abstract_mesh() if mesh is None else mesh).shape)
    return math.prod(shape.get(axis, 1) for axis in axes(logical))


def spec(names: Sequence[str | None], rank: int | None = None) -> PartitionSpec:
    """The PartitionSpec of an array with these logical axes.

    Args:
      names: a logical name, or None, for each dimension.
      rank: the array's rank; if it is larger by one, the first dimension is that of stacked layers.
    """
    if rank is not None and rank > len(names):
        names = ("layers", *[None] * (rank - len(names) - 1), *names)
    return PartitionSpec(*[axes(name) or None if name else None for name in names])


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """Asks the partitioner to lay `x` out by its logical axes; does nothing without a mesh."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(names))


def check_divisible(
    mesh: jax.sharding.Mesh, shardings_and_shapes: dict[str, tuple[PartitionSpec, tuple[int, ...]]]
) -> None:
    """Refuses a mesh that does not divide a parameter evenly, naming the parameter and the axis."""
    for name, (partition, shape) in shardings_and_shapes.items():
        for size, entry in zip(shape, partition, strict=False):
            over = entry if isinstance(entry, tuple) else (entry,) if entry else ()
            count = math.prod(mesh.shape[axis] for axis in over)
            if size % count:
                raise UserError(
                    f"config.mesh splits {name} {shape} {count} ways along {'×'.join(over)}, but {size} is not a multiple of {count};"
                    f" choose sizes of {'×'.join(over)} that divide {size}"
                    + (
                        f", or --config.model.vocab_size={-(-size // 128) * 128}"
                        if over == axes("vocabulary") and size > 10_000
                        else ""
                    )
                )


def check_batch(mesh: jax.sharding.Mesh, batch_size: int, microbatches: int = 1) -> None:
    """Refuses a batch of which the mesh does not divide every microbatch."""
    count = parts("batch", mesh)
    if batch_size % (count * microbatches):
        split = described({axis: mesh.shape[axis] for axis in axes("batch")})
        raise UserError(
            f"config.training.batch_size={batch_size} is not a multiple of the {count} parts that the mesh splits it into ({split})"
            + (f" times config.training.microbatches={microbatches}" if microbatches > 1 else "")
            + "; choose a multiple, or other sizes of config.mesh"
        )


def described(sizes: Mapping[str, Any]) -> str:
    """Axes that split something, as in "fsdp 8 × tensor 2"; other fields are passed over."""
    return (
        " × ".join(f"{axis} {sizes[axis]}" for axis in AXES if sizes.get(axis, 1) > 1)
        or "one device"
    )


def split_rows(batch: Any, count: int) -> Any:
    """[B, …] → [count, B / count, …] for every array; row r goes to part r mod count, so that each device keeps its rows."""
    return jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, count, *x.shape[1:]), 1, 0), batch)


def join_rows(parts: Any) -> Any:
    """The inverse of `split_rows`."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:]), parts)


def local_rows(sharding: NamedSharding, batch_size: int) -> np.ndarray:
    """The rows of a global batch that this process's devices hold, sorted."""
    rows: set[int] = set()
    for index in sharding.addressable_devices_indices_map((batch_size,)).values():
        assert index is not None
        rows.update(range(*index[0].indices(batch_size)))
    return np.asarray(sorted(rows))
