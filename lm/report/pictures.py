"""The report's pictures: loss curves and the dot plot, as SVG for the page and as PNG for a README.

Each arm has a colour after Okabe and Ito's palette ("Color Universal Design", 2008), a line style and a marker, so that colour is never the
only cue. The SVGs name colours of the page's style sheet instead of their own, so that they follow light and dark.
"""

import contextlib
import html
import io
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm.report import figures
from lm.statistics import Estimate

# Okabe-Ito, dark enough on white (yellow is not); `DARK` has the lighter ones for the same arms on a dark page.
LIGHT = ("#0072B2", "#D55E00", "#009E73", "#A8558A", "#8A6A00", "#56758A")
DARK = ("#56B4E9", "#E8833A", "#2FC295", "#E09AC0", "#E6B93C", "#A9C4D6")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P")
# Colours that stand for the page's: matplotlib writes them, `_inline` replaces them.
_INK, _FAINT, _RULE = "#010101", "#020202", "#030303"
_PAPER_COLOURS = {_INK: "#1c1e21", _FAINT: "#62676e", _RULE: "#d9dce0"}
_MOST_POINTS = 300


@dataclass(frozen=True, slots=True)
class Curve:
    """The validation losses of one arm: a line a seed, and constant baselines of the same quantity."""

    label: str
    index: int  # the arm's place, which gives its colour, line style and marker
    seeds: dict[int, list[tuple[int, float]]]
    baselines: list[tuple[str, float]]
    quantity: str


@dataclass(frozen=True, slots=True)
class Dot:
    """One row of the dot plot. `index` is None for a baseline or untrained model, which are drawn grey."""

    label: str
    estimate: Estimate
    values: list[float]
    index: int | None


def curve(data: Curve, alternative: str) -> tuple[str, str]:
    """One panel as inline SVG with its alternative text."""
    from matplotlib.figure import Figure

    with _style():
        figure = Figure(figsize=(4.1, 2.75), layout="constrained")
        _draw_curve(figure.subplots(), data)
        return _svg(figure, f"curve{data.index}", alternative), alternative


def dots(rows: list[Dot], unit: str, quantity: str, alternative: str) -> tuple[str, str]:
    """The dot-and-interval plot as inline SVG with its alternative text."""
    from matplotlib.figure import Figure

    with _style():
        figure = Figure(figsize=(4.4, 0.75 + 0.28 * len(rows)), layout="constrained")
        _draw_dots(figure.subplots(), rows, unit, quantity)
        return _svg(figure, "dots" + re.sub(r"\W", "", quantity), alternative), alternative


def png(path: Path, curves: list[Curve], rows: list[Dot], unit: str, quantity: str) -> None:
    """All pictures in one PNG on white, for a README. Needs a curve or a row."""
    from matplotlib.figure import Figure

    columns = min(len(curves), 2 if len(curves) <= 6 else 4) or 1
    lines = -(-len(curves) // columns)
    below = 0.7 + 0.3 * len(rows) if rows else 0.0
    with _style():
        figure = Figure(figsize=(4.6 * columns, 2.9 * lines + below), layout="constrained", facecolor="white")
        grid = figure.add_gridspec(lines + bool(rows), columns, height_ratios=[2.9] * lines + [below] * bool(rows))
        for place, data in enumerate(curves):
            _draw_curve(figure.add_subplot(grid[place // columns, place % columns]), data)
        if rows:
            _draw_dots(figure.add_subplot(grid[lines, :]), rows, unit, quantity)
        for artist in figure.findobj():
            _recolour(artist)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(buffer.getvalue())
    os.replace(temporary, path)


def _draw_curve(axes: Any, data: Curve) -> None:
    import numpy as np

    colour, style = LIGHT[data.index % len(LIGHT)], LINES[data.index % len(LINES)]
    axes.set_title(data.label, loc="left", fontweight="bold")
    lines = {seed: _thin(points) for seed, points in data.seeds.items() if points}
    if not lines:
        axes.text(0.5, 0.5, "no validation loss yet", ha="center", va="center", transform=axes.transAxes, color=_FAINT)
        axes.set_axis_off()
        return
    for points in lines.values():
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=0.7, alpha=0.55)
    # The band is drawn where all seeds have been: beyond, it would be a band of fewer.
    start, end = max(points[0][0] for points in lines.values()), min(points[-1][0] for points in lines.values())
    grid = np.array(sorted({x for points in lines.values() for x, _ in points if start <= x <= end}))
    if len(grid):
        losses = np.stack([np.interp(grid, *np.array(points, float).T) for points in lines.values()])
        if len(lines) > 1:
            axes.fill_between(grid, losses.min(0), losses.max(0), color=colour, alpha=0.2, linewidth=0)
        axes.plot(
            grid, losses.mean(0), color=colour, linestyle=style, linewidth=1.8, marker=MARKERS[data.index % len(MARKERS)], markersize=4,
            markevery=max(1, len(grid) // 8),
        )  # fmt: skip
    for name, value in data.baselines:
        axes.axhline(value, color=_FAINT, linewidth=0.9, linestyle=(0, (2, 2)))
        # Set in from the right edge: a font wider than matplotlib's must not run out of the picture.
        axes.annotate(f"{name} {figures.plain(value)}", (0.98, value), xycoords=("axes fraction", "data"), xytext=(0, 2.5),
                      textcoords="offset points", ha="right", va="bottom", color=_FAINT, fontsize=8)  # fmt: skip
    axes.set_xlabel("tokens seen")
    axes.set_ylabel(data.quantity)
    axes.set_xlim(left=0)
    axes.margins(y=0.12)
    axes.tick_params(axis="y", labelcolor=_FAINT)
    axes.xaxis.set_major_locator(_few(5))
    axes.xaxis.set_major_formatter(lambda value, _: _tokens(value))
    axes.yaxis.set_major_locator(_few(6))


def _draw_dots(axes: Any, rows: list[Dot], unit: str, quantity: str) -> None:
    scale = 100 if unit == "share" else 1
    for place, row in enumerate(rows):
        if row.index is None:
            colour, face, marker = _FAINT, "none", "d" if row.estimate.n == 0 else "o"
        else:
            colour = face = LIGHT[row.index % len(LIGHT)]
            marker = MARKERS[row.index % len(MARKERS)]
        if row.estimate.low is not None and row.estimate.high is not None:
            ends = [scale * row.estimate.low, scale * row.estimate.high]
            axes.plot(ends, [place, place], color=colour, linewidth=1.8, solid_capstyle="butt")
        if len(row.values) > 1:
            seeds = [scale * value for value in row.values]
            axes.plot(seeds, [place - 0.32] * len(seeds), color=colour, linestyle="none", marker="|", markersize=4)
        axes.plot(
            scale * row.estimate.mean, place, color=colour, marker=marker, markersize=6.5, linestyle="none",
            markerfacecolor=face, markeredgewidth=1.3,
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(quantity + (" (%)" if unit == "share" else ""))
    axes.xaxis.set_major_locator(_few(7))


def _few(number: int) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(number, steps=[1, 2, 2.5, 5, 10])


def _thin(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    step = -(-len(points) // _MOST_POINTS)
    return points if step <= 1 else [*points[:-1:step], points[-1]]


def _tokens(value: float) -> str:
    for size, mark in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{mark}"
    return f"{value:.3g}"


@contextlib.contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    style: dict[Any, Any] = {
        "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9, "axes.titlesize": 9.5, "axes.labelsize": 8.5,
        "text.color": _INK, "axes.titlecolor": _INK, "axes.labelcolor": _FAINT, "xtick.color": _RULE, "ytick.color": _RULE,
        "xtick.labelcolor": _FAINT, "ytick.labelcolor": _INK, "xtick.labelsize": 8, "ytick.labelsize": 8.5,
        "axes.edgecolor": _RULE, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.grid.axis": "y",
        "grid.color": _RULE, "grid.linewidth": 0.6, "axes.axisbelow": True, "axes.facecolor": "none", "figure.facecolor": "none",
        "svg.fonttype": "none", "svg.hashsalt": "report", "text.parse_math": False, "axes.unicode_minus": True,
    }  # fmt: skip
    # rcdefaults first: a person's own matplotlibrc should not change the report.
    with matplotlib.rc_context(), warnings.catch_warnings():
        # Labels may be in a script that matplotlib's font lacks; the page's font draws them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style)
        yield


def _svg(figure: Any, prefix: str, alternative: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _inline(buffer.getvalue(), prefix, alternative)


def _inline(text: str, prefix: str, alternative: str) -> str:
    """matplotlib's SVG as an element of the page: ids of its own, the page's colours, nothing that names an address."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    width, height = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)[0]
    opening = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(alternative)}">'
    text = opening + text[text.index(">") + 1 :]
    text = text.replace("xlink:href=", "href=")
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", text)
    names = {_INK: "ink", _FAINT: "faint", _RULE: "rule"} | {colour.lower(): f"arm{place}" for place, colour in enumerate(LIGHT)}
    text = re.sub("|".join(names), lambda match: f"var(--{names[match[0].lower()]})", text, flags=re.IGNORECASE)
    return re.sub(r"\s*\n\s*", "\n", text).strip()


def _recolour(artist: Any) -> None:
    """Gives an artist of the PNG real colours in place of those that stand for the page's."""
    from matplotlib.colors import to_hex

    for kind in ("color", "edgecolor", "markeredgecolor"):
        getter, setter = getattr(artist, f"get_{kind}", None), getattr(artist, f"set_{kind}", None)
        if getter is None or setter is None:
            continue
        try:
            colour = to_hex(getter())
        except (ValueError, TypeError):  # a collection of many colours, or none: those have none of the page's
            continue
        if colour in _PAPER_COLOURS:
            setter(_PAPER_COLOURS[colour])
