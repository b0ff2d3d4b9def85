"""Names of TPU slices, and their shapes.

Names count TensorCores for v2 to v4, v5p and tpu7x (v4-32 has 16 chips), and chips for v5e and v6e.
Shapes are those that Cloud TPU offers (its pages on each version, "Supported configurations").
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Sequence
from typing import Any

from lm.core.plugins import UserError
from lm.parallel.chips import TPUS, Chip

_FLAT = {4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
_CUBIC = {
    4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8",
    512: "8x8x8", 1024: "8x8x16", 2048: "8x16x16",
}  # fmt: skip
# Generation → chips → shape of a slice.
SHAPES: dict[str, dict[int, str]] = {
    "v2": {4: "2x2", 16: "4x4", 64: "8x8", 128: "8x16", 256: "16x16"},
    "v3": {
        4: "2x2",
        16: "4x4",
        32: "4x8",
        64: "8x8",
        128: "8x16",
        256: "16x16",
        512: "16x32",
        1024: "32x32",
    },
    "v4": _CUBIC,
    "v5e": {1: "1x1", **_FLAT},
    "v5p": {**_CUBIC, 4096: "16x16x16"},
    "v6e": {1: "1x1", **_FLAT},
    "tpu7x": {**_CUBIC, 4096: "16x16x16"},
}
_SYNONYMS = {
    "v5litepod": "v5e",
    "v5lite": "v5e",
    "v6": "v6e",
    "trillium": "v6e",
    "v7x": "tpu7x",
    "ironwood": "tpu7x",
}
_COUNTS_CORES = ("v2", "v3", "v4", "v5p", "tpu7x")  # two TensorCores per chip


@dataclasses.dataclass(frozen=True)
class Slice:
    """One or several equal slices.

    Attributes:
      name: name of the slice or slices, for example "2xv5e-16".
      generation: a key of lm.parallel.chips.TPUS.
      slices: the number of slices.
      shape: number of chips along each axis of one slice.
    """

    name: str
    generation: str
    slices: int
    shape: tuple[int, ...]

    @property
    def chip(self) -> Chip:
        """The kind of chip."""
        return TPUS[self.generation]

    @property
    def chips(self) -> int:
        """Chips of all slices together."""
        return self.slices * math.prod(self.shape)

    @property
    def devices(self) -> int:
        """JAX devices of all slices together."""
        return self.chips * self.chip.devices

    @property
    def hosts(self) -> int:
        """Machines, and so processes, of all slices together.

        A machine has four chips, except the machines of v5e-8 and v6e-8, which have eight.
        """
        chips = math.prod(self.shape)
        return self.slices * (
            1 if chips == 8 and self.generation in ("v5e", "v6e") else max(1, chips // 4)
        )

    @property
    def topology(self) -> str:
        """The compiler's name for one slice, for example "v5e:4x4"."""
        return f"{self.generation}:{'x'.join(map(str, self.shape))}"

    @property
    def wraps(self) -> tuple[bool, ...]:
        """For each axis, whether its ends are joined to a ring.

        The joined axes are axes of 16 chips on v5e and v6e, full cubes of 4 × 4 × 4 on v4, v5p and
        tpu7x, and the full pod on v2 and v3.
        """
        if len(self.shape) == 3:
            cubes = all(size % 4 == 0 for size in self.shape)
            return (cubes,) * 3
        full = {"v2": 16, "v3": 32}.get(self.generation, 16)
        return tuple(size == full for size in self.shape)

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of `topologies.get_topology_desc` in addition to platform and topology."""
        arguments: dict[str, Any] = {"wrap": (*self.wraps, False)[:3]}
        if math.prod(self.shape) == 1:
            arguments["chips_per_host_bounds"] = (1, 1, 1)
        if self.generation == "v4":
            arguments["chip_config_name"] = "megacore"  # one device per chip, as on a real slice
        if self.slices > 1:
            arguments["num_slices"] = self.slices
        return arguments

    def larger(self) -> str | None:
        """The name of the next larger slice of this generation, or None."""
        bigger = [chips for chips in SHAPES[self.generation] if chips > math.prod(self.shape)]
        if not bigger:
            return None
        return (
            f"{self.slices}x{_name(self.generation, min(bigger))}"
            if self.slices > 1
            else _name(self.generation, min(bigger))
        )


def _name(generation: str, chips: int) -> str:
    return f"{generation}-{chips * (2 if generation in _COUNTS_CORES else 1)}"


def names(generation: str = "") -> list[str]:
    """Returns all names of single slices.

    Args:
      generation: generation of the slices; "" for all generations.
    """
    generations = [generation] if generation else list(SHAPES)
    return [_name(key, chips) for key in generations for chips in SHAPES.get(key, ())]


def parse(name: str) -> Slice:
    """Returns the slice of a name such as v4-32, v5e-16, v5litepod-16, tpu7x-8 or 2xv5e-256.

    Raises:
      UserError: there is no such slice; the message lists similar or valid names.
    """
    lower = name.strip().lower()
    match = re.fullmatch(r"(?:(\d+)x)?([a-z0-9]*[a-z][a-z0-9]*)-(\d+)", lower)
    if not match:
        raise UserError(
            f"--tpu={name!r} is not the name of a slice{_near(lower)}; names are such as v5e-16,"
            " v4-32, or 2xv5e-256 for two"
        )
    count, generation, size = match.groups()
    generation = _SYNONYMS.get(generation, generation)
    if generation not in SHAPES:
        raise UserError(
            f"--tpu={name!r}: there is no generation {generation!r}{_near(lower)}; there are:"
            f" {', '.join(SHAPES)}"
        )
    per_chip = 2 if generation in _COUNTS_CORES else 1
    chips, rest = divmod(int(size), per_chip)
    if rest or chips not in SHAPES[generation] or (count is not None and int(count) < 1):
        what = "TensorCores, two per chip" if per_chip == 2 else "chips"
        near = ", ".join(_nearest(generation, int(size)))
        raise UserError(
            f"--tpu={name!r}: no {generation}-{size}; the number counts {what}. Nearest: {near}."
            f" All: {', '.join(names(generation))}"
        )
    slices = int(count or 1)
    shape = tuple(map(int, SHAPES[generation][chips].split("x")))
    return Slice(
        f"{slices}x{_name(generation, chips)}" if slices > 1 else _name(generation, chips),
        generation,
        slices,
        shape,
    )


def _nearest(generation: str, size: int) -> list[str]:
    return sorted(
        names(generation),
        key=lambda name: abs(math.log(int(name.rpartition("-")[2]) / max(size, 1))),
    )[:2]


def _near(name: str) -> str:
    close = difflib.get_close_matches(name, names(), n=2)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def parse_all(names: Sequence[str]) -> list[Slice]:
    """Returns the slices of several names, without duplicates.

    Raises:
      UserError: there is no name, or one is not valid.
    """
    slices = list(dict.fromkeys(parse(name) for name in names if name.strip()))
    if not slices:
        raise UserError("--tpu has no slice; give one or several, for example --tpu=v5e-16,v6e-16")
    return slices
