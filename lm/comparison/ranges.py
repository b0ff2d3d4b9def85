"""Parses the values of --sweep.FIELD: lists and ranges.

                   a grid takes                        a random sampler draws
1e-4,3e-4          each value of the list              one value of the list
log(1e-4,1e-2,8)   8 values from 1e-4 to 1e-2,         between the ends, log-uniformly
                   at equal ratios
lin(0,1,5)         5 values from 0 to 1,               between the ends, uniformly
                   at equal distances
int(2,8)           2, 3, … 8; int(2,8,2): 2, 4, 6, 8   one of these
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
    """The values of a field.

    Attributes:
      kind: "list", "log", "lin" or "int".
      values: values of a grid; empty for a range without a number of points.
      low: lower end of a range.
      high: upper end of a range.
      text: text of the values on the command line.
    """

    kind: str
    values: tuple[Any, ...]
    low: int | float = 0.0
    high: int | float = 0.0
    text: str = ""

    def draw(self, rng: random.Random) -> Any:
        """Draws a value."""
        if self.kind == "log":
            return math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        if self.kind == "lin":
            return rng.uniform(self.low, self.high)
        return rng.choice(self.values)


def parse(field: str, text: str, own: Any) -> Range:
    """Parses the values of a field.

    Args:
      field: path of the field in the config, such as "optimizer.learning_rate".
      text: a list or range.
      own: value of the field in the config, which determines the type of the parsed values; None
        allows any type.

    Raises:
      UserError: the text is neither a list nor a range, or a value has the wrong type.
    """
    where = f"--sweep.{field}={text}"
    matched = _RANGE.fullmatch(text.strip())
    if not matched:
        values = tuple(_as(own, typed(part.strip()), where) for part in text.split(","))
        if len(set(map(repr, values))) != len(values):
            raise UserError(f"{where} names a value twice")
        return Range("list", values, text=text)
    kind, given = matched[1], [typed(part.strip()) for part in matched[2].split(",")]
    third_name = "STEP" if kind == "int" else "POINTS"
    if not 2 <= len(given) <= 3 or any(
        isinstance(part, bool) or not isinstance(part, int | float) for part in given
    ):
        raise UserError(f"{where} should be {kind}(FROM,TO,{third_name}), all numbers")
    low, high, third = given[0], given[1], given[2] if len(given) == 3 else None
    if not low < high or (kind == "log" and low <= 0):
        raise UserError(
            f"{where}: FROM must be below TO" + (" and above 0" if kind == "log" else "")
        )
    if third is not None and (not isinstance(third, int) or third < 1 + (kind != "int")):
        raise UserError(
            f"{where}: {third_name} must be a whole number from {1 if kind == 'int' else 2}"
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
            f"{where}: {field} is a whole number ({own} in the config); give a list, or"
            f" int({low:g},{high:g})"
        )
    _as(own, float(low), where)
    fractions = [index / (third - 1) for index in range(third)] if third else []
    points = (
        low * (high / low) ** fraction if kind == "log" else low + (high - low) * fraction
        for fraction in fractions
    )
    return Range(kind, tuple(float(f"{point:.6g}") for point in points), low, high, text)


def fields(given: Mapping[str, str], config: Mapping[str, Any]) -> dict[str, Range]:
    """Parses the values of all swept fields.

    Args:
      given: text of the values on the command line, by field.
      config: the run config.

    Raises:
      UserError: the config has no such field, or its values are invalid.
    """
    own = flat(config)
    parsed = {}
    for field, text in given.items():
        if field not in own:
            close = difflib.get_close_matches(field, own, n=1)
            advice = f"; did you mean {close[0]!r}?" if close else ""
            raise UserError(f"--sweep.{field}: the config has no field {field!r}{advice}")
        parsed[field] = parse(field, text, own[field])
    return parsed


def grid(ranges: Mapping[str, Range]) -> list[dict[str, Any]]:
    """Returns all combinations, with the last field varying fastest.

    Args:
      ranges: range of values by field.

    Raises:
      UserError: a range has no number of points.
    """
    for field, values in ranges.items():
        if not values.values:
            raise UserError(
                f"--sweep.{field}={values.text} has no number of points for a grid; give"
                f" {values.text[:-1]},8), or --sampler=random"
            )
    return [
        dict(zip(ranges, combination, strict=True))
        for combination in itertools.product(*(values.values for values in ranges.values()))
    ]


def sample(ranges: Mapping[str, Range], count: int, seed: int) -> list[dict[str, Any]]:
    """Draws combinations at random. The first draws do not depend on `count`.

    Args:
      ranges: range of values by field.
      count: number of combinations.
      seed: seed of the draws.
    """
    rng = random.Random(seed)
    return [{field: values.draw(rng) for field, values in ranges.items()} for _ in range(count)]


def _as(own: Any, value: Any, where: str) -> Any:
    """The value, in the type of the field's own value."""
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
    """Formats values for a table."""
    return [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
