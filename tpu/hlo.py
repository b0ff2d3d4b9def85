"""Reads a program that was compiled for TPU: its collectives, the backend's own estimate of cycles, its largest buffers.

Everything counts as often as it runs: a computation's count is that of its callers, times the trips of its loop. The text is the scheduled
program of one device, after partitioning (`jax.stages.Compiled.as_text`).
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
_SCALARS = (
    2,
    6,
)  # memory spaces of flags and scalars; data lie in HBM (0), VMEM (1) or, on v4, CMEM (3)
_SIZES = {
    "pred": 1,
    "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "f8e4m3fn": 1, "f8e5m2": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4,
    "f32": 4, "s64": 8, "u64": 8, "f64": 8,
}  # fmt: skip
_ARRAY = re.compile(r"\b(" + "|".join(_SIZES) + r")\[([0-9,]*)\](?:\{([0-9,]*)(?::([^}]*))?\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*->.*\{\s*$")
_NAME = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_CALLED = re.compile(
    r"(?:calls|to_apply|condition|body|branch_computations|true_computation|false_computation)=\{?(%[\w.\-]+(?:, %[\w.\-]+)*)"
)
_MOVES_NOTHING = {
    "parameter", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "constant", "optimization-barrier", "after-all",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of a shape: dtype, sizes, bytes without padding, padded bytes in the tiled layout, memory space (0: HBM)."""

    dtype: str
    sizes: tuple[int, ...]
    bytes: int
    padded: int
    space: int

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.sizes))}]"


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line: `root name = shape opcode(operands), attributes`; `rest` is all after the opening parenthesis."""

    name: str
    shape: str
    opcode: str
    rest: str
    root: bool

    @property
    def arrays(self) -> list[Array]:
        """The arrays of its result."""
        return arrays(self.shape)

    @property
    def source(self) -> str:
        """Where in the step it comes from: jax's op_name without the outermost function, "" if it says none."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return re.sub(r"^jit\(\w+\)/", "", found[1]) if found else ""


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation.

    Attributes:
      kind: of KINDS; an all-reduce of which each device keeps a part is a reduce-scatter. count: times a step.
      bytes: of the whole buffer, once: what an all-gather gives, what the others are given. wire: that a device sends, once, in a ring.
      axes: mesh axes that it runs along. dcn: whether it leaves the slice. rate: bytes a second that a device can send, 0 if unknown.
      source: where it comes from.
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
        """Of all its runs in a step, at full bandwidth."""
        return self.count * self.wire / self.rate if self.rate else 0.0


class Module:
    """A compiled program's text.

    Attributes:
      computations: name → instructions, callees before callers. counts: name → how often it runs in a step.
      fused: computations that are the inside of one operation. loops: [trips], None where it is not known (counted as 1).
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
            raise ValueError("this is no HLO text: it has no ENTRY computation")
        self.loops: list[int | None] = []
        self.fused: set[str] = set()
        self.counts = self._count()

    def _count(self) -> dict[str, int]:
        counts: dict[str, int] = collections.defaultdict(int, {self.entry: 1})
        for name in reversed(self.computations):
            if not counts[name]:
                continue
            for each in self.computations[name]:
                if each.opcode.endswith(("-done", "-update")):
                    continue  # its start has called what it names
                times = counts[name]
                if each.opcode == "while":
                    trips = self.trips(each)
                    self.loops.append(trips)
                    times *= 1 if trips is None else trips
                for called in _called(each):
                    counts[called] += times
                    if each.opcode == "fusion" or "to_apply=" in each.rest:
                        self.fused.add(called)
        return counts

    def trips(self, loop: Instruction) -> int | None:
        """How often a loop runs: from its backend config, or from the one bound in its condition, for loops that count from 0 by 1."""
        known = re.search(r"known_trip_count[^0-9]*(\d+)", loop.rest)
        if known:
            return int(known[1])
        condition = re.search(r"condition=%?([\w.\-]+)", loop.rest)
        lines = self.computations.get(condition[1], []) if condition else []
        bounds = [
            int(each.rest.partition(")")[0])
            for each in lines
            if each.opcode == "constant" and re.match(r"[su]\d+\[\]", each.shape)
        ]
        inclusive = any("direction=LE" in each.rest for each in self._reached(lines))
        return bounds[0] + inclusive if len(bounds) == 1 else None

    def _reached(self, lines: Iterable[Instruction]) -> Iterator[Instruction]:
        for each in lines:
            yield each
            for called in _called(each):
                yield from self.computations.get(called, [])

    def running(self) -> Iterator[tuple[str, int, Instruction]]:
        """(computation, times, instruction) of all that is scheduled by itself, not inside a fused operation."""
        for name, lines in self.computations.items():
            if self.counts[name] and name not in self.fused:
                for each in lines:
                    yield name, self.counts[name], each

    def cycles(self) -> int:
        """The backend's estimate of a step's cycles on one device: all operations that it schedules, one after another. Copies and
        collectives in flight, small operations and custom kernels without an estimate count 0."""
        total = 0
        for _, times, each in self.running():
            found = re.search(r'estimated_cycles":"(\d+)"', each.rest)
            total += times * int(found[1]) if found else 0
        return total

    def largest(self, count: int = 6) -> list[tuple[str, int, str]]:
        """The largest buffers in HBM that the step makes: (shape, padded bytes, where from), each shape and dtype once."""
        found: dict[str, tuple[int, str]] = {}
        for _, _, each in self.running():
            if each.opcode in _MOVES_NOTHING or each.opcode.endswith("-done"):
                continue
            for array in each.arrays:
                if array.space == 0 and (
                    str(array) not in found or (not found[str(array)][1] and each.source)
                ):
                    found[str(array)] = (array.padded, each.source)
        best = sorted(
            ((size, shape, source) for shape, (size, source) in found.items()), reverse=True
        )[:count]
        return [(shape, size, source) for size, shape, source in best]

    def collectives(self, layout: groups.Layout) -> list[Collective]:
        """Every collective that runs.

        TPU programs spread one asynchronous collective over several fused operations that all repeat its line; the one in which it starts
        counts. A fused computation of the name all-reduce-scatter is an all-reduce of which each device keeps its part.
        """
        found = []
        for name, lines in self.computations.items():
            starts = any('"AsyncCollectiveStart"' in each.rest for each in lines)
            for each in lines:
                if not self.counts[name] or (
                    "async_collective_fusion_config" in each.rest and not starts
                ):
                    continue
                kind = each.opcode.removesuffix("-start")
                if kind in KINDS:
                    found.append(
                        _collective(
                            kind,
                            each,
                            self.counts[name],
                            layout,
                            scattered="all-reduce-scatter" in name,
                        )
                    )
                elif kind == "send" and "megascale" in each.rest:
                    found.append(_between_slices(each, self.counts[name], layout))
        return found


def _collective(
    kind: str, each: Instruction, count: int, layout: groups.Layout, scattered: bool
) -> Collective:
    parts = [array.bytes for array in each.arrays if array.space not in _SCALARS]
    started = each.opcode.endswith("-start")
    if kind == "collective-permute":
        pairs = groups.pairs(each.rest)
        moved = parts[0] if any(source != target for source, target in pairs) else 0
        return Collective(
            kind,
            count,
            parts[0],
            moved,
            layout.axes_of_pairs(pairs),
            layout.pairs_leave(pairs),
            layout.rate_of_pairs(pairs),
            each.source,
        )
    members = groups.parse(each.rest, layout.devices)
    size = len(members[0])
    whole = sum(parts)
    if kind == "all-gather" and started:  # shows operand and result
        whole = round(whole * size / (size + 1))
    elif kind == "reduce-scatter":  # shows the part
        whole = round(whole * size / (size + 1)) if started else whole * size
    elif kind == "all-reduce" and scattered:
        kind = "reduce-scatter"
    share = (size - 1) / size
    wire = (2 if kind == "all-reduce" else 1) * share * whole
    return Collective(
        kind,
        count,
        whole,
        wire,
        layout.axes(members),
        layout.leaves(members),
        layout.rate(members),
        each.source,
    )


def _between_slices(each: Instruction, count: int, layout: groups.Layout) -> Collective:
    """What a device sends to the other slices: XLA has made it a transfer by the host, of the part that is left after the slice itself has
    reduced or before it gathers."""
    what = re.search(r'_xla_megascale_transfer_type="(\w+)"', each.rest)
    kind = what[1].lower().replace("_", "-") if what else "send"
    size, slices = each.arrays[0].bytes, layout.slices
    share = (slices - 1) / slices
    wire = {
        "all-reduce": 2 * share,
        "reduce-scatter": share,
        "all-gather": slices - 1.0,
        "all-to-all": share,
    }.get(kind, 1.0) * size
    return Collective(kind, count, size, wire, layout.slice_axes, True, layout.dcn, each.source)


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


def _called(each: Instruction) -> list[str]:
    if "=%" not in each.rest and "={%" not in each.rest:
        return []
    names = [
        name.strip().lstrip("%")
        for found in _CALLED.findall(each.rest)
        for name in found.split(",")
    ]
    return [name for name in names if name]


@functools.lru_cache(maxsize=4096)
def arrays(shape: str) -> list[Array]:
    """The arrays of a shape as HLO writes it, tuples flattened."""
    found = []
    for dtype, sizes, order, rest in _ARRAY.findall(shape):
        dims = tuple(int(size) for size in sizes.split(",") if size)
        space = re.search(r"S\((\d+)\)", rest)
        padded = _padded(dims, [int(dim) for dim in order.split(",") if dim], rest)
        found.append(
            Array(
                dtype,
                dims,
                int(math.prod(dims) * _SIZES[dtype]),
                int(padded * _SIZES[dtype]),
                int(space[1]) if space else 0,
            )
        )
    return found


def _padded(sizes: tuple[int, ...], order: list[int], layout: str) -> int:
    """Elements with padding: the first tile is laid over the most minor dimensions."""
    tile = re.search(r"T\(([0-9,]+)\)", layout)
    sizes_minor_first = (
        [sizes[dim] for dim in order] if len(order) == len(sizes) else list(reversed(sizes))
    )
    for place, edge in enumerate(
        reversed([int(edge) for edge in tile[1].split(",")]) if tile else ()
    ):
        if place < len(sizes_minor_first):
            sizes_minor_first[place] = -(-sizes_minor_first[place] // edge) * edge
    return math.prod(sizes_minor_first)
