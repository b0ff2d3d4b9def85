"""Draws a chart as an SVG element, with the colors of the page's style sheet."""

import html
import unicodedata

from lm.report import chart
from lm.report.chart import Band, Chart, Dots, Line, Rule

_TEXT = 11.0  # font size of labels, in the picture's units


def draw(
    data: Chart, name: str, alternative: str, width: int = 400, height: int = 0
) -> tuple[str, str]:
    """Returns the chart's SVG markup and its alternative text.

    Args:
      data: the chart.
      name: id of the SVG element, unique on the page.
      alternative: alternative text of the picture.
      width: width in pixels.
      height: height in pixels; 0 for the default, which depends on the number of named rows.
    """
    rows = data.y.names
    height = height or (62 + 24 * len(rows) if rows else 262)
    left = min(0.45 * width, 14 + max((_length(text) for text in rows), default=34.0))
    above = (16 if data.title else 0) + (18 if data.y.label else 0) + (18 if data.legend else 0)
    plot = _Plot(data, left, 6 + above, width - 12, height - 38)
    inner = (
        plot.note()
        if data.note
        else plot.axes() + "".join(map(plot.mark, data.marks)) + _legend(data)
    )
    title = (
        f'<text x="0" y="14" class="title">{html.escape(_short(data.title, width - 8, 1.1))}</text>'
        if data.title
        else ""
    )
    clip = (
        f'<clipPath id="{name}"><rect x="{left - 4:.1f}" y="0" width="{width - left - 4:.1f}"'
        f' height="{height}"/></clipPath>'
    )
    opening = (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(alternative)}">'
    )
    return (
        f"{opening}{clip}{title}{inner.replace('url(#clip)', f'url(#{name})')}</svg>",
        alternative,
    )


def _legend(data: Chart) -> str:
    parts, place = [], 4.0
    for arm, name in enumerate(data.legend):
        parts.append(
            _Plot.dot(Dots([], arm), place, 9.0)
            + f'<text x="{place + 9:.1f}" y="12.8">{html.escape(name)}</text>'
        )
        place += 26 + _length(name)
    return "".join(parts)


class _Plot:
    """Maps data to positions within a picture."""

    def __init__(self, data: Chart, left: float, top: float, right: float, bottom: float) -> None:
        self.data, self.left, self.top, self.right, self.bottom = data, left, top, right, bottom
        self.spans = (data.span(False), data.span(True))

    def x(self, value: float) -> float:
        return self.left + (self.right - self.left) * _fraction(
            value, self.spans[0], self.data.x.log
        )

    def y(self, value: float) -> float:
        return self.bottom - (self.bottom - self.top) * _fraction(
            value, self.spans[1], self.data.y.log
        )

    def note(self) -> str:
        x, y = (self.left + self.right) / 2, (self.top + self.bottom) / 2
        return _label(x, y, self.data.note, "faint middle")

    def axes(self) -> str:
        data, parts = self.data, []
        across = chart.ticks(*self.spans[0], data.x.log, max(3, int((self.right - self.left) / 62)))
        rows = data.y.names
        for value in across:
            place = self.x(value)
            if rows or data.x.log:
                parts.append(_stroke([(place, self.top), (place, self.bottom)], "grid"))
            parts.append(_label(place, self.bottom + 14, data.x.text(value), "faint middle"))
        for row, name in enumerate(rows):
            text = _short(name, self.left - 10)
            parts.append(_label(self.left - 10, self.y(row) + 3.8, text, "end"))
        for value in [] if rows else chart.ticks(*self.spans[1], data.y.log, 6):
            place = self.y(value)
            parts.append(_stroke([(self.left, place), (self.right, place)], "grid"))
            parts.append(_label(self.left - 6, place + 3.8, data.y.text(value), "faint end"))
        parts.append(_stroke([(self.left, self.bottom), (self.right, self.bottom)], "axis"))
        label = _short(data.x.label, self.right - 4)
        parts.append(_label(self.right, self.bottom + 30, label, "faint end"))
        if data.y.label:
            label = html.escape(_short(data.y.label, self.right))
            parts.append(f'<text x="0" y="{self.top - 5:.1f}" class="faint">{label}</text>')
        return "".join(parts)

    def mark(self, mark: Line | Band | Dots | Rule) -> str:
        match mark:
            case Rule():
                return self._rule(mark)
            case Band():
                above = [(self.x(x), self.y(high)) for x, _, high in chart.thin(mark.points)]
                below = [
                    (self.x(x), self.y(low)) for x, low, _ in reversed(chart.thin(mark.points))
                ]
                return (
                    f'<path d="{_path(above + below)}Z" class="band" fill="{_paint(mark.arm)}"'
                    ' clip-path="url(#clip)"/>'
                )
            case Line():
                return self._line(mark)
            case Dots():
                return "".join(self.dot(mark, self.x(x), self.y(y)) for x, y in mark.points)

    def _line(self, line: Line) -> str:
        points = [(self.x(x), self.y(y)) for x, y in chart.thin(line.points)]
        paint = f' stroke="{_paint(line.arm)}" clip-path="url(#clip)"'
        if line.style not in ("mean", "fit"):
            return _stroke(points, line.style, paint)
        pattern = chart.dashes(line.arm or 0)
        dashes = (
            f' stroke-dasharray="{" ".join(f"{2 * length:g}" for length in pattern)}"'
            if pattern
            else ""
        )
        if line.style == "fit":
            return _stroke(points, "mean", paint + dashes)
        marked = points[:: max(1, len(points) // 7)]
        return _stroke(points, "mean", paint + dashes) + "".join(
            self.dot(Dots([], line.arm), x, y, 2.6) for x, y in marked
        )

    def _rule(self, rule: Rule) -> str:
        kind = "zero" if rule.solid else "rule"
        if rule.upright:
            return _stroke(
                [(self.x(rule.value), self.top), (self.x(rule.value), self.bottom)], kind
            )
        place = self.y(rule.value)
        x, style = (self.left + 3, "faint") if rule.early else (self.right, "faint end")
        text = _label(x, place - 3, rule.text, style) if rule.text else ""
        return _stroke([(self.left, place), (self.right, place)], kind) + text

    @staticmethod
    def dot(dots: Dots, x: float, y: float, size: float = 4.2) -> str:
        paint = _paint(dots.arm)
        match dots.shape:
            case "tick":
                return f'<path d="M{x:.1f} {y - 11:.1f}v5" stroke="{paint}" class="tick"/>'
            case "cross":
                path = f"M{x - 4:.1f} {y - 4:.1f}l8 8m0-8l-8 8"
                return f'<path d="{path}" stroke="{paint}" class="cross"/>'
            case "ring":
                return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="8" class="ring"/>'
            case "point":
                return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="{paint}"/>'
        shape = "diamond" if dots.arm is None else chart.shape(dots.arm)
        outline, kind = (
            _outline(shape, x, y, size),
            "dot plus" if shape == "plus" and not dots.hollow else "dot",
        )
        inside = "var(--paper)" if dots.hollow else paint
        return f'<path d="{outline}" fill="{inside}" stroke="{paint}" class="{kind}"/>'


def _outline(shape: str, x: float, y: float, size: float) -> str:
    wide, high = 1.15 * size, 1.2 * size
    return {
        "circle": f"M{x - size:.1f} {y:.1f}"
        f"a{size:.1f} {size:.1f} 0 1 0 {2 * size:.1f} 0"
        f"a{size:.1f} {size:.1f} 0 1 0 {-2 * size:.1f} 0Z",
        "square": f"M{x - 0.9 * size:.1f} {y - 0.9 * size:.1f}"
        f"h{1.8 * size:.1f}v{1.8 * size:.1f}h{-1.8 * size:.1f}Z",
        "triangle": f"M{x:.1f} {y - high:.1f}L{x + wide:.1f} {y + 0.9 * size:.1f}H{x - wide:.1f}Z",
        "down": f"M{x:.1f} {y + high:.1f}L{x + wide:.1f} {y - 0.9 * size:.1f}H{x - wide:.1f}Z",
        "diamond": f"M{x:.1f} {y - high:.1f}L{x + wide:.1f} {y:.1f}"
        f"L{x:.1f} {y + high:.1f}L{x - wide:.1f} {y:.1f}Z",
        "plus": f"M{x:.1f} {y - high:.1f}V{y + high:.1f}M{x - high:.1f} {y:.1f}H{x + high:.1f}",
    }[shape]


def _fraction(value: float, span: tuple[float, float], log: bool) -> float:
    """The position of a value within a span, from 0 to 1."""
    import math

    low, high = span
    if log:
        return math.log(max(value, low / 10) / low) / math.log(high / low)
    return (value - low) / (high - low)


def _label(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{html.escape(text)}</text>'


def _path(points: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _stroke(points: list[tuple[float, float]], kind: str, more: str = "") -> str:
    return f'<path d="{_path(points)}" class="{kind}"{more}/>'


def _paint(arm: int | None) -> str:
    return "var(--faint)" if arm is None else f"var(--arm{chart.color(arm)})"


def _length(text: str, size: float = _TEXT) -> float:
    """The approximate width of a text; wide letters of East Asian scripts count twice."""
    return size * sum(
        1.0 if unicodedata.east_asian_width(letter) in "WF" else 0.59 for letter in text
    )


def _short(text: str, room: float, size: float = 1.0) -> str:
    """The text, cut to the available width."""
    if _length(text, size * _TEXT) <= room:
        return text
    while text and _length(text + "…", size * _TEXT) > room:
        text = text[:-1]
    return text.rstrip() + "…"
