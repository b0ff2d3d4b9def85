"""FLOPs and memory traffic of a compiled program, from its text, with the trip counts of loops.

`jax.stages.Compiled.cost_analysis` counts the body of a loop once; scanned layers, microbatches and
chunks of the vocabulary are loops. FLOPs are those of matmuls, counted as the compiler does, which
adds a little for other operations. Traffic is the bytes that scheduled operations read from HBM and
write to it. Buffers that the compiler keeps on the chip (memory space 1) do not count. If an
operation slices a stacked array or updates it in place, only the slice counts.
"""

import functools
import math
import re
from collections.abc import Iterator

from tpu.hlo import KINDS, Array, Instruction, Module

_FREE = {
    "parameter", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call",
    "constant", "optimization-barrier", "after-all", "partition-id", "replica-id", "send", "recv",
}  # fmt: skip
_FREE_CALLS = (
    "AllocateBuffer",
    "ConcatBitcast",
    "AsyncCollectiveStart",
    "AsyncCollectiveDone",
    "AssumeGatherIndicesInBound",
)


class Cost:
    """FLOPs and memory traffic of one step on one device.

    Args:
      module: the compiled program.

    Attributes:
      flops: FLOPs of matmuls.
      traffic: bytes read from HBM and written to it.
      unknown: the number of custom kernels without a cost estimate.
    """

    def __init__(self, module: Module):
        self.module = module
        self.named = {
            name: {instruction.name: instruction for instruction in lines}
            for name, lines in module.computations.items()
        }
        self.flops, self.traffic, self.unknown = 0.0, 0.0, 0
        for name, lines in module.computations.items():
            for instruction in lines:
                if times := module.counts[name]:
                    self.flops += times * self._flops(name, instruction)
        for name, times, instruction in module.running():
            self.traffic += times * self._traffic(name, instruction)

    def _flops(self, computation: str, instruction: Instruction) -> float:
        if instruction.opcode == "convolution":
            return convolution(instruction, *self._shapes(computation, instruction))
        if instruction.opcode == "dot":
            lhs = self._shapes(computation, instruction)[0]
            contracted = re.search(r"lhs_contracting_dims=\{([0-9,]*)\}", instruction.rest)
            dims = [int(dim) for dim in contracted[1].split(",") if dim] if contracted else []
            return (
                2.0
                * math.prod(instruction.arrays[0].sizes)
                * math.prod(lhs.sizes[dim] for dim in dims)
            )
        if (
            instruction.opcode == "custom-call"
            and 'custom_call_target="tpu_custom_call"' in instruction.rest
        ):
            cost = re.search(r'cost_estimate"?:\s*\{[^}]*?flops"?:\s*"?(\d+)', instruction.rest)
            self.unknown += cost is None
            return float(cost[1]) if cost else 0.0
        return 0.0

    def _shapes(self, computation: str, instruction: Instruction) -> list[Array]:
        """The first array of each operand."""
        inputs = (self.named[computation].get(name) for name in operands(instruction))
        return [operand.arrays[0] for operand in inputs if operand is not None and operand.arrays]

    def _traffic(self, computation: str, instruction: Instruction) -> float:
        if instruction.opcode in _FREE or instruction.opcode.endswith(("-done", "-update")):
            return 0.0
        if instruction.opcode == "custom-call" and any(
            f'"{free}"' in instruction.rest for free in _FREE_CALLS
        ):
            return 0.0
        arrays = instruction.arrays
        if instruction.opcode == "copy-start":
            return _hbm(arrays[0]) + _hbm(arrays[1])
        if instruction.opcode == "slice-start":
            source, part = arrays[0], arrays[1]
            return part.padded * ((source.space == 0) + (part.space == 0))
        inputs = [self.named[computation].get(name) for name in operands(instruction)]
        if instruction.opcode == "fusion":
            called = re.search(r"calls=%([\w.\-]+)", instruction.rest)
            if called and called[1] in self.named:
                return self._fusion(called[1], inputs, arrays)
        given = [array for operand in inputs if operand is not None for array in operand.arrays]
        if instruction.opcode in ("dynamic-slice", "gather"):
            return _hbm(arrays[0]) + (arrays[0].padded if given and given[0].space == 0 else 0)
        if instruction.opcode == "dynamic-update-slice":
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
        root = next(
            instruction for instruction in self.module.computations[name] if instruction.root
        )
        made = [
            self._before(name, part)
            for part in (operands(root) if root.opcode == "tuple" else [root.name])
        ]
        for part, array in zip(made, outputs, strict=False):
            if array.space == 0 and part is not None:
                total += self._written(name, part, array)
        # An asynchronous collective that starts here: its buffer is read and written.
        for instruction in self.module.computations[name]:
            if (
                instruction.opcode in KINDS
                and "async_collective_fusion_config" in instruction.rest
                and root.opcode == "custom-call"
            ):
                if '"AsyncCollectiveStart"' in root.rest:
                    total += 2 * sum(map(_hbm, instruction.arrays))
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
        """The instruction behind a chain of bitcasts."""
        instruction = self.named[name].get(part)
        while instruction is not None and instruction.opcode == "bitcast":
            instruction = self.named[name].get(operands(instruction)[0])
        return instruction

    def _read(self, name: str, number: int, size: float) -> float:
        """Bytes that a fused computation reads of a parameter: `size`, or only its slices."""
        parameters = self._parameters(name)
        if number not in parameters:
            return size
        total = 0.0
        for instruction, place in self._users(name, parameters[number]):
            if instruction.opcode in ("dynamic-slice", "gather") and place == 0:
                total += instruction.arrays[0].padded
            elif instruction.opcode == "dynamic-update-slice" and place == 0:
                continue
            elif (
                instruction.opcode == "fusion"
                and (called := re.search(r"calls=%([\w.\-]+)", instruction.rest))
                and called[1] in self.named
            ):
                total += self._read(called[1], place, size)
            elif (
                instruction.opcode in ("tuple", "custom-call")
                or "async_collective_fusion_config" in instruction.rest
            ):
                continue
            else:
                return size
        return total

    def _users(self, name: str, value: str) -> Iterator[tuple[Instruction, int]]:
        for instruction in self.module.computations[name]:
            for place, operand in enumerate(operands(instruction)):
                if operand == value:
                    if instruction.opcode == "bitcast":
                        yield from self._users(name, instruction.name)
                    else:
                        yield instruction, place

    @functools.cache  # noqa: B019 (a Cost lives as long as its module)
    def _parameters(self, name: str) -> dict[int, str]:
        return {
            int(instruction.rest.partition(")")[0]): instruction.name
            for instruction in self.module.computations[name]
            if instruction.opcode == "parameter"
        }


def _hbm(array: Array) -> int:
    return array.padded if array.space == 0 else 0


def operands(instruction: Instruction) -> list[str]:
    """Returns the names of an instruction's operands."""
    depth = 1
    for match in re.finditer(r"[()]", instruction.rest):
        depth += 1 if match[0] == "(" else -1
        if not depth:
            return re.findall(r"%([\w.\-]+)", instruction.rest[: match.start()])
    return []


def convolution(instruction: Instruction, lhs: Array, rhs: Array) -> float:
    """Returns the FLOPs of a convolution.

    Matmuls are convolutions on TPU. Their batch dimensions are spatial ones, dilated so
    that each output uses one position of the kernel.

    Args:
      instruction: the convolution.
      lhs: the first array of the convolution's input.
      rhs: the first array of the convolution's kernel.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.rest)
    if labels is None:
        return 0.0
    left, right, out = labels.groups()
    result = instruction.arrays[0].sizes
    spatial = sorted(label for label in out if label.isdigit())
    window = _window(instruction.rest, len(spatial))
    groups = {
        name: int(match[1])
        if (match := re.search(rf"{name}_group_count=(\d+)", instruction.rest))
        else 1
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
    for number, label in enumerate(spatial):
        total *= _pairs(
            lhs.sizes[left.index(label)],
            result[out.index(label)],
            *(values[number] for values in window),
        )
    return total


def _window(text: str, dimensions: int) -> tuple[list[int], ...]:
    """Sizes, strides, low padding, dilations of input and of kernel, for each spatial dimension."""
    match = re.search(r"window=\{([^}]*)\}", text)
    fields = dict(part.split("=", 1) for part in match[1].split()) if match else {}

    def numbers(name: str, default: int) -> list[int]:
        values = fields.get(name)
        return (
            [int(value.split("_")[0]) for value in values.split("x")]
            if values
            else [default] * dimensions
        )

    return tuple(
        numbers(*field)
        for field in (("size", 1), ("stride", 1), ("pad", 0), ("lhs_dilate", 1), ("rhs_dilate", 1))
    )


@functools.cache
def _pairs(
    inputs: int, outputs: int, size: int, stride: int, low: int, dilated: int, kernel_dilated: int
) -> int:
    """Counts pairs of output and kernel positions that read an input, not padding or a hole."""
    last = (inputs - 1) * dilated
    return sum(
        0 <= at <= last and at % dilated == 0
        for out in range(outputs)
        for position in range(size)
        for at in (out * stride - low + position * kernel_dilated,)
    )
