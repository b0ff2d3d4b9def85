"""Formats numbers: three significant digits, thousands separators, common units."""

import math
from collections.abc import Sequence

from lm.stats.intervals import Estimate

MISSING = "–"
MINUS = "\u2212"


def decimals(value: float, digits: int = 3) -> int:
    """Returns the number of decimals for `digits` significant digits of a value.

    Args:
      value: a finite number.
      digits: number of significant digits.
    """
    if value == 0:
        return digits - 1
    # Rounding may carry into another digit: 0.9999 is 1.00, not 1.000.
    rounded = float(f"{value:.{digits - 1}e}")
    return max(0, digits - 1 - math.floor(math.log10(abs(rounded))))


def plain(value: float | None, digits: int = 3) -> str:
    """Formats a number with three significant digits: 4.86, 0.0123, 1,230.

    Args:
      value: the number; a dash if it is None or not finite.
      digits: number of significant digits.
    """
    if value is None or not math.isfinite(value):
        return MISSING
    if value and abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}".replace("-", MINUS)
    return _fixed(float(f"{value:.{digits - 1}e}"), decimals(value, digits))


def tick(value: float | None) -> str:
    """Formats a number of a config or an axis without trailing zeros: 0.003, 5.5."""
    return MISSING if value is None else f"{value:g}".replace("-", MINUS)


def probability(value: float | None) -> str:
    """Formats a p-value; "< 0.001" for smaller values."""
    return (
        MISSING
        if value is None or not math.isfinite(value)
        else "< 0.001"
        if value < 0.001
        else f"{value:.3f}"
    )


def effect(value: float | None) -> str:
    """Formats an effect size, with its sign."""
    return MISSING if value is None or not math.isfinite(value) else _fixed(value, 2, signed=True)


def count(value: float | None) -> str:
    """Formats a whole number with thousands separators."""
    return MISSING if value is None or not math.isfinite(value) else _fixed(value, 0)


def flops(value: float | None) -> str:
    """Formats floating-point operations with a prefix: 1.2e13 is 12 TFLOP."""
    if value is None or not math.isfinite(value):
        return MISSING
    for power, prefix in (
        (24, "Y"),
        (21, "Z"),
        (18, "E"),
        (15, "P"),
        (12, "T"),
        (9, "G"),
        (6, "M"),
    ):
        # A value that rounds up to the next prefix gets that prefix.
        if float(f"{value:.2e}") >= 10**power:
            return f"{float(f'{value:.2e}') / 10**power:.3g} {prefix}FLOP"
    return f"{value:,.0f} FLOP"


def duration(seconds: float | None) -> str:
    """Formats seconds: 42 s, 11 min 42 s, 3 h 05 min."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    whole = round(seconds)
    if whole < 60:
        return f"{plain(seconds, 2) if seconds < 10 else whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def energy(joules: float | None) -> str:
    """Formats joules as kWh or Wh: 3.6e6 is 1.00 kWh."""
    if joules is None or not math.isfinite(joules):
        return MISSING
    hours = joules / 3600
    return f"{plain(hours / 1000)} kWh" if hours >= 100 else f"{plain(hours)} Wh"


def mass(kilograms: float | None) -> str:
    """Formats kilograms; below 0.1 kg as grams."""
    if kilograms is None or not math.isfinite(kilograms):
        return MISSING
    return f"{plain(kilograms)} kg" if kilograms >= 0.1 else f"{plain(1000 * kilograms)} g"


def timestamp(recorded: object) -> str:
    """Formats a recorded time (ISO 8601, UTC): 2026-01-02 03:04:05."""
    return str(recorded).replace("T", " ").removesuffix("Z")


def percentage(value: float | None, digits: int = 3) -> str:
    """Formats a fraction as a percentage.

    Args:
      value: the fraction; a dash if it is None or not finite.
      digits: number of significant digits.
    """
    return (
        MISSING if value is None or not math.isfinite(value) else f"{plain(100 * value, digits)} %"
    )


def measured(value: float, unit: str) -> str:
    """Formats a score: a fraction as a percentage, other scores without their unit.

    Args:
      value: the score.
      unit: unit of the score, as in `lm.stats.scores.Score`; "share" marks a fraction.
    """
    return percentage(value) if unit == "share" else plain(value)


def difference(value: float, unit: str) -> str:
    """Formats a difference of two scores; a difference of fractions in percentage points.

    Args:
      value: the difference.
      unit: unit of both scores; "share" marks fractions.
    """
    return f"{plain(100 * value)} points" if unit == "share" else plain(value)


def places(column: Sequence[Estimate], unit: str) -> int:
    """Returns the number of decimals for a column of estimates.

    They suffice for three significant digits of the largest mean and one significant digit of the
    narrowest interval, but are at most five.

    Args:
      column: the estimates.
      unit: unit of all estimates; "share" marks fractions, which are shown in percent.
    """
    scale = _scale(unit)
    means = [scale * abs(item.mean) for item in column]
    halves = [
        scale * (item.high - item.low) / 2
        for item in column
        if item.low is not None and item.high is not None
    ]
    needed = [
        decimals(max(means, default=0.0)),
        *(decimals(half, 1) for half in halves if half > 1e-9),
    ]
    return min(5, max(needed))


def estimate(
    value: Estimate, unit: str, decimals: int | None = None, signed: bool = False
) -> tuple[str, str]:
    """Formats the mean and the interval with the same number of decimals.

    Args:
      value: the estimate.
      unit: unit of the score; "share" marks a fraction, which is shown in percent.
      decimals: number of decimals; None for the result of `places` on this estimate.
      signed: whether the estimate is a difference. A difference of fractions is in percentage
        points, and no unit is appended: the table's header names it.
    """
    decimals, scale = places([value], unit) if decimals is None else decimals, _scale(unit)
    mean = _fixed(scale * value.mean, decimals, signed) + (
        " %" if unit == "share" and not signed else ""
    )
    if value.low is None or value.high is None:
        return mean, "none: one seed" if value.n == 1 else MISSING
    return (
        mean,
        f"[{', '.join(_fixed(scale * end, decimals, signed) for end in (value.low, value.high))}]",
    )


def signed(value: float, unit: str, decimals: int) -> str:
    """Formats a difference with its sign.

    Args:
      value: the difference.
      unit: unit of both scores; "share" marks fractions, whose difference is in percentage points.
      decimals: number of decimals.
    """
    return _fixed(_scale(unit) * value, decimals, signed=True)


def _scale(unit: str) -> float:
    return 100.0 if unit == "share" else 1.0


def _fixed(value: float, places: int, signed: bool = False) -> str:
    text = f"{abs(value):,.{places}f}"
    # A value that rounds to zero has no sign.
    sign = "" if not text.strip("0.,") else MINUS if value < 0 else "+" if signed else ""
    return sign + text
