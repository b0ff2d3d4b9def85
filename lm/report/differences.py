"""Differences between arms: forest plots and tables."""

from typing import Any

from lm.report import number_format, svg
from lm.report.chart import Axis, Chart, Dots, Line, Rule
from lm.report.page import Details, Figure, Heading, Paragraph, Part, Table
from lm.report.results import INTERVAL, Gap, Results, metric_name, sentence, task_name, unit_suffix

# Up to this many arms, forest plots show every shared metric; otherwise the first of each task.
_FEW = 6


def forest_charts(results: Results) -> list[tuple[str, Chart]]:
    """Returns (name, chart) of the arms' differences from the reference arm, by shared metric."""
    few, charts = len(results.comparison.arms) <= _FEW, []
    for task, metrics in results.metrics(own=False).items():
        for metric in metrics if few else metrics[:1]:
            groups = results.groups(results.arms(task, metric))
            for multiple, arms in groups.items():
                reference, row = results.reference(arms), results.row(task, metric)
                gaps = [
                    gap
                    for arm in arms
                    if arm != reference and (gap := results.gap(arm, reference, task, metric))
                ]
                name, title = f"{task}-{metric}", f"{task_name(task)}: {metric_name(metric)}"
                if len(groups) > 1:
                    name, title = f"{name}-{multiple:g}", f"{title}, {multiple:g} × the budget"
                if gaps:
                    charts.append((name, _forest(results, gaps, title, row.unit, row.better)))
    return charts


def _forest(results: Results, gaps: list[Gap], title: str, unit: str, direction: str) -> Chart:
    scale, marks = (
        100.0 if unit == "share" else 1.0,
        list[Any]([Rule(0.0, upright=True, solid=True)]),
    )
    for place, gap in enumerate(gaps):
        index, estimate = results.index(gap.first), gap.estimate
        if estimate.low is not None and estimate.high is not None:
            marks.append(
                Line(
                    [(scale * estimate.low, place), (scale * estimate.high, place)],
                    index,
                    "interval",
                )
            )
        marks.append(
            Dots(
                [(scale * estimate.mean, place)],
                index,
                hollow=results.better(gap, direction) is None,
            )
        )
    names = tuple(results.comparison.label(gap.first) for gap in gaps)
    side = "better →" if direction == "higher" else "← better"
    points = " (points)" if unit == "share" else unit_suffix(unit)
    label = f"difference from {results.comparison.label(gaps[0].second)}{points}, {side}"
    return Chart(sentence(title), Axis(label, text=_signed), Axis("", names=names), marks)


def forest(results: Results, charts: list[tuple[str, Chart]], picture: str) -> list[Part]:
    """Returns the section with the forest plots and tables of paired differences.

    Args:
      results: the scores of the comparison.
      charts: result of `forest_charts`.
      picture: file name of the PNG, which Markdown shows instead of the SVGs; "" without a PNG.
    """
    parts: list[Part] = [Heading("Differences from the reference arm")]
    if charts:
        drawn = []
        for name, chart in charts:
            alternative = f"{chart.title}: each arm with 95 % intervals, {chart.x.label}"
            drawn.append(
                svg.draw(chart, "forest" + "".join(filter(str.isalnum, name)), alternative, 420)
            )
        caption = (
            "Differences between runs with the same seed, with 95 % intervals. Filled: the interval"
            " excludes zero. Hollow: it includes zero, or runs diverged. The intervals are not"
            f" corrected for the {sum(len(chart.y.names) for _, chart in charts)} comparisons."
        )
        parts.append(
            Figure(
                drawn,
                caption,
                elsewhere=f"The bottom plot of the figure above ({picture}) shows the first of"
                " them.",
            )
        )
    tables = [
        table
        for task, metrics in results.metrics(own=False).items()
        if (table := _pairs(results, task, metrics[0]))
    ]
    if not tables:
        return (
            [*parts, Paragraph("Fewer than two arms have a score on the shared task so far.")]
            if results.has_shared_task
            else []
        )
    return parts + (
        list(tables)
        if len(tables) == 1
        else [Details("Tables of paired differences", list(tables), printed=True)]
    )


def _pairs(results: Results, task: str, metric: str) -> Table | None:
    """Differences between arms, and from their untrained models, on a shared task."""
    pairs = results.pairs(task, metric)
    untrained = [(arm, results.untrained(arm)) for arm in results.arms(task, metric)]
    pairs += [pair for pair in untrained if results.score(pair[1], task, metric)]
    if not pairs:
        return None
    label, row = results.comparison.label, results.row(task, metric)
    gaps = [results.gap(*pair, task, metric) for pair in pairs]
    places = number_format.places([gap.estimate for gap in gaps if gap], row.unit)
    rows = []
    for (first, second), gap in zip(pairs, gaps, strict=True):
        title = f"{label(first)} against {label(second)}"
        if gap is None:
            rows.append([title, *[number_format.MISSING] * 5, "? inconclusive (no seed in common)"])
            continue
        one, against = results.score(first, task, metric), results.score(second, task, metric)
        assert one and against
        common = sorted(one.values.keys() & against.values.keys())
        by_seed = ", ".join(
            number_format.signed(one.values[seed] - against.values[seed], row.unit, places)
            for seed in common
        )
        leads = results.better(gap, row.better)
        diverged = results.diverged(first, second)
        verdict = (
            "? inconclusive" + (f" ({diverged})" if diverged else "")
            if leads is None
            else f"{label(first if leads else second)} better"
        )
        numbers = [number_format.probability(gap.p), number_format.effect(gap.effect)]
        rows.append(
            [
                title,
                by_seed,
                *number_format.estimate(gap.estimate, row.unit, places, signed=True),
                *numbers,
                verdict,
            ]
        )
    mark = " (points)" if row.unit == "share" else ""
    columns = [
        ("First against second", "l"),
        (f"By seed{mark}", "r"),
        (f"Mean{mark}", "r"),
        INTERVAL,
        ("p", "r"),
        ("Effect size", "r"),
        ("Verdict", "l"),
    ]
    caption = (
        f"Differences (first {number_format.MINUS} second) in {metric_name(metric)},"
        f" {task_name(task)}, between runs with the same seed. Inconclusive: the interval"
        " includes zero, or runs diverged."
        f" The intervals and p-values are not corrected for the {len(rows)} comparisons;"
        " on average, one in twenty intervals misses the true difference."
    )
    return Table(columns, rows, caption)


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + number_format.tick(value)
