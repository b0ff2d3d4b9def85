"""Validation loss against tokens, FLOPs and time: a panel an arm, as losses of different objectives are different quantities."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from lm.report import chart, figures, svg
from lm.report.chart import Axis, Band, Chart, Line, Rule
from lm.report.page import Figure, Heading, Paragraph, Part, Tabs
from lm.report.read import Run
from lm.report.results import Results

# The objective whose loss is the task's quantity.
_QUESTIONS: dict[str, dict] = {
    "causal": {"name": "clm", "label_smoothing": 0.0, "z_loss": 0.0},
    "masked": {
        "name": "mlm", "rate": 0.15, "final_rate": 0.0, "mask_share": 0.8, "random_share": 0.1, "unit": "token", "format": "packed",
        "label_smoothing": 0.0, "z_loss": 0.0,
    },
}  # fmt: skip
MANY = 8  # arms above which panels are small


class Point(NamedTuple):
    """One validation. `flops` and `seconds` are NaN where neither the line nor the run tells them."""

    tokens: float
    flops: float
    seconds: float
    loss: float


def read(workdir: Path, run: Run) -> list[Point]:
    """A run's validations by tokens. Of steps that stand there twice after a resume the later line holds; broken lines are passed over."""
    path = workdir / "runs" / f"{run.arm}-seed{run.seed}" / "metrics.jsonl"
    tokens, flops = run.number("tokens"), run.number("flops")
    each = flops / tokens if flops and tokens else math.nan
    points = {}
    for line in (
        path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ()
    ):
        if "validation" not in line:
            continue
        try:
            entry = json.loads(line)
            if entry["split"] == "validation" and math.isfinite(entry["loss"]):
                seen = float(entry["tokens"])
                spent, time = (
                    float(entry.get("flops", each * seen)),
                    float(entry.get("seconds", math.nan)),
                )
                points[seen] = Point(seen, spent, time, float(entry["loss"]))
        except (ValueError, KeyError, TypeError):
            continue  # `read.read` tells of them
    return [points[seen] for seen in sorted(points)]


class Panel(NamedTuple):
    """The validation losses of one arm: a line a seed, and constant baselines of the same quantity."""

    arm: str
    label: str
    place: int
    seeds: dict[int, list[Point]]
    baselines: list[tuple[str, float]]
    quantity: str


def panels(results: Results) -> list[Panel]:
    """One panel an arm. Baselines are drawn where the arm's loss is the one quantity they measure too."""
    comparison, found = results.comparison, []
    units: dict[str, dict[tuple[str, str, str], None]] = {}
    for row in comparison.rows:
        if row.kind == "model" and row.own and row.unit.startswith("nats/"):
            units.setdefault(row.arm, {})[row.task, row.metric, row.unit] = None
    for index, arm in enumerate(comparison.arms):
        baselines, quantity = [], "validation loss (nats)"
        same = [
            each for each in sorted(units.get(arm, {})) if _same_question(results, arm, each[0])
        ]
        if same:
            task, metric, unit = same[0]
            quantity = f"validation loss ({unit})"
            rows = [
                row
                for row in results.rows(task, metric)
                if row.kind in ("baseline", "bound") and row.seed < 0
            ]
            baselines = [(comparison.label(row.arm), row.value) for row in rows]
        seeds = {
            run.seed: points for run in comparison.of(arm) if (points := read(results.workdir, run))
        }
        found.append(Panel(arm, comparison.label(arm), index, seeds, baselines, quantity))
    return found


def _same_question(results: Results, arm: str, task: str) -> bool:
    """Whether an arm's loss is what the task's baselines measure: not with other tokens hidden, nor as a sum of two terms."""
    comparison, task = results.comparison, results.plug_in(task)
    configs = [run.record.get("config") for run in comparison.runs if run.arm == arm]
    config = next(
        (
            each["objective"]
            for each in configs
            if isinstance(each, dict) and isinstance(each.get("objective"), dict)
        ),
        None,
    )
    if config is None:
        config = {"name": comparison.arms[arm].get("objective")}
    return task in _QUESTIONS and all(
        config.get(key, value) == value for key, value in _QUESTIONS[task].items()
    )


def draw(
    panel: Panel,
    place: str,
    label: str,
    scale: float = 1.0,
    text: Callable[[float], str] = chart.amount,
) -> Chart:
    """An arm's panel against one of a point's fields, divided by `scale`."""
    import numpy as np

    lines = {}
    for seed, points in panel.seeds.items():
        found = [
            (getattr(point, place) / scale, point.loss)
            for point in points
            if math.isfinite(getattr(point, place))
        ]
        if found:
            lines[seed] = found
    x, y = Axis(label, text=text, start=0.0), Axis(panel.quantity, text=figures.tick)
    if not lines:
        return Chart(panel.label, x, y, note="no validation loss yet")
    marks: list[Any] = [Line(points, panel.place, "thin") for points in lines.values()]
    # The band is drawn where all seeds have been: beyond, it would be a band of fewer.
    start, end = (
        max(points[0][0] for points in lines.values()),
        min(points[-1][0] for points in lines.values()),
    )
    grid = np.array(
        sorted({x for points in lines.values() for x, _ in points if start <= x <= end})
    )
    if len(grid):
        losses = np.stack(
            [np.interp(grid, *np.array(points, float).T) for points in lines.values()]
        )
        if len(lines) > 1:
            marks.append(
                Band(list(zip(grid, losses.min(0), losses.max(0), strict=True)), panel.place)
            )
        marks.append(Line(list(zip(grid, losses.mean(0), strict=True)), panel.place))
    # Losses fall: below their middle there is room for a name at the left, above it at the right.
    middle = np.mean([loss for points in lines.values() for _, loss in points])
    marks += [
        Rule(value, f"{name} {figures.plain(value)}", early=bool(value < middle))
        for name, value in panel.baselines
    ]
    return Chart(panel.label, x, y, marks)


def section(found: list[Panel], picture: str) -> list[Part]:
    """Three views of the same losses. `picture` is the PNG's name for Markdown, which shows the first."""
    title = Heading("Learning curves")
    if not any(panel.seeds for panel in found):
        return [title, Paragraph("No finished run has a validation loss yet.")]
    longest = max(
        (point.seconds for panel in found for points in panel.seeds.values() for point in points),
        default=math.nan,
    )
    scale, unit = next(
        (
            (scale, unit)
            for scale, unit in ((3600.0, "hours"), (60.0, "minutes"))
            if longest >= 2 * scale
        ),
        (1.0, "seconds"),
    )
    views = [("Tokens", "tokens", "tokens seen", 1.0), ("FLOPs", "flops", "training FLOPs", 1.0)]
    views.append(("Time", "seconds", f"{unit} of training", scale))
    caption = (
        "Thick line: mean over seeds; thin lines: each seed; band: lowest to highest seed, not a 95 % interval. Each arm has its own panel "
        "and scale because losses of different objectives are different quantities: do not compare heights across panels."
    )
    if any(panel.baselines for panel in found):
        caption += " Dashed grey: baselines that count tokens, on the test documents, where they measure the same quantity as the loss."
    shown: list[tuple[str, Figure]] = []
    for name, place, label, divisor in views:
        if not any(
            math.isfinite(getattr(point, place))
            for panel in found
            for points in panel.seeds.values()
            for point in points
        ):
            continue
        drawn = []
        for panel in found:
            alternative = (
                f"Validation loss of {panel.label} against {label}, {len(panel.seeds)} seeds"
            )
            size = (300, 220) if len(found) > MANY else (400, 262)
            drawn.append(
                svg.draw(
                    draw(panel, place, label, divisor), f"{place}{panel.place}", alternative, *size
                )
            )
        text = f"Validation loss against {label}. {caption}"
        elsewhere = "" if shown else text
        shown.append(
            (name, Figure(drawn, text, "" if shown else picture, elsewhere, len(found) > MANY))
        )
    note = Paragraph(
        "The page report.html shows the same against training FLOPs and time.", "markdown"
    )
    return [title, Tabs("Learning curves", shown), *([note] if len(shown) > 1 else [])]
