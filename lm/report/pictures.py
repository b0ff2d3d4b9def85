"""Draws charts with matplotlib: the PNG for READMEs, on white."""

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lm.core import files
from lm.report import chart
from lm.report.chart import Band, Chart, Dots, Line, Rule

_INK, _FAINT, _RULE = "#1c1e21", "#5a6068", "#d9dce0"
_MARKERS = {"circle": "o", "square": "s", "triangle": "^", "diamond": "D", "down": "v", "plus": "P"}
_PANEL = (4.6, 2.9)  # inches


def png(path: Path, panels: Sequence[Chart], wide: Sequence[Chart]) -> None:
    """Writes a PNG of at least one chart, atomically.

    Args:
      path: path of the PNG file.
      panels: charts in columns.
      wide: charts of full width, below the columns.
    """
    from matplotlib.figure import Figure

    columns = min(len(panels), 2 if len(panels) <= 6 else 4) or 2
    lines = -(-len(panels) // columns)
    heights = [_PANEL[1]] * lines + [0.8 + 0.26 * len(data.y.names) for data in wide]
    with _style():
        figure = Figure(
            figsize=(_PANEL[0] * columns, sum(heights)), layout="constrained", facecolor="white"
        )
        grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
        for place, data in enumerate(panels):
            _draw(figure.add_subplot(grid[place // columns, place % columns]), data)
        for place, data in enumerate(wide):
            _draw(figure.add_subplot(grid[lines + place, :]), data)
        buffer = io.BytesIO()
        figure.savefig(
            buffer, format="png", dpi=110 if columns > 2 else 160, metadata={"Software": None}
        )
    with files.replacing(path, "wb") as file:
        file.write(buffer.getvalue())


def _draw(axes: Any, data: Chart) -> None:
    axes.set_title(data.title, loc="left", fontweight="bold")
    if data.note:
        axes.text(
            0.5, 0.5, data.note, ha="center", va="center", transform=axes.transAxes, color=_FAINT
        )
        axes.set_axis_off()
        return
    for mark in data.marks:
        _mark(axes, mark)
    for axis, upright, maximum in ((data.x, False, 6), (data.y, True, 6)):
        low, high = data.span(upright)
        name = "y" if upright else "x"
        if axis.log:
            getattr(axes, f"set_{name}scale")("log")
        getattr(axes, f"set_{name}lim")(low, high)
        getattr(axes, f"set_{name}label")(axis.label)
        if axis.names:
            axes.set_yticks(range(len(axis.names)), axis.names)
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="y", visible=False)
            axes.grid(axis="x", visible=True)
            axes.spines["left"].set_visible(False)
            continue
        values = chart.ticks(low, high, axis.log, maximum)
        getattr(axes, f"set_{name}ticks")(values, [axis.text(value) for value in values])
        getattr(axes, f"set_{name}ticks")([], minor=True)


def _mark(axes: Any, mark: Line | Band | Dots | Rule) -> None:
    match mark:
        case Rule():
            style = {
                "color": _FAINT,
                "linewidth": 0.9,
                "linestyle": "-" if mark.solid else (0, (2, 2)),
            }
            (axes.axvline if mark.upright else axes.axhline)(mark.value, **style)
            if mark.text:
                # Indented from the right edge, in case a font is wider than matplotlib's.
                place, side = (0.01, "left") if mark.early else (0.98, "right")
                axes.annotate(
                    mark.text,
                    (place, mark.value),
                    xycoords=("axes fraction", "data"),
                    xytext=(0, 2.5),
                    textcoords="offset points",
                    ha=side,
                    va="bottom",
                    color=_FAINT,
                    fontsize=8,
                )
        case Band():
            x, low, high = zip(*chart.thin(mark.points), strict=True)
            axes.fill_between(x, low, high, color=_paint(mark.arm), alpha=0.2, linewidth=0)
        case Line():
            x, y = zip(*chart.thin(mark.points), strict=True)
            style = {
                "color": _paint(mark.arm),
                "linewidth": 0.7 if mark.style == "thin" else 1.8,
                "solid_capstyle": "butt",
            }
            if mark.style == "thin":
                style["alpha"] = 0.55
            if mark.style in ("mean", "fit"):
                style["linestyle"] = (
                    (0, pattern) if (pattern := chart.dashes(mark.arm or 0)) else "-"
                )
            if mark.style == "mean":
                style |= {
                    "marker": _MARKERS[chart.shape(mark.arm or 0)],
                    "markersize": 4,
                    "markevery": max(1, len(x) // 7),
                }
            axes.plot(x, y, **style)
        case Dots():
            if mark.points:
                _dots(axes, mark)


def _dots(axes: Any, dots: Dots) -> None:
    x, y = zip(*dots.points, strict=True)
    paint = _paint(dots.arm)
    if dots.shape == "tick":
        axes.plot(
            x,
            [place - 0.32 for place in y],
            color=paint,
            linestyle="none",
            marker="|",
            markersize=4,
        )
        return
    marker, size = {"cross": ("x", 6), "ring": ("o", 11), "point": (".", 5)}.get(
        dots.shape, (_MARKERS[chart.shape(dots.arm)] if dots.arm is not None else "d", 6.5)
    )
    face = "none" if dots.hollow or dots.shape == "ring" else paint
    edge = _INK if dots.shape == "ring" else paint
    axes.plot(
        x,
        y,
        color=edge,
        marker=marker,
        markersize=size,
        linestyle="none",
        markerfacecolor=face,
        markeredgewidth=1.3,
    )


def _paint(arm: int | None) -> str:
    return _FAINT if arm is None else chart.LIGHT[chart.color(arm)]


@contextlib.contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    style: dict[Any, Any] = {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9,
        "axes.titlesize": 9.5,
        "axes.labelsize": 8.5,
        "text.color": _INK,
        "axes.titlecolor": _INK,
        "axes.labelcolor": _FAINT,
        "xtick.color": _RULE,
        "ytick.color": _RULE,
        "xtick.labelcolor": _FAINT,
        "ytick.labelcolor": _INK,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8.5,
        "axes.edgecolor": _RULE,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "grid.color": _RULE,
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "text.parse_math": False,
        "axes.unicode_minus": True,
    }
    # rcdefaults first: a user's matplotlibrc must not change the report.
    with matplotlib.rc_context(), warnings.catch_warnings():
        # Labels may be in a script that matplotlib's font lacks; the page can show them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style)
        yield
