"""Scaling laws L = E + A/N^α + B/D^β of series of arms (Hoffmann et al. 2022); crossovers."""

import itertools
import math
from typing import Any

from lm.core.plugins import UserError
from lm.report import number_format, svg
from lm.report.chart import Axis, Chart, Dots, Line, amount
from lm.report.page import Figure, Heading, Items, Paragraph, Part, Table
from lm.report.results import Results, metric_name, task_name
from lm.stats import scaling
from lm.stats.scaling import Fit, Point

Runs = list[tuple[Point, float]]  # each run with its training FLOPs

_LETTERS = (("E", "E"), ("A", "A"), ("B", "B"), ("alpha", "α"), ("beta", "β"))


def section(results: Results) -> list[Part]:
    """Returns the section; empty if the experiment has no scaling fit."""
    comparison = results.comparison
    options = comparison.record.get("scaling")
    if not isinstance(options, dict) or not options.get("task"):
        return []
    task, metric = str(options["task"]), str(options.get("metric") or "nll")
    title, series = Heading("Scaling"), dict[str, Runs]()
    for arm, description in comparison.arms.items():
        score = results.score(arm, task, metric)
        if score is None or not description.get("series"):
            continue
        for run in comparison.finished(arm):
            values = [run.number(key) for key in ("parameters", "tokens", "flops")]
            if run.seed in score.values and all(values):
                parameters, tokens, flops = (float(value or 0.0) for value in values)
                point = Point(parameters, tokens, score.values[run.seed], run.seed)
                series.setdefault(str(description["series"]), []).append((point, flops))
    fits, notes = dict[str, Fit](), []
    if series and results.row(task, metric).better != "lower":
        return [
            title,
            Paragraph(
                "A scaling law describes a loss, but higher is better for"
                f" {metric_name(metric)}, {task_name(task)}."
            ),
        ]
    for name, points in series.items():
        try:
            fits[name] = scaling.fit([point for point, _ in points])
        except (UserError, ValueError) as error:
            notes.append(f"{name}: no fit, {error}")
    if not series:
        return [
            title,
            Paragraph(
                f"No finished run of a series has a score on {task_name(task)},"
                f" {metric_name(metric)} yet."
            ),
        ]
    unit, row = f"{metric_name(metric)}, {task_name(task)}", results.row(task, metric)
    drawn = svg.draw(
        _chart(series, fits, unit),
        "scaling",
        f"{unit} against training FLOPs with the fitted curves",
        560,
        340,
    )
    caption = (
        f"{unit[0].upper()}{unit[1:]}, against training FLOPs. Markers: individual runs. Lines:"
        " lowest loss that the fit predicts for the FLOPs, at the compute-optimal size, within the"
        " range of the runs."
    )
    rows = []
    for name, fit in fits.items():
        rows.append(
            [name, str(len(series[name])), *(_constant(fit, letter) for letter, _ in _LETTERS)]
        )
    parts: list[Part] = [
        title,
        Figure([drawn], caption, elsewhere="report.html plots the fits."),
    ]
    if rows:
        columns = [("Series", "l"), ("Runs", "r"), *((sign, "r") for _, sign in _LETTERS)]
        note = (
            f"L = E + A/N^α + B/D^β: N parameters, D tokens, L in {row.unit}. Below each value: its"
            " 95 % interval. A fit may not hold far outside the range of its runs."
        )
        parts.append(Table(columns, rows, note))
    notes += [f"{name}: {fit.note}" for name, fit in fits.items() if fit.note]
    notes += _crossings(series, fits)
    return parts + ([Items(notes)] if notes else [])


def _crossings(series: dict[str, Runs], fits: dict[str, Fit]) -> list[str]:
    """A sentence on the crossover of each pair of series."""
    sentences = []
    for first, second in itertools.combinations(fits, 2):
        spent = [flops for name in (first, second) for _, flops in series[name]]
        low, high = min(spent), 100 * max(spent)
        crossing = scaling.crossover(
            fits[first],
            fits[second],
            low,
            high,
            (_per_token(series[first]), _per_token(series[second])),
        )
        if crossing.flops is None:
            sentences.append(
                f"{first} and {second} do not cross between {number_format.flops(low)} and"
                f" {number_format.flops(high)}: {crossing.note}."
            )
            continue
        ends = [
            number_format.flops(end) if end is not None else "outside the searched range"
            for end in (crossing.low, crossing.high)
        ]
        beyond = "" if crossing.flops <= max(spent) else ", beyond the largest run"
        sentences.append(
            f"{first} and {second} cross at {number_format.flops(crossing.flops)}{beyond}"
            f" (95 % interval: {ends[0]} to {ends[1]}): {crossing.note}."
        )
    return sentences


def _per_token(points: Runs) -> float:
    """Training FLOPs per parameter and token: the geometric mean over the runs."""
    return math.exp(
        math.fsum(math.log(flops / (point.parameters * point.tokens)) for point, flops in points)
        / len(points)
    )


def _chart(series: dict[str, Runs], fits: dict[str, Fit], unit: str) -> Chart:
    marks: list[Any] = []
    for place, (name, points) in enumerate(series.items()):
        if name in fits:
            low, high = min(flops for _, flops in points), max(flops for _, flops in points)
            grid = [low * (high / low) ** (step / 40) for step in range(41)]
            curve = [(flops, fits[name].optimal(flops, _per_token(points))[2]) for flops in grid]
            marks.append(Line([point for point in curve if math.isfinite(point[1])], place, "fit"))
        marks.append(Dots([(flops, point.loss) for point, flops in points], place))
    return Chart(
        "",
        Axis("training FLOPs", log=True, text=amount),
        Axis(unit, text=number_format.tick),
        marks,
        legend=tuple(series),
    )


def _constant(fit: Fit, letter: str) -> str:
    """A constant of the fit, and below it its interval."""
    value, low, high = map(number_format.plain, (getattr(fit, letter), *fit.intervals[letter]))
    return f"{value}\n[{low}, {high}]"
