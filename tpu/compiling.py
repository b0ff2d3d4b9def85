"""Compiles a config's train step for a slice, without its devices."""

import contextlib
import copy
import dataclasses
import functools
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from lm.core.plugins import UserError
from lm.training.program import Program
from tpu import abstract, groups
from tpu.slices import Slice

# Depths from which costs are extrapolated, in units of the layers that the mesh's pipeline needs. A
# depth of 1 is omitted: the first layers are not like the others.
DEPTHS = (2, 3)


@dataclasses.dataclass(frozen=True)
class Traced:
    """A program on a slice's devices, traced but not compiled.

    Attributes:
      config: run config of the program, with the mesh of the slice.
      slice: slice on whose devices the program is traced.
      program: the traced program.
      batch: shapes and shardings of a batch.
    """

    config: dict[str, Any]
    slice: Slice
    program: Program
    batch: dict[str, jax.ShapeDtypeStruct]

    @property
    def layout(self) -> groups.Layout:
        """Positions of the mesh's devices in the network."""
        devices = self.program.mesh.devices.ravel()
        chip = self.slice.chip
        return groups.Layout(
            tuple(self.program.mesh.axis_names),
            tuple(self.program.mesh.devices.shape),
            tuple(getattr(device, "slice_index", None) or 0 for device in devices),
            np.array([device.coords for device in devices]),
            (*self.slice.wraps, False)[:3],
            chip.link * 1e9 / chip.devices,
            chip.dcn * 1e9 / chip.devices,
        )


@dataclasses.dataclass(frozen=True)
class OutOfMemory:
    """The compiler's error for a program that does not fit the memory.

    Attributes:
      needs: GiB that the program needs on a device; 0 if the compiler does not report it.
      has: GiB that the device has; 0 if the compiler does not report it.
      message: the compiler's message.
    """

    needs: float
    has: float
    message: str


@functools.cache
def devices(tpu: Slice) -> tuple[jax.Device, ...]:
    """Returns the devices of one or several slices, slice by slice.

    Raises:
      UserError: the installed libtpu does not have such a slice.
    """
    try:
        devices = topologies.get_topology_desc(
            platform="tpu", topology_name=tpu.topology, **tpu.arguments
        ).devices
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"libtpu cannot describe {tpu.name} ({tpu.topology}): {str(error).splitlines()[0]}"
        ) from error
    if len(devices) != tpu.devices:
        raise UserError(
            f"libtpu describes {tpu.name} with {len(devices)} devices where {tpu.devices} were"
            " expected; is it another version?"
        )
    return tuple(devices)


def build(config: Mapping[str, Any], tpu: Slice) -> Traced:
    """Traces the config's program on the slice.

    Args:
      config: a run config as a dict.
      tpu: one or several slices; several slices form the mesh's axis "slice" by default.

    Raises:
      UserError: the mesh does not fit the devices or the model, or does not divide the batch; or
        rows of this length give no example.
    """
    own = copy.deepcopy(dict(config))
    if tpu.slices > 1 and own["mesh"]["slice"] == 1:
        own["mesh"]["slice"] = tpu.slices
    program = abstract.build(own, devices(tpu))
    return Traced(own, tpu, program, abstract.batch(program, own["tokenizer"]))


def compile_step(
    traced: Traced, options: Mapping[str, str]
) -> tuple[jax.stages.Compiled | OutOfMemory, float]:
    """Compiles a step.

    Args:
      traced: the program.
      options: compiler options.

    Returns:
      (the compiled step, or the error if memory is too small; seconds of tracing and compiling).

    Raises:
      UserError: the compiler does not know an option.
    """
    start = time.perf_counter()
    lowered = traced.program.lower(traced.batch)
    try:
        compiled = lowered.compile(compiler_options=dict(options))
    except jax.errors.JaxRuntimeError as error:
        text = str(error)
        if "RESOURCE_EXHAUSTED" in text:
            return _out_of_memory(text), time.perf_counter() - start
        unknown = re.search(r"No such compile option: '([^']*)'", text)
        if unknown:
            raise UserError(f"--flag: the TPU compiler has no option {unknown[1]!r}") from error
        raise UserError(
            f"the TPU compiler rejected the step for {traced.slice.name}:"
            f" {text.splitlines()[0][:500]}"
        ) from error
    return compiled, time.perf_counter() - start


def _out_of_memory(text: str) -> OutOfMemory:
    line = next(line for line in text.splitlines() if "RESOURCE_EXHAUSTED" in line)
    for pattern in (
        r"required.*?\(([\d.]+)([KMGT])\) exceeds available HBM \(([\d.]+)([KMGT])\)",
        r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT])",
    ):
        if match := re.search(pattern, text):
            return OutOfMemory(_gib(match[1], match[2]), _gib(match[3], match[4]), line)
    return OutOfMemory(0.0, 0.0, line)


def _gib(number: str, unit: str) -> float:
    return float(number) * 1024.0 ** ("KMGT".index(unit) - 2)


def cost(
    config: Mapping[str, Any], tpu: Slice, options: Mapping[str, str]
) -> dict[str, Any] | None:
    """Returns the compiler's own FLOPs and bytes of a step on one device.

    The compiler counts the body of a loop once. So every scan is unrolled, at two small depths, and
    the cost is extrapolated to the model's depth: a step's cost is linear in it.

    Args:
      config: a run config as a dict.
      tpu: the slice.
      options: compiler options.

    Returns:
      {"flops", "bytes", "depths" (the compiled depths), "seconds"}; None if an unrolled program
      does not fit the memory.
    """
    mesh = config["mesh"]
    unit = mesh["stage"] * mesh["pipeline_repeats"]
    layers = int(config["model"]["layers"])
    depths = [unit * depth for depth in DEPTHS]
    depths = [layers] if layers <= depths[-1] else depths
    costs, seconds = [], 0.0
    for depth in depths:
        shallow = copy.deepcopy(dict(config))
        shallow["model"]["layers"] = depth
        with unrolled():
            compiled, took = compile_step(build(shallow, tpu), options)
        seconds += took
        if isinstance(compiled, OutOfMemory):
            return None
        analysis: Any = compiled.cost_analysis()
        costs.append((analysis["flops"], analysis["bytes accessed"]))
    totals = []
    for number in range(2):
        first, last = costs[0][number], costs[-1][number]
        slope = (last - first) / (depths[-1] - depths[0]) if len(depths) > 1 else 0.0
        totals.append(last + slope * (layers - depths[-1]))
    return {"flops": totals[0], "bytes": totals[1], "depths": depths, "seconds": seconds}


@contextlib.contextmanager
def unrolled() -> Iterator[None]:
    """Context manager: jax.lax.scan is traced without a loop."""
    scan = jax.lax.scan

    def unrolling(*arguments: Any, **options: Any) -> Any:
        return scan(*arguments, **{**options, "unroll": True})

    jax.lax.scan = unrolling
    try:
        yield
    finally:
        jax.lax.scan = scan
