"""What a picture shows, in the units of the data: `svg` draws it for the page, `pictures` with matplotlib for the PNG.

Each arm has a colour after Okabe and Ito's palette ("Color Universal Design", 2008), a line style and a marker, so that colour is never the
only cue; of more arms than colours, the combinations differ.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

# Okabe-Ito, dark enough on white (yellow is not); `DARK` has the lighter ones for the same arms on a dark page.
LIGHT = ("#0072B2", "#D55E00", "#009E73", "#A8558A", "#8A6A00", "#56758A")
DARK = ("#56B4E9", "#E8833A", "#2FC295", "#E09AC0", "#E6B93C", "#A9C4D6")
SHAPES = ("circle", "square", "triangle", "diamond", "down", "plus")
# On and off lengths in line widths.
DASHES: tuple[tuple[float, ...], ...] = (
    (),
    (3.5, 1.6),
    (5, 1.5, 1, 1.5),
    (1, 1.6),
    (5, 1, 1, 1, 1, 1),
    (1.6, 1.6),
)
_MOST_POINTS = 240


@dataclass(frozen=True, slots=True)
class Line:
    """`style`: "mean" has the arm's dashes and markers, "fit" its dashes; "thin" is a single seed, "interval" thick and plain."""

    points: Sequence[tuple[float, float]]
    arm: int | None  # None is grey
    style: str = "mean"


@dataclass(frozen=True, slots=True)
class Band:
    points: Sequence[tuple[float, float, float]]  # (x, low, high)
    arm: int | None


@dataclass(frozen=True, slots=True)
class Dots:
    """`shape`: "arm" is the arm's own, "tick" an upright stroke, "cross" a diverged trial, "ring" what is chosen, "point" a small dot."""

    points: Sequence[tuple[float, float]]
    arm: int | None
    shape: str = "arm"
    hollow: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """A line across the picture at one value, with its name at the right end, or the left (`early`)."""

    value: float
    text: str = ""
    upright: bool = False
    solid: bool = False
    early: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """`names` are rows of a plot by name, the first on top, in place of numbers."""

    label: str
    log: bool = False
    names: tuple[str, ...] = ()
    text: Callable[[float], str] = lambda value: f"{value:g}"
    start: float | None = None  # where the axis begins, whatever the data


@dataclass(frozen=True, slots=True)
class Chart:
    title: str
    x: Axis
    y: Axis
    marks: list = field(default_factory=list)  # of Line, Band, Dots, Rule
    legend: tuple[str, ...] = ()  # of the arms 0, 1 …
    note: str = ""  # in place of a picture that has nothing to show

    def span(self, upright: bool) -> tuple[float, float]:
        """The data's extent on one axis with a margin, in the axis's own units."""
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


def ticks(low: float, high: float, log: bool, most: int) -> list[float]:
    """Round numbers in [low, high], at most about `most`."""
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        for digits in ((1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
            found = [
                digit * 10.0**power
                for power in range(first, last + 1)
                for digit in digits
                if low <= digit * 10.0**power <= high
            ]
            if len(found) <= most:
                return (
                    found
                    if len(found) > 1 or digits == (1, 2, 3, 5)
                    else ticks(low, high, False, most)
                )
        return found[:: -(-len(found) // most)]
    raw = (high - low) / most
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(
        factor * scale for factor in (1, 2, 2.5, 5, 10) if factor * scale >= raw * (1 - 1e-9)
    )
    return [
        round(place * step, 12)
        for place in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def thin(points: Sequence[tuple[float, ...]]) -> Sequence[tuple[float, ...]]:
    """As many of a line's points as a picture can show, the last among them."""
    step = -(-len(points) // _MOST_POINTS)
    return points if step <= 1 else [*points[:-1:step], points[-1]]


def colour(arm: int) -> int:
    return arm % len(LIGHT)


def shape(arm: int) -> str:
    return SHAPES[(arm + arm // len(LIGHT)) % len(SHAPES)]


def dashes(arm: int) -> tuple[float, ...]:
    return DASHES[(arm + arm // len(LIGHT)) % len(DASHES)]


def amount(value: float) -> str:
    """A number on an axis with a prefix: 1.5 M."""
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
