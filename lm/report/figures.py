"""Numbers as text: three significant digits, thousands separators, units a reader knows."""

import math
from collections.abc import Sequence

from lm.stats.intervals import Estimate

MISSING = "–"
MINUS = "\u2212"


def decimals(value: float, digits: int = 3) -> int:
    """How many decimals show `digits` significant digits of a value."""
    if value == 0:
        return digits - 1
    # Rounding may carry into a further digit (0.9999 is 1.00, not 1.000).
    rounded = float(f"{value:.{digits - 1}e}")
    return max(0, digits - 1 - math.floor(math.log10(abs(rounded))))


def plain(value: float | None, digits: int = 3) -> str:
    """A number to three significant digits: 4.86, 0.0123, 1,230."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value and abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}".replace("-", MINUS)
    return _fixed(float(f"{value:.{digits - 1}e}"), decimals(value, digits))


def tick(value: float | None) -> str:
    """A number of a config or an axis, as short as it is: 0.003, 5.5."""
    return MISSING if value is None else f"{value:g}".replace("-", MINUS)


def probability(value: float | None) -> str:
    """A p-value; below a thousandth only that it is."""
    return (
        MISSING
        if value is None or not math.isfinite(value)
        else "< 0.001"
        if value < 0.001
        else f"{value:.3f}"
    )


def effect(value: float | None) -> str:
    """An effect size, with its sign."""
    return MISSING if value is None or not math.isfinite(value) else _fixed(value, 2, signed=True)


def count(value: float | None) -> str:
    """A whole number with thousands separators."""
    return MISSING if value is None or not math.isfinite(value) else _fixed(value, 0)


def flops(value: float | None) -> str:
    """Floating-point operations with a prefix: 1.2e13 is 12 TFLOP."""
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
        # A value that rounds up to the next prefix is shown with it.
        if float(f"{value:.2e}") >= 10**power:
            return f"{float(f'{value:.2e}') / 10**power:.3g} {prefix}FLOP"
    return f"{value:,.0f} FLOP"


def duration(seconds: float | None) -> str:
    """Seconds as a person says them: 42 s, 11 min 42 s, 3 h 05 min."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    whole = round(seconds)
    if whole < 60:
        return f"{plain(seconds, 2) if seconds < 10 else whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def energy(joules: float | None) -> str:
    """Joules as kilowatt-hours or smaller: 3.6e6 is 1.00 kWh."""
    if joules is None or not math.isfinite(joules):
        return MISSING
    hours = joules / 3600
    return f"{plain(hours / 1000)} kWh" if hours >= 100 else f"{plain(hours)} Wh"


def mass(kilograms: float | None) -> str:
    """Kilograms, or grams of less than a tenth."""
    if kilograms is None or not math.isfinite(kilograms):
        return MISSING
    return f"{plain(kilograms)} kg" if kilograms >= 0.1 else f"{plain(1000 * kilograms)} g"


def moment(written: object) -> str:
    """A time as records have it, in UTC, for reading: 2026-01-02 03:04:05."""
    return str(written).replace("T", " ").removesuffix("Z")


def share(value: float | None, digits: int = 3) -> str:
    """A share as a percentage."""
    return (
        MISSING if value is None or not math.isfinite(value) else f"{plain(100 * value, digits)} %"
    )


def measured(value: float, unit: str) -> str:
    """A score; shares as percentages. Other units stand in the table's head."""
    return share(value) if unit == "share" else plain(value)


def gap(value: float, unit: str) -> str:
    """A difference of two scores; of shares in percentage points."""
    return f"{plain(100 * value)} points" if unit == "share" else plain(value)


def places(column: Sequence[Estimate], unit: str) -> int:
    """The decimals for a column of estimates: three significant digits of the largest mean, one of the narrowest interval, at most five."""
    scale = _scale(unit)
    means = [scale * abs(each.mean) for each in column]
    halves = [
        scale * (each.high - each.low) / 2
        for each in column
        if each.low is not None and each.high is not None
    ]
    needed = [
        decimals(max(means, default=0.0)),
        *(decimals(half, 1) for half in halves if half > 1e-9),
    ]
    return min(5, max(needed))


def estimate(
    value: Estimate, unit: str, decimals: int | None = None, signed: bool = False
) -> tuple[str, str]:
    """The mean and the interval as text with the same decimals (`places` of this estimate alone where not given).

    A difference (`signed`) of shares is in percentage points, which stand in the table's head.
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
    """A difference with its sign."""
    return _fixed(_scale(unit) * value, decimals, signed=True)


def _scale(unit: str) -> float:
    return 100.0 if unit == "share" else 1.0


def _fixed(value: float, places: int, signed: bool = False) -> str:
    text = f"{abs(value):,.{places}f}"
    # A value that rounds to zero has no sign.
    sign = "" if not text.strip("0.,") else MINUS if value < 0 else "+" if signed else ""
    return sign + text
