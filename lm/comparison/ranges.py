"""Values to try, as they are typed: lists and ranges of fields of a config.

1e-4,3e-4          a list: each of them; a random sampler takes one of them
log(1e-4,1e-2,8)   8 values from 1e-4 to 1e-2 at equal ratios; a random sampler draws between the ends, log-uniformly
lin(0,1,5)         5 values at equal distances; drawn uniformly
int(2,8)           2, 3, … 8; int(2,8,2): every second
"""

import dataclasses
import difflib
import itertools
import math
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lm.core.plain import flat, typed
from lm.core.plugins import UserError

_RANGE = re.compile(r"(log|lin|int)\((.*)\)")


@dataclasses.dataclass(frozen=True)
class Range:
    """What a field may be.

    Attributes:
      kind: "list", "log", "lin" or "int". values: on a grid; empty where a range has no number of points. low, high: its ends.
      text: as it was typed.
    """

    kind: str
    values: tuple[Any, ...]
    low: float = 0.0
    high: float = 0.0
    text: str = ""

    def draw(self, rng: random.Random) -> Any:
        """A value at random."""
        if self.kind == "log":
            return math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        if self.kind == "lin":
            return rng.uniform(self.low, self.high)
        return rng.choice(self.values)


def parse(field: str, text: str, own: Any) -> Range:
    """A field's values.

    Args:
      own: the field's value in the config, whose type the values must have; None takes any.

    Raises:
      UserError: the text is no list or range, or its values are none of the field's.
    """
    where = f"--sweep.{field}={text}"
    matched = _RANGE.fullmatch(text.strip())
    if not matched:
        values = tuple(_as(own, typed(part.strip()), where) for part in text.split(","))
        if len(set(map(repr, values))) != len(values):
            raise UserError(f"{where} names a value twice")
        return Range("list", values, text=text)
    kind, given = matched[1], [typed(part.strip()) for part in matched[2].split(",")]
    if not 2 <= len(given) <= 3 or any(
        isinstance(part, bool) or not isinstance(part, int | float) for part in given
    ):
        raise UserError(
            f"{where} should be {kind}(FROM,TO{',STEP' if kind == 'int' else ',POINTS'}), all numbers"
        )
    low, high, third = given[0], given[1], given[2] if len(given) == 3 else None
    if not low < high or (kind == "log" and low <= 0):
        raise UserError(
            f"{where}: FROM must be below TO" + (" and above 0" if kind == "log" else "")
        )
    if third is not None and (not isinstance(third, int) or third < 1 + (kind != "int")):
        raise UserError(
            f"{where}: {'STEP must be a whole number from 1' if kind == 'int' else 'POINTS must be a whole number from 2'}"
        )
    if kind == "int":
        if not isinstance(low, int) or not isinstance(high, int):
            raise UserError(f"{where}: both ends must be whole numbers")
        return Range(
            kind,
            tuple(_as(own, value, where) for value in range(low, high + 1, third or 1)),
            low,
            high,
            text,
        )
    if isinstance(own, int) and not isinstance(own, bool):
        raise UserError(
            f"{where}: {field} is a whole number ({own} in the config); give a list, or int({low:g},{high:g})"
        )
    _as(own, float(low), where)
    shares = [index / (third - 1) for index in range(third)] if third else []
    points = (
        low * (high / low) ** share if kind == "log" else low + (high - low) * share
        for share in shares
    )
    return Range(kind, tuple(float(f"{point:.6g}") for point in points), low, high, text)


def fields(given: Mapping[str, str], config: Mapping[str, Any]) -> dict[str, Range]:
    """All swept fields of a config.

    Raises:
      UserError: the config has no such field, or see `parse`.
    """
    known = flat(config)
    found = {}
    for field, text in given.items():
        if field not in known:
            close = difflib.get_close_matches(field, known, n=1)
            advice = f"; did you mean {close[0]!r}?" if close else ""
            raise UserError(f"--sweep.{field}: the config has no field {field!r}{advice}")
        found[field] = parse(field, text, known[field])
    return found


def grid(ranges: Mapping[str, Range]) -> list[dict[str, Any]]:
    """Every combination, the last field's values next to each other.

    Raises:
      UserError: a range has no number of points.
    """
    for field, each in ranges.items():
        if not each.values:
            raise UserError(
                f"--sweep.{field}={each.text} has no number of points for a grid: {each.text[:-1]},8), or --sampler=random"
            )
    return [
        dict(zip(ranges, values, strict=True))
        for values in itertools.product(*(each.values for each in ranges.values()))
    ]


def sample(ranges: Mapping[str, Range], count: int, seed: int) -> list[dict[str, Any]]:
    """`count` draws; the first ones are the same whatever the count."""
    rng = random.Random(seed)
    return [{field: each.draw(rng) for field, each in ranges.items()} for _ in range(count)]


def _as(own: Any, value: Any, where: str) -> Any:
    """The value, of the type of the field's own."""
    if own is None:
        return value
    if isinstance(own, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(own, str) and not isinstance(value, str):
        return str(value)
    if isinstance(own, bool) != isinstance(value, bool) or not isinstance(value, type(own)):
        raise UserError(
            f"{where}: {value!r} should be {type(own).__name__}, as in the config ({own!r})"
        )
    return value


def texts(values: Sequence[Any]) -> list[str]:
    """Values for people."""
    return [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
