"""Operations and memory traffic of a compiled program, from its text: every loop's body as often as the loop runs.

`jax.stages.Compiled.cost_analysis` counts a loop's body once, and scanned layers, microbatches and parts of the vocabulary are loops.
Operations are those of matrix products (as the compiler counts them, which adds a little for the rest). Traffic is what the scheduled
operations read from HBM and write to it; buffers that the compiler keeps on the chip (memory space 1) do not count, of a stacked array that
an operation slices or updates in place only the slice does.
"""

import functools
import math
import re
from collections.abc import Iterator

from tpu.hlo import KINDS, Array, Instruction, Module

_FREE = {
    "parameter", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "constant", "optimization-barrier", "after-all",
    "partition-id", "replica-id", "send", "recv",
}  # fmt: skip
_FREE_CALLS = (
    "AllocateBuffer",
    "ConcatBitcast",
    "AsyncCollectiveStart",
    "AsyncCollectiveDone",
    "AssumeGatherIndicesInBound",
)


class Work:
    """What a program does in one step on one device.

    Attributes:
      flops: of matrix products. traffic: bytes read from HBM and written to it. unknown: custom kernels that say no cost.
    """

    def __init__(self, module: Module):
        self.module = module
        self.named = {
            name: {each.name: each for each in lines} for name, lines in module.computations.items()
        }
        self.flops, self.traffic, self.unknown = 0.0, 0.0, 0
        for name, lines in module.computations.items():
            for each in lines:
                if times := module.counts[name]:
                    self.flops += times * self._flops(name, each)
        for name, times, each in module.running():
            self.traffic += times * self._traffic(name, each)

    def _flops(self, computation: str, each: Instruction) -> float:
        if each.opcode == "convolution":
            return convolution(each, *self._shapes(computation, each))
        if each.opcode == "dot":
            lhs = self._shapes(computation, each)[0]
            contracted = re.search(r"lhs_contracting_dims=\{([0-9,]*)\}", each.rest)
            dims = [int(dim) for dim in contracted[1].split(",") if dim] if contracted else []
            return 2.0 * math.prod(each.arrays[0].sizes) * math.prod(lhs.sizes[dim] for dim in dims)
        if each.opcode == "custom-call" and 'custom_call_target="tpu_custom_call"' in each.rest:
            said = re.search(r'cost_estimate"?:\s*\{[^}]*?flops"?:\s*"?(\d+)', each.rest)
            self.unknown += said is None
            return float(said[1]) if said else 0.0
        return 0.0

    def _shapes(self, computation: str, each: Instruction) -> list[Array]:
        """The first array of each operand."""
        found = (self.named[computation].get(name) for name in operands(each))
        return [operand.arrays[0] for operand in found if operand is not None and operand.arrays]

    def _traffic(self, computation: str, each: Instruction) -> float:
        if each.opcode in _FREE or each.opcode.endswith(("-done", "-update")):
            return 0.0
        if each.opcode == "custom-call" and any(f'"{free}"' in each.rest for free in _FREE_CALLS):
            return 0.0
        arrays = each.arrays
        if each.opcode == "copy-start":
            return _hbm(arrays[0]) + _hbm(arrays[1])
        if each.opcode == "slice-start":
            source, part = arrays[0], arrays[1]
            return part.padded * ((source.space == 0) + (part.space == 0))
        inputs = [self.named[computation].get(name) for name in operands(each)]
        if each.opcode == "fusion":
            called = re.search(r"calls=%([\w.\-]+)", each.rest)
            if called and called[1] in self.named:
                return self._fusion(called[1], inputs, arrays)
        given = [array for operand in inputs if operand is not None for array in operand.arrays]
        if each.opcode in ("dynamic-slice", "gather"):
            return _hbm(arrays[0]) + (arrays[0].padded if given and given[0].space == 0 else 0)
        if each.opcode == "dynamic-update-slice":
            return (
                _hbm(given[1]) + (given[1].padded if arrays[0].space == 0 else 0)
                if len(given) > 1
                else 0.0
            )
        return sum(map(_hbm, given)) + sum(map(_hbm, arrays))

    def _fusion(self, name: str, inputs: list[Instruction | None], outputs: list[Array]) -> float:
        total = 0.0
        for number, given in enumerate(inputs):
            if given is not None:
                for array in given.arrays:
                    if array.space == 0:
                        total += min(array.padded, self._read(name, number, array.padded))
        root = next(each for each in self.module.computations[name] if each.root)
        made = [
            self._before(name, part)
            for part in (operands(root) if root.opcode == "tuple" else [root.name])
        ]
        for part, array in zip(made, outputs, strict=False):
            if array.space == 0 and part is not None:
                total += self._written(name, part, array)
        # An asynchronous collective that starts here: its buffer is read and written.
        for each in self.module.computations[name]:
            if (
                each.opcode in KINDS
                and "async_collective_fusion_config" in each.rest
                and root.opcode == "custom-call"
            ):
                if '"AsyncCollectiveStart"' in root.rest:
                    total += 2 * sum(map(_hbm, each.arrays))
        return total

    def _written(self, name: str, part: Instruction, array: Array) -> float:
        if (
            part.opcode == "parameter"
            or '"AsyncCollective' in part.rest
            or "async_collective_fusion_config" in part.rest
        ):
            return 0.0
        if part.opcode == "dynamic-update-slice":
            update = self.named[name].get(operands(part)[1])
            return update.arrays[0].padded if update is not None else array.padded
        return array.padded

    def _before(self, name: str, part: str) -> Instruction | None:
        """What an instruction is a view of."""
        each = self.named[name].get(part)
        while each is not None and each.opcode == "bitcast":
            each = self.named[name].get(operands(each)[0])
        return each

    def _read(self, name: str, number: int, whole: float) -> float:
        """Bytes that a fused computation reads of its parameter: all, or only what it slices out of it."""
        parameters = self._parameters(name)
        if number not in parameters:
            return whole
        total = 0.0
        for each, place in self._users(name, parameters[number]):
            if each.opcode in ("dynamic-slice", "gather") and place == 0:
                total += each.arrays[0].padded
            elif each.opcode == "dynamic-update-slice" and place == 0:
                continue
            elif (
                each.opcode == "fusion"
                and (called := re.search(r"calls=%([\w.\-]+)", each.rest))
                and called[1] in self.named
            ):
                total += self._read(called[1], place, whole)
            elif (
                each.opcode in ("tuple", "custom-call")
                or "async_collective_fusion_config" in each.rest
            ):
                continue
            else:
                return whole
        return total

    def _users(self, name: str, value: str) -> Iterator[tuple[Instruction, int]]:
        for each in self.module.computations[name]:
            for place, operand in enumerate(operands(each)):
                if operand == value:
                    if each.opcode == "bitcast":
                        yield from self._users(name, each.name)
                    else:
                        yield each, place

    @functools.cache  # noqa: B019 (a Work lives as long as its module)
    def _parameters(self, name: str) -> dict[int, str]:
        return {
            int(each.rest.partition(")")[0]): each.name
            for each in self.module.computations[name]
            if each.opcode == "parameter"
        }


def _hbm(array: Array) -> int:
    return array.padded if array.space == 0 else 0


def operands(each: Instruction) -> list[str]:
    """Names of an instruction's operands."""
    depth = 1
    for match in re.finditer(r"[()]", each.rest):
        depth += 1 if match[0] == "(" else -1
        if not depth:
            return re.findall(r"%([\w.\-]+)", each.rest[: match.start()])
    return []


def convolution(each: Instruction, lhs: Array, rhs: Array) -> float:
    """FLOPs of a convolution, which is what matrix products are on TPU; batch dimensions stand as spatial ones, dilated so that each output
    meets one place of the kernel."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", each.rest)
    if labels is None:
        return 0.0
    left, right, out = labels.groups()
    result = each.arrays[0].sizes
    spatial = sorted(label for label in out if label.isdigit())
    window = _window(each.rest, len(spatial))
    groups = {
        name: int(found[1]) if (found := re.search(rf"{name}_group_count=(\d+)", each.rest)) else 1
        for name in ("feature", "batch")
    }
    total = (
        2.0
        * lhs.sizes[left.index("f")]
        / groups["feature"]
        * rhs.sizes[right.index("o")]
        * lhs.sizes[left.index("b")]
        / groups["batch"]
    )
    for place, label in enumerate(spatial):
        total *= _meetings(
            lhs.sizes[left.index(label)],
            result[out.index(label)],
            *(values[place] for values in window),
        )
    return total


def _window(text: str, dimensions: int) -> tuple[list[int], ...]:
    """Sizes, strides, low padding and dilations of input and kernel for each spatial dimension."""
    found = re.search(r"window=\{([^}]*)\}", text)
    fields = dict(part.split("=", 1) for part in found[1].split()) if found else {}

    def numbers(name: str, otherwise: int) -> list[int]:
        values = fields.get(name)
        return (
            [int(value.split("_")[0]) for value in values.split("x")]
            if values
            else [otherwise] * dimensions
        )

    return tuple(
        numbers(*each)
        for each in (("size", 1), ("stride", 1), ("pad", 0), ("lhs_dilate", 1), ("rhs_dilate", 1))
    )


@functools.cache
def _meetings(
    inputs: int, outputs: int, size: int, stride: int, low: int, dilated: int, kernel_dilated: int
) -> int:
    """Pairs of an output and a place of the kernel that meet an input and not padding or a hole."""
    last = (inputs - 1) * dilated
    return sum(
        0 <= at <= last and at % dilated == 0
        for out in range(outputs)
        for place in range(size)
        for at in (out * stride - low + place * kernel_dilated,)
    )
