"""Device meshes with named axes. lm/parallel/sharding.py decides which array axes they split.

The axes of the mesh:

    slice     data parallelism over slices, connected by the data-center network (DCN); all other
              mesh axes stay inside a slice
    data      data parallelism: splits the batch, replicates the parameters
    fsdp      splits the batch, and each parameter with its optimizer state (ZeRO-3, Rajbhandari et
              al. 2020)
    stage     pipeline parallelism: splits the layers (lm/parallel/pipeline.py); outside the
              pipeline, splits the batch
    context   splits the sequence, even inside attention (lm/nn/attention/context_parallel.py)
    tensor    splits heads, feed-forward width and vocabulary (Shoeybi et al. 2019); between
              sublayers, splits the sequence (Korthikanti et al. 2022)
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
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType

from lm.core.plugins import UserError

AXES = ("slice", "data", "fsdp", "stage", "context", "tensor")
CONTEXT_ATTENTION = ("gather", "ring")


class DeviceMismatch(UserError):
    """Raised if a mesh, or a batch or model on a mesh, does not fit the number of devices.

    Callers that can use another mesh catch this error.
    """


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Number of devices along each axis; -1 (at most once) takes all remaining devices.

    Attributes:
      slice: number of slices, connected by the data-center network.
      data: number of devices along "data".
      fsdp: number of devices along "fsdp".
      stage: number of pipeline stages.
      context: number of devices along "context".
      tensor: number of devices along "tensor".
      pipeline_microbatches: number of parts that a pipeline cuts the batch into; 0 for as many as
        there are stages.
      pipeline_repeats: number of passes of each part through the stages, each pass through
        different layers; more passes make the bubble smaller.
      context_attention: "gather" to all-gather keys and values, or "ring" to pass them from device
        to device.
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
        """Returns the number of devices along each of AXES, as given."""
        return [getattr(self, axis) for axis in AXES]


_ONE_DEVICE = MeshConfig()
_CONFIG: contextvars.ContextVar[MeshConfig] = contextvars.ContextVar(
    "mesh config", default=_ONE_DEVICE
)


def initialize() -> None:
    """Connects to the other processes of the job, if there are any.

    On a TPU machine JAX finds its peers itself. Elsewhere the environment names them:
    LM_COORDINATOR=host:port, LM_PROCESSES=<count>, LM_PROCESS=<index>. If a process fails
    silently, the others exit after LM_HEARTBEAT seconds (default 100).

    Raises:
      UserError: one of these variables is missing or is not a number.
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
                "LM_COORDINATOR needs LM_PROCESSES=<count> and LM_PROCESS=<index> too, both"
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
      config: number of devices along each axis.
      devices: devices of the mesh; by default all devices.

    Raises:
      DeviceMismatch: the product of the sizes is not the number of devices, or `slice` is not
        the number of slices of the machine.
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
    """The devices as an array of these sizes, with neighbors on an axis close on the network."""
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
    """Context manager: functions traced inside use this mesh.

    Args:
      mesh: the mesh that `make` returned.
      config: the config that the mesh was made from.
    """
    token = _CONFIG.set(config)
    try:
        with jax.set_mesh(mesh):
            yield
    finally:
        _CONFIG.reset(token)


def options() -> MeshConfig:
    """Returns the config of the mesh in use."""
    return _CONFIG.get()


def describe(sizes: Mapping[str, Any]) -> str:
    """Returns the axes with more than one device, as "fsdp 8 × tensor 2"; ignores other keys."""
    return (
        " × ".join(f"{axis} {sizes[axis]}" for axis in AXES if sizes.get(axis, 1) > 1)
        or "one device"
    )
