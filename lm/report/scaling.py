"""Scaling: L = E + A/N^α + B/D^β for each series of arms (Hoffmann et al. 2022), and where two of them cross."""

import itertools
import math
from typing import Any

from lm.report import figures, svg
from lm.report.chart import Axis, Chart, Dots, Line, amount
from lm.report.page import Figure, Heading, Items, Paragraph, Part, Table
from lm.report.results import Results, metric_name, task_name

_LETTERS = (("E", "E"), ("A", "A"), ("B", "B"), ("alpha", "α"), ("beta", "β"))


def section(results: Results) -> list[Part]:
    """Nothing where the experiment asks for no fit."""
    comparison = results.comparison
    asked = comparison.about.get("scaling")
    if not isinstance(asked, dict) or not asked.get("task"):
        return []
    from lm.core.plugins import UserError
    from lm.stats import scaling

    task, metric = str(asked["task"]), str(asked.get("metric") or "nll")
    title, series = Heading("Scaling"), dict[str, list[tuple[Any, float]]]()
    for arm, about in comparison.arms.items():
        found = results.score(arm, task, metric)
        if found is None or not about.get("series"):
            continue
        for run in comparison.of(arm):
            values = [run.number(key) for key in ("parameters", "tokens", "flops")]
            if run.seed in found.values and all(values):
                parameters, tokens, flops = (float(value or 0.0) for value in values)
                point = scaling.Point(parameters, tokens, found.values[run.seed], run.seed)
                series.setdefault(str(about["series"]), []).append((point, flops))
    fits, refused = dict[str, Any](), []
    if series and results.row(task, metric).better != "lower":
        return [
            title,
            Paragraph(
                f"The law is one of a loss; {metric_name(metric)}, {task_name(task)}, is better the higher it is."
            ),
        ]
    for name, points in series.items():
        try:
            fits[name] = scaling.fit([point for point, _ in points])
        except (UserError, ValueError) as error:
            refused.append(f"{name}: no fit, {error}")
    if not series:
        return [
            title,
            Paragraph(
                f"No finished run of a series has a score on {task_name(task)}, {metric_name(metric)} yet."
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
        f"{unit[0].upper()}{unit[1:]}, against training FLOPs: a marker a run; lines: the least loss that the fit gives for the FLOPs, at "
        "its own best size, as far as the runs reach."
    )
    rows = []
    for name, fit in fits.items():
        rows.append(
            [name, str(len(series[name])), *(_parameter(fit, letter) for letter, _ in _LETTERS)]
        )
    parts: list[Part] = [
        title,
        Figure([drawn], caption, elsewhere="The page report.html draws the fits."),
    ]
    if rows:
        columns = [("Series", "l"), ("Runs", "r"), *((sign, "r") for _, sign in _LETTERS)]
        note = (
            f"L = E + A/N^α + B/D^β: N parameters, D tokens, L in {row.unit}; 95 % intervals below each value. A fit says nothing of what "
            "lies far beyond its runs."
        )
        parts.append(Table(columns, rows, note))
    refused += [f"{name}: {fit.note}" for name, fit in fits.items() if fit.note]
    return parts + (
        [Items(refused + crossings)]
        if (crossings := _crossings(scaling, series, fits)) or refused
        else []
    )


def _crossings(scaling: Any, series: dict[str, list], fits: dict[str, Any]) -> list[str]:
    found = []
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
            found.append(
                f"{first} and {second} do not cross between {figures.flops(low)} and {figures.flops(high)}: {crossing.note}."
            )
            continue
        ends = [
            figures.flops(end) if end is not None else "outside of what is looked at"
            for end in (crossing.low, crossing.high)
        ]
        beyond = "" if crossing.flops <= max(spent) else ", beyond the largest run"
        text = f"{first} and {second} cross at {figures.flops(crossing.flops)}{beyond} (95 % interval: {ends[0]} to {ends[1]})"
        found.append(f"{text}: {crossing.note}.")
    return found


def _per_token(points: list[tuple[Any, float]]) -> float:
    """Training FLOPs for each parameter and token, as these runs had it: the geometric mean."""
    return math.exp(
        math.fsum(math.log(flops / (point.parameters * point.tokens)) for point, flops in points)
        / len(points)
    )


def _chart(series: dict[str, list], fits: dict[str, Any], unit: str) -> Chart:
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
        Axis(unit, text=figures.tick),
        marks,
        legend=tuple(series),
    )


def _parameter(fit: Any, letter: str) -> str:
    """A parameter of the fit above its interval."""
    low, high = fit.intervals[letter]
    return f"{figures.plain(getattr(fit, letter))}\n[{figures.plain(low)}, {figures.plain(high)}]"
