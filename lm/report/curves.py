"""Learning curves: validation loss against tokens, FLOPs and time, one panel per arm.

The losses of different objectives are different quantities, so they do not share a panel.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from lm.report import chart, number_format, svg
from lm.report.chart import Axis, Band, Chart, Line, Rule
from lm.report.comparison import Run
from lm.report.page import Figure, Heading, Paragraph, Part, Tabs
from lm.report.results import Results

# By task, the objective whose loss is the quantity that the task measures.
_OBJECTIVES: dict[str, dict] = {
    "causal": {"name": "clm", "label_smoothing": 0.0, "z_loss": 0.0},
    "masked": {
        "name": "mlm",
        "rate": 0.15,
        "final_rate": 0.0,
        "mask_share": 0.8,
        "random_share": 0.1,
        "unit": "token",
        "format": "packed",
        "label_smoothing": 0.0,
        "z_loss": 0.0,
    },
}
MANY = 8  # with more arms, panels are small


class Point(NamedTuple):
    """One validation.

    Attributes:
      tokens: tokens seen.
      flops: training FLOPs; NaN if unknown.
      seconds: training time; NaN if unknown.
      loss: validation loss in nats.
    """

    tokens: float
    flops: float
    seconds: float
    loss: float


def read(workdir: Path, run: Run) -> list[Point]:
    """Returns a run's validations, sorted by tokens.

    After a resume, a step may have two lines; the later one counts. Malformed lines are skipped.

    Args:
      workdir: directory of the comparison.
      run: the run.
    """
    path = workdir / "runs" / f"{run.arm}-seed{run.seed}" / "metrics.jsonl"
    tokens, flops = run.number("tokens"), run.number("flops")
    per_token = flops / tokens if flops and tokens else math.nan
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
                    float(entry.get("flops", per_token * seen)),
                    float(entry.get("seconds", math.nan)),
                )
                points[seen] = Point(seen, spent, time, float(entry["loss"]))
        except (ValueError, KeyError, TypeError):
            continue  # `read.read` reports them
    return [points[seen] for seen in sorted(points)]


class Panel(NamedTuple):
    """The validation losses of one arm, and constant baselines of the same quantity.

    Attributes:
      arm: name of the arm.
      label: display name of the arm.
      arm_index: index of the arm, which determines the color.
      seeds: validations of each run, by seed.
      baselines: (display name, value) of each baseline.
      quantity: name and unit of the loss.
    """

    arm: str
    label: str
    arm_index: int
    seeds: dict[int, list[Point]]
    baselines: list[tuple[str, float]]
    quantity: str


def panels(results: Results) -> list[Panel]:
    """Returns one panel per arm, with the baselines that measure the same quantity as its loss."""
    comparison, drawn = results.comparison, []
    units: dict[str, dict[tuple[str, str, str], None]] = {}
    for row in comparison.rows:
        if row.kind == "model" and row.own and row.unit.startswith("nats/"):
            units.setdefault(row.arm, {})[row.task, row.metric, row.unit] = None
    for index, arm in enumerate(comparison.arms):
        baselines, quantity = [], "validation loss (nats)"
        same = [key for key in sorted(units.get(arm, {})) if _same_quantity(results, arm, key[0])]
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
            run.seed: points
            for run in comparison.finished(arm)
            if (points := read(results.workdir, run))
        }
        drawn.append(Panel(arm, comparison.label(arm), index, seeds, baselines, quantity))
    return drawn


def _same_quantity(results: Results, arm: str, task: str) -> bool:
    """Whether an arm's loss is what the task's baselines measure.

    The quantities differ if other tokens are masked, or if the loss is a sum of two terms.
    """
    comparison, task = results.comparison, results.plug_in(task)
    configs = [run.record.get("config") for run in comparison.runs if run.arm == arm]
    objective = next(
        (
            config["objective"]
            for config in configs
            if isinstance(config, dict) and isinstance(config.get("objective"), dict)
        ),
        None,
    )
    if objective is None:
        objective = {"name": comparison.arms[arm].get("objective")}
    return task in _OBJECTIVES and all(
        objective.get(key, value) == value for key, value in _OBJECTIVES[task].items()
    )


def draw(
    panel: Panel,
    field: str,
    label: str,
    scale: float = 1.0,
    text: Callable[[float], str] = chart.amount,
) -> Chart:
    """Returns the chart of an arm's panel.

    Args:
      panel: the panel.
      field: field of `Point` for the x axis.
      label: label of the x axis.
      scale: divisor of the field's values.
      text: function that formats values on the x axis.
    """
    import numpy as np

    lines = {}
    for seed, points in panel.seeds.items():
        line = [
            (getattr(point, field) / scale, point.loss)
            for point in points
            if math.isfinite(getattr(point, field))
        ]
        if line:
            lines[seed] = line
    x, y = Axis(label, text=text, start=0.0), Axis(panel.quantity, text=number_format.tick)
    if not lines:
        return Chart(panel.label, x, y, note="no validation loss yet")
    marks: list[Any] = [Line(points, panel.arm_index, "thin") for points in lines.values()]
    # The band covers only the range that all seeds have reached.
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
                Band(list(zip(grid, losses.min(0), losses.max(0), strict=True)), panel.arm_index)
            )
        marks.append(Line(list(zip(grid, losses.mean(0), strict=True)), panel.arm_index))
    # Losses fall: below their mean there is room for a label at the left, above it at the right.
    middle = np.mean([loss for points in lines.values() for _, loss in points])
    marks += [
        Rule(value, f"{name} {number_format.plain(value)}", early=bool(value < middle))
        for name, value in panel.baselines
    ]
    return Chart(panel.label, x, y, marks)


def section(panels: list[Panel], picture: str) -> list[Part]:
    """Returns the section with three views of the losses.

    Args:
      panels: one panel per arm.
      picture: file name of the PNG, which Markdown shows instead of the first view.
    """
    title = Heading("Learning curves")
    if not any(panel.seeds for panel in panels):
        return [title, Paragraph("No finished run has a validation loss yet.")]
    longest = max(
        (point.seconds for panel in panels for points in panel.seeds.values() for point in points),
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
    views.append(("Time", "seconds", f"training time ({unit})", scale))
    caption = (
        "Thick line: mean over seeds. Thin lines: individual seeds. Band: minimum to maximum over"
        " seeds, not a 95 % interval. Each arm has its own panel and scale because the losses of"
        " different objectives are different quantities; do not compare them across panels."
    )
    if any(panel.baselines for panel in panels):
        caption += (
            " Dashed grey lines: count-based baselines on the test documents, if they measure the"
            " same quantity as the loss."
        )
    shown: list[tuple[str, Figure]] = []
    for name, field, label, divisor in views:
        if not any(
            math.isfinite(getattr(point, field))
            for panel in panels
            for points in panel.seeds.values()
            for point in points
        ):
            continue
        drawn = []
        for panel in panels:
            alternative = (
                f"Validation loss of {panel.label} against {label}, {len(panel.seeds)} seeds"
            )
            size = (300, 220) if len(panels) > MANY else (400, 262)
            drawn.append(
                svg.draw(
                    draw(panel, field, label, divisor),
                    f"{field}{panel.arm_index}",
                    alternative,
                    *size,
                )
            )
        text = f"Validation loss against {label}. {caption}"
        elsewhere = "" if shown else text
        shown.append(
            (name, Figure(drawn, text, "" if shown else picture, elsewhere, len(panels) > MANY))
        )
    note = Paragraph(
        "report.html also shows the curves against training FLOPs and time.", "markdown"
    )
    return [title, Tabs("Learning curves", shown), *([note] if len(shown) > 1 else [])]
