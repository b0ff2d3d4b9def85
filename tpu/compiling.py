"""Compiles a config's train step for a slice that is not there."""

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

# Depths, in units of what the mesh's pipeline needs, of which the costs are extrapolated: the first layers are not like the others.
DEPTHS = (2, 3)


@dataclasses.dataclass(frozen=True)
class Traced:
    """A program on a slice's devices: traced, not compiled."""

    config: dict[str, Any]
    slice: Slice
    program: Program
    batch: dict[str, jax.ShapeDtypeStruct]

    @property
    def layout(self) -> groups.Layout:
        """Where the mesh's devices stand."""
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
    """The compiler's refusal: GiB that the program needs on a device, and that there are; 0 where it does not say."""

    needs: float
    has: float
    message: str


@functools.cache
def devices(of: Slice) -> tuple[jax.Device, ...]:
    """The slice's devices, of several slices one after the other.

    Raises:
      UserError: this libtpu does not know such a slice.
    """
    try:
        found = topologies.get_topology_desc(
            platform="tpu", topology_name=of.topology, **of.arguments
        ).devices
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"libtpu cannot describe {of.name} ({of.topology}): {str(error).splitlines()[0]}"
        ) from error
    if len(found) != of.devices:
        raise UserError(
            f"libtpu describes {of.name} with {len(found)} devices where {of.devices} were expected; is it another version?"
        )
    return tuple(found)


def build(config: Mapping[str, Any], of: Slice) -> Traced:
    """The config's program on the slice.

    Raises:
      UserError: it does not fit together; see `abstract.build`.
    """
    own = copy.deepcopy(dict(config))
    if of.slices > 1 and own["mesh"]["slice"] == 1:
        own["mesh"]["slice"] = of.slices
    program = abstract.build(own, devices(of))
    return Traced(own, of, program, abstract.batch(program, own["tokenizer"]))


def compile_step(traced: Traced, options: Mapping[str, str]) -> tuple[Any, float]:
    """The compiled step and the seconds of tracing and compiling, or what the compiler said where memory is too small.

    Returns:
      (jax.stages.Compiled | OutOfMemory, seconds).

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
            return _refusal(text), time.perf_counter() - start
        unknown = re.search(r"No such compile option: '([^']*)'", text)
        if unknown:
            raise UserError(f"--flag: the TPU compiler has no option {unknown[1]!r}") from error
        raise UserError(
            f"the TPU compiler refused the step for {traced.slice.name}: {text.splitlines()[0][:500]}"
        ) from error
    return compiled, time.perf_counter() - start


def _refusal(text: str) -> OutOfMemory:
    line = next(line for line in text.splitlines() if "RESOURCE_EXHAUSTED" in line)
    for pattern in (
        r"required.*?\(([\d.]+)([KMGT])\) exceeds available HBM \(([\d.]+)([KMGT])\)",
        r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT])",
    ):
        if found := re.search(pattern, text):
            return OutOfMemory(_gib(found[1], found[2]), _gib(found[3], found[4]), line)
    return OutOfMemory(0.0, 0.0, line)


def _gib(number: str, unit: str) -> float:
    return float(number) * 1024.0 ** ("KMGT".index(unit) - 2)


def cost(config: Mapping[str, Any], of: Slice, options: Mapping[str, str]) -> dict[str, Any] | None:
    """The compiler's FLOPs and bytes of a step on one device, for the whole depth, from programs without loops.

    The compiler counts the body of a loop once. So every scan is unrolled, at two small depths; a step's cost is linear in the depth.

    Returns:
      {"flops", "bytes", "depths": those compiled, "seconds"}; None where such a program does not fit the memory.
    """
    mesh = config["mesh"]
    unit = mesh["stage"] * mesh["pipeline_repeats"]
    layers = int(config["model"]["layers"])
    wanted = [unit * depth for depth in DEPTHS]
    depths = [layers] if layers <= wanted[-1] else wanted
    found, seconds = [], 0.0
    for depth in depths:
        shallow = copy.deepcopy(dict(config))
        shallow["model"]["layers"] = depth
        with unrolled():
            compiled, took = compile_step(build(shallow, of), options)
        seconds += took
        if isinstance(compiled, OutOfMemory):
            return None
        analysis = compiled.cost_analysis()
        found.append((analysis["flops"], analysis["bytes accessed"]))
    totals = []
    for number in range(2):
        first, last = found[0][number], found[-1][number]
        slope = (last - first) / (depths[-1] - depths[0]) if len(depths) > 1 else 0.0
        totals.append(last + slope * (layers - depths[-1]))
    return {"flops": totals[0], "bytes": totals[1], "depths": depths, "seconds": seconds}


@contextlib.contextmanager
def unrolled() -> Iterator[None]:
    """Traces every jax.lax.scan without a loop."""
    scan = jax.lax.scan

    def unrolling(*arguments: Any, **options: Any) -> Any:
        return scan(*arguments, **{**options, "unroll": True})

    jax.lax.scan = unrolling
    try:
        yield
    finally:
        jax.lax.scan = scan
