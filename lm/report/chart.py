"""Charts in the units of the data: `svg` draws them for the page, `pictures` for the PNG.

Each arm has a color after Okabe and Ito's palette ("Color Universal Design", 2008), a line style
and a marker, so that color is never the only cue. If there are more arms than colors, the
combinations differ.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

# Okabe-Ito, dark enough on white (yellow is not); `DARK` is lighter, for a dark page.
LIGHT = ("#0072B2", "#D55E00", "#009E73", "#A8558A", "#8A6A00", "#56758A")
DARK = ("#56B4E9", "#E8833A", "#2FC295", "#E09AC0", "#E6B93C", "#A9C4D6")
SHAPES = ("circle", "square", "triangle", "diamond", "down", "plus")
# Lengths of dashes and gaps, in line widths.
DASHES: tuple[tuple[float, ...], ...] = (
    (),
    (3.5, 1.6),
    (5, 1.5, 1, 1.5),
    (1, 1.6),
    (5, 1, 1, 1, 1, 1),
    (1.6, 1.6),
)
_MAX_POINTS = 240


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart.

    Attributes:
      points: (x, y) of each point, in the units of the data.
      arm: index of the arm; None for grey.
      style: "mean" (the arm's dashes and markers), "fit" (the arm's dashes), "thin" (a single seed)
        or "interval" (thick).
    """

    points: Sequence[tuple[float, float]]
    arm: int | None
    style: str = "mean"


@dataclass(frozen=True, slots=True)
class Band:
    """A band around a line.

    Attributes:
      points: (x, low, high) of each point, in the units of the data.
      arm: index of the arm; None for grey.
    """

    points: Sequence[tuple[float, float, float]]
    arm: int | None


@dataclass(frozen=True, slots=True)
class Dots:
    """Markers of a chart.

    Attributes:
      points: (x, y) of each point, in the units of the data.
      arm: index of the arm; None for grey.
      shape: "arm" (the arm's own), "tick" (a vertical stroke), "cross" (a diverged trial), "ring"
        (the selected value) or "point" (a small dot).
      hollow: whether the markers are not filled.
    """

    points: Sequence[tuple[float, float]]
    arm: int | None
    shape: str = "arm"
    hollow: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """A line across the picture at one value.

    Attributes:
      value: position of the line on the axis that it crosses.
      text: label of the line.
      upright: whether the line is vertical.
      solid: whether the line is solid, not dashed.
      early: whether the label is at the left end of the line, not the right end.
    """

    value: float
    text: str = ""
    upright: bool = False
    solid: bool = False
    early: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis of a chart.

    Attributes:
      label: label of the axis.
      log: whether the axis is logarithmic.
      names: row names instead of numbers, the first on top.
      text: function that formats a number.
      start: first value of the axis; None to derive it from the data.
    """

    label: str
    log: bool = False
    names: tuple[str, ...] = ()
    text: Callable[[float], str] = lambda value: f"{value:g}"
    start: float | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart.

    Attributes:
      title: title of the chart.
      x: horizontal axis.
      y: vertical axis.
      marks: lines, bands, markers and rules to draw.
      legend: names of the arms, in the order of their indices.
      note: text to show instead of an empty chart.
    """

    title: str
    x: Axis
    y: Axis
    marks: list[Line | Band | Dots | Rule] = field(default_factory=list)
    legend: tuple[str, ...] = ()
    note: str = ""

    def span(self, upright: bool) -> tuple[float, float]:
        """Returns the range of the data on one axis, with a margin.

        Args:
          upright: whether the axis is the vertical one.
        """
        axis = self.y if upright else self.x
        if axis.names:
            return len(axis.names) - 0.4, -0.6
        values = [
            value
            for mark in self.marks
            for value in _values(mark, upright)
            if math.isfinite(value) and (value > 0 or not axis.log)
        ]
        if not values:
            return (0.1, 1.0) if axis.log else (0.0, 1.0)
        low, high = min(values), max(values)
        if axis.log:
            margin = max((high / low) ** 0.06, 1.05)
            return low / margin, high * margin
        margin = 0.07 * (high - low) or 0.05 * abs(high) or 1.0
        return (low - margin if axis.start is None else axis.start), high + margin


def _values(mark: Line | Band | Dots | Rule, upright: bool) -> list[float]:
    if isinstance(mark, Rule):
        return [mark.value] if mark.upright != upright else []
    if isinstance(mark, Band):
        return (
            [value for point in mark.points for value in point[1:]]
            if upright
            else [point[0] for point in mark.points]
        )
    return [point[upright] for point in mark.points]


def ticks(low: float, high: float, log: bool, maximum: int) -> list[float]:
    """Returns round numbers in [low, high].

    Args:
      low: lower end of the axis.
      high: upper end of the axis.
      log: whether the axis is logarithmic.
      maximum: approximate maximum number of ticks.
    """
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        for digits in ((1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
            values = [
                digit * 10.0**power
                for power in range(first, last + 1)
                for digit in digits
                if low <= digit * 10.0**power <= high
            ]
            if len(values) <= maximum:
                return (
                    values
                    if len(values) > 1 or digits == (1, 2, 3, 5)
                    else ticks(low, high, False, maximum)
                )
        return values[:: -(-len(values) // maximum)]
    raw = (high - low) / maximum
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(
        factor * scale for factor in (1, 2, 2.5, 5, 10) if factor * scale >= raw * (1 - 1e-9)
    )
    return [
        round(place * step, 12)
        for place in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def thin(points: Sequence[tuple[float, ...]]) -> Sequence[tuple[float, ...]]:
    """Returns at most about 240 of a line's points, including the last."""
    step = -(-len(points) // _MAX_POINTS)
    return points if step <= 1 else [*points[:-1:step], points[-1]]


def color(arm: int) -> int:
    """Returns the index of the arm's color in LIGHT and DARK."""
    return arm % len(LIGHT)


def shape(arm: int) -> str:
    """Returns the arm's marker, one of SHAPES."""
    return SHAPES[(arm + arm // len(LIGHT)) % len(SHAPES)]


def dashes(arm: int) -> tuple[float, ...]:
    """Returns the arm's dashes, one of DASHES."""
    return DASHES[(arm + arm // len(LIGHT)) % len(DASHES)]


def amount(value: float) -> str:
    """Formats a number on an axis with a prefix: 1.5 M."""
    for size, mark in (
        (1e24, " Y"),
        (1e21, " Z"),
        (1e18, " E"),
        (1e15, " P"),
        (1e12, " T"),
        (1e9, " G"),
        (1e6, " M"),
        (1e3, " k"),
    ):
        if abs(value) >= size * (1 - 1e-9):
            return f"{value / size:.3g}{mark}"
    return f"{value:.3g}"
