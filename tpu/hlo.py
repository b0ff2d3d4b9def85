"""Reads the text of a program compiled for TPU: collectives, estimated cycles, largest buffers.

Everything counts as often as it runs: a computation's count is the sum of its callers' counts,
times the trip count of its loop. The text is the scheduled program of one device, after
partitioning (`jax.stages.Compiled.as_text`).
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterable, Iterator

from tpu import groups

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
    "ragged-all-to-all",
    "collective-broadcast",
)
# Memory spaces of flags and scalars. Data are in HBM (0), VMEM (1) or, on v4, CMEM (3).
_SCALARS = (2, 6)
_SIZES = {
    "pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "f8e4m3fn": 1, "f8e5m2": 1, "s16": 2,
    "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8,
}  # fmt: skip
_ARRAY = re.compile(r"\b(" + "|".join(_SIZES) + r")\[([0-9,]*)\](?:\{([0-9,]*)(?::([^}]*))?\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*->.*\{\s*$")
_NAME = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_CALLED = re.compile(
    r"(?:calls|to_apply|condition|body|branch_computations|true_computation|false_computation)"
    r"=\{?(%[\w.\-]+(?:, %[\w.\-]+)*)"
)
_MOVES_NOTHING = {
    "parameter", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call",
    "constant", "optimization-barrier", "after-all",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of a shape.

    Attributes:
      dtype: HLO's name of the dtype.
      sizes: sizes of the dimensions.
      bytes: size in bytes, without padding.
      padded: size in bytes in the tiled layout, with padding.
      space: memory space; 0 is HBM.
    """

    dtype: str
    sizes: tuple[int, ...]
    bytes: int
    padded: int
    space: int

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.sizes))}]"


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of HLO: `ROOT name = shape opcode(operands), attributes`.

    Attributes:
      name: name of the instruction.
      shape: shape of the instruction's result, as text.
      opcode: name of the operation.
      rest: the text after the opening parenthesis.
      root: whether the instruction is the result of its computation.
    """

    name: str
    shape: str
    opcode: str
    rest: str
    root: bool

    @property
    def arrays(self) -> list[Array]:
        """The arrays of the instruction's result."""
        return arrays(self.shape)

    @property
    def source(self) -> str:
        """The instruction's origin: JAX's op_name without the outermost function, or ""."""
        match = re.search(r'op_name="([^"]*)"', self.rest)
        return re.sub(r"^jit\(\w+\)/", "", match[1]) if match else ""


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation.

    Attributes:
      kind: one of KINDS; an all-reduce of which each device keeps a part is a reduce-scatter.
      count: number of runs per step.
      bytes: bytes of the full buffer in one run: the output of an all-gather, otherwise the input.
      wire: bytes that a device sends in one run, in a ring.
      axes: mesh axes along which the collective runs.
      dcn: whether the collective leaves the slice.
      rate: bytes per second that a device can send; 0 if unknown.
      source: origin of the collective in the step.
    """

    kind: str
    count: int
    bytes: int
    wire: float
    axes: tuple[str, ...]
    dcn: bool
    rate: float
    source: str

    @property
    def seconds(self) -> float:
        """Seconds of all runs of the collective in a step, at full bandwidth."""
        return self.count * self.wire / self.rate if self.rate else 0.0


class Module:
    """The text of a compiled program.

    Args:
      text: the program's text, from `jax.stages.Compiled.as_text`.

    Attributes:
      computations: instructions of each computation, by name, callees before callers.
      entry: the computation that the program starts with.
      counts: number of runs of each computation in a step, by name.
      fused: computations that are the body of one operation.
      loops: trip count of each loop; None if unknown (counted as 1).

    Raises:
      ValueError: the text is not HLO.
    """

    def __init__(self, text: str):
        self.computations: dict[str, list[Instruction]] = {}
        self.entry = ""
        current: list[Instruction] | None = None
        for line in text.splitlines():
            if line[:1] in ("%", "E") and (header := _HEADER.match(line)):
                current = self.computations[header[2]] = []
                self.entry = header[2] if header[1] else self.entry
            elif line[:1] == "}":
                current = None
            elif current is not None and (start := _NAME.match(line)):
                current.append(_instruction(line, start))
        if not self.entry:
            raise ValueError("this is not HLO text: it has no ENTRY computation")
        self.loops: list[int | None] = []
        self.fused: set[str] = set()
        self.counts = self._count()

    def _count(self) -> dict[str, int]:
        counts: dict[str, int] = collections.defaultdict(int, {self.entry: 1})
        for name in reversed(self.computations):
            if not counts[name]:
                continue
            for instruction in self.computations[name]:
                if instruction.opcode.endswith(("-done", "-update")):
                    continue  # the -start instruction has called the computations
                times = counts[name]
                if instruction.opcode == "while":
                    trips = self.trips(instruction)
                    self.loops.append(trips)
                    times *= 1 if trips is None else trips
                for called in _called(instruction):
                    counts[called] += times
                    if instruction.opcode == "fusion" or "to_apply=" in instruction.rest:
                        self.fused.add(called)
        return counts

    def trips(self, loop: Instruction) -> int | None:
        """Returns the trip count of a loop, or None if unknown.

        The trip count is in the backend config. Otherwise, for loops that count from 0 by 1, it is
        the only bound in the condition.
        """
        known = re.search(r"known_trip_count[^0-9]*(\d+)", loop.rest)
        if known:
            return int(known[1])
        condition = re.search(r"condition=%?([\w.\-]+)", loop.rest)
        lines = self.computations.get(condition[1], []) if condition else []
        bounds = [
            int(instruction.rest.partition(")")[0])
            for instruction in lines
            if instruction.opcode == "constant" and re.match(r"[su]\d+\[\]", instruction.shape)
        ]
        inclusive = any("direction=LE" in instruction.rest for instruction in self._reached(lines))
        return bounds[0] + inclusive if len(bounds) == 1 else None

    def _reached(self, lines: Iterable[Instruction]) -> Iterator[Instruction]:
        for instruction in lines:
            yield instruction
            for called in _called(instruction):
                yield from self.computations.get(called, [])

    def running(self) -> Iterator[tuple[str, int, Instruction]]:
        """Yields (computation, count, instruction) of all instructions that are not fused."""
        for name, lines in self.computations.items():
            if self.counts[name] and name not in self.fused:
                for instruction in lines:
                    yield name, self.counts[name], instruction

    def cycles(self) -> int:
        """The backend's estimate of a step's cycles on one device: all operations in sequence.

        Copies and collectives in flight, small operations, and custom kernels without an estimate
        count 0.
        """
        total = 0
        for _, times, instruction in self.running():
            match = re.search(r'estimated_cycles":"(\d+)"', instruction.rest)
            total += times * int(match[1]) if match else 0
        return total

    def largest(self, count: int = 6) -> list[tuple[str, int, str]]:
        """Returns the largest HBM buffers of the step: (shape, padded bytes, source).

        Every shape and dtype is listed once.

        Args:
          count: the number of buffers.
        """
        buffers: dict[str, tuple[int, str]] = {}
        for _, _, instruction in self.running():
            if instruction.opcode in _MOVES_NOTHING or instruction.opcode.endswith("-done"):
                continue
            for array in instruction.arrays:
                if array.space == 0 and (
                    str(array) not in buffers or (not buffers[str(array)][1] and instruction.source)
                ):
                    buffers[str(array)] = (array.padded, instruction.source)
        best = sorted(
            ((size, shape, source) for shape, (size, source) in buffers.items()), reverse=True
        )[:count]
        return [(shape, size, source) for size, shape, source in best]

    def collectives(self, layout: groups.Layout) -> list[Collective]:
        """Returns every collective that runs.

        TPU programs spread an asynchronous collective over several fused operations that all repeat
        its line; only the operation that starts it counts. A fused computation named
        all-reduce-scatter is an all-reduce of which each device keeps its part.

        Args:
          layout: positions of the devices.
        """
        collectives = []
        for name, lines in self.computations.items():
            starts = any('"AsyncCollectiveStart"' in instruction.rest for instruction in lines)
            for instruction in lines:
                if not self.counts[name] or (
                    "async_collective_fusion_config" in instruction.rest and not starts
                ):
                    continue
                kind = instruction.opcode.removesuffix("-start")
                if kind in KINDS:
                    collectives.append(
                        _collective(
                            kind,
                            instruction,
                            self.counts[name],
                            layout,
                            scattered="all-reduce-scatter" in name,
                        )
                    )
                elif kind == "send" and "megascale" in instruction.rest:
                    collectives.append(_between_slices(instruction, self.counts[name], layout))
        return collectives


def _collective(
    kind: str, instruction: Instruction, count: int, layout: groups.Layout, scattered: bool
) -> Collective:
    parts = [array.bytes for array in instruction.arrays if array.space not in _SCALARS]
    started = instruction.opcode.endswith("-start")
    if kind == "collective-permute":
        pairs = groups.pairs(instruction.rest)
        moved = parts[0] if any(source != target for source, target in pairs) else 0
        return Collective(
            kind,
            count,
            parts[0],
            moved,
            layout.axes_of_pairs(pairs),
            layout.pairs_leave(pairs),
            layout.rate_of_pairs(pairs),
            instruction.source,
        )
    members = groups.parse(instruction.rest, layout.devices)
    size = len(members[0])
    total = sum(parts)
    if kind == "all-gather" and started:  # the shape holds operand and result
        total = round(total * size / (size + 1))
    elif kind == "reduce-scatter":  # the shape is that of a part
        total = round(total * size / (size + 1)) if started else total * size
    elif kind == "all-reduce" and scattered:
        kind = "reduce-scatter"
    fraction = (size - 1) / size
    wire = (2 if kind == "all-reduce" else 1) * fraction * total
    return Collective(
        kind,
        count,
        total,
        wire,
        layout.axes(members),
        layout.leaves(members),
        layout.rate(members),
        instruction.source,
    )


def _between_slices(instruction: Instruction, count: int, layout: groups.Layout) -> Collective:
    """The transfer of a device to other slices.

    XLA makes it a transfer by the host, of the part that remains after the reduction inside the
    slice, or before the gathering in it.
    """
    match = re.search(r'_xla_megascale_transfer_type="(\w+)"', instruction.rest)
    kind = match[1].lower().replace("_", "-") if match else "send"
    size, slices = instruction.arrays[0].bytes, layout.slices
    fraction = (slices - 1) / slices
    wire = {
        "all-reduce": 2 * fraction,
        "reduce-scatter": fraction,
        "all-gather": slices - 1.0,
        "all-to-all": fraction,
    }.get(kind, 1.0) * size
    return Collective(
        kind, count, size, wire, layout.slice_axes, True, layout.dcn, instruction.source
    )


def _instruction(line: str, start: re.Match) -> Instruction:
    rest = line[start.end() :]
    end = _closing(rest) if rest[0] == "(" else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, rest = rest.partition("(")
    return Instruction(start[2], shape, opcode, rest, bool(start[1]))


def _closing(text: str) -> int:
    depth = 0
    for match in re.finditer(r"[()]", text):
        depth += 1 if match[0] == "(" else -1
        if not depth:
            return match.end()
    raise ValueError(f"unbalanced parentheses in {text[:80]!r}")


def _called(instruction: Instruction) -> list[str]:
    if "=%" not in instruction.rest and "={%" not in instruction.rest:
        return []
    names = [
        name.strip().lstrip("%")
        for match in _CALLED.findall(instruction.rest)
        for name in match.split(",")
    ]
    return [name for name in names if name]


@functools.lru_cache(maxsize=4096)
def arrays(shape: str) -> list[Array]:
    """Returns the arrays of a shape in HLO's notation; tuples are flattened."""
    parsed = []
    for dtype, sizes, order, rest in _ARRAY.findall(shape):
        dims = tuple(int(size) for size in sizes.split(",") if size)
        space = re.search(r"S\((\d+)\)", rest)
        padded = _padded(dims, [int(dim) for dim in order.split(",") if dim], rest)
        parsed.append(
            Array(
                dtype,
                dims,
                int(math.prod(dims) * _SIZES[dtype]),
                int(padded * _SIZES[dtype]),
                int(space[1]) if space else 0,
            )
        )
    return parsed


def _padded(sizes: tuple[int, ...], order: list[int], layout: str) -> int:
    """Elements with padding: the first tile covers the most minor dimensions."""
    tile = re.search(r"T\(([0-9,]+)\)", layout)
    sizes_minor_first = (
        [sizes[dim] for dim in order] if len(order) == len(sizes) else list(reversed(sizes))
    )
    for dim, edge in enumerate(
        reversed([int(edge) for edge in tile[1].split(",")]) if tile else ()
    ):
        if dim < len(sizes_minor_first):
            sizes_minor_first[dim] = -(-sizes_minor_first[dim] // edge) * edge
    return math.prod(sizes_minor_first)
