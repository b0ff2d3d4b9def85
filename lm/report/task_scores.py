"""What was measured: dot plot, forest of differences, the table by task, and the details of each task."""

from typing import Any

from lm.report import figures, svg
from lm.report.chart import Axis, Chart, Dots, Line, Rule
from lm.report.page import Details, Figure, Heading, Paragraph, Part, Strong, Table
from lm.report.results import Gap, Results, metric_name, sentence, task_name
from lm.report.scores import Score

_INTERVAL = ("95 % interval", "r")
_NONE = "The experiment asks no yardstick that all arms share, whatever they were trained on."
_FEW = 6  # arms up to which differences are drawn on every shared metric, not the first of each task alone


def dot_chart(results: Results) -> Chart | None:
    """Every arm, untrained model and baseline on the first shared yardstick."""
    for task, metrics in results.metrics(own=False).items():
        found = [
            each for arm in results.who(task) if (each := results.score(arm, task, metrics[0]))
        ]
        if not found:
            continue
        unit, marks = found[0].unit, list[Any]()
        scale = 100.0 if unit == "share" else 1.0
        for place, score in enumerate(found):
            index, estimate = (
                results.index(score.arm) if score.kind == "model" else None,
                score.estimate,
            )
            if estimate.low is not None and estimate.high is not None:
                marks.append(
                    Line(
                        [(scale * estimate.low, place), (scale * estimate.high, place)],
                        index,
                        "interval",
                    )
                )
            if len(score.values) > 1:
                marks.append(
                    Dots([(scale * value, place) for value in score.values.values()], index, "tick")
                )
            marks.append(Dots([(scale * estimate.mean, place)], index, hollow=index is None))
        names = tuple(results.comparison.label(score.arm) for score in found)
        label = f"{task_name(task)}: {metric_name(metrics[0])}{_in(unit)}"
        return Chart("", Axis(label, text=figures.tick), Axis("", names=names), marks)
    return None


def dots(results: Results, chart: Chart | None, picture: str, above: bool) -> list[Part]:
    """The dot-and-interval plot. `above`: the curves stand in the same PNG, `picture`, which Markdown then shows there."""
    title = Heading("The shared yardstick")
    if chart is None:
        said = (
            "No finished run has been measured on the shared yardstick yet."
            if results.shares
            else _NONE
        )
        return [title, Paragraph(said)]
    shown = svg.draw(
        chart,
        "dots",
        f"{chart.x.label} of each arm, untrained model and baseline with 95 % intervals",
        440,
    )
    caption = (
        f"{sentence(chart.x.label)}. Mean and 95 % interval on a yardstick that all arms share; the small ticks above a dot are single "
        "seeds. Hollow grey: untrained models and baselines. The numbers stand in a table below."
        + results.mixed(list(results.comparison.arms))
    )
    if above:
        return [
            title,
            Figure(
                [shown],
                caption,
                elsewhere=f"{caption} It stands below the curves in the picture above ({picture}).",
            ),
        ]
    return [title, Figure([shown], caption, picture)]


def forest_charts(results: Results) -> list[tuple[str, Chart]]:
    """For each shared metric every arm's difference from the reference arm: its name and the picture."""
    few, found = len(results.comparison.arms) <= _FEW, []
    for task, metrics in results.metrics(own=False).items():
        for metric in metrics if few else metrics[:1]:
            groups = results.groups(results.arms(task, metric))
            for times, arms in groups.items():
                reference, row = results.reference(arms), results.row(task, metric)
                gaps = [
                    gap
                    for arm in arms
                    if arm != reference and (gap := results.gap(arm, reference, task, metric))
                ]
                name, title = f"{task}-{metric}", f"{task_name(task)}: {metric_name(metric)}"
                if len(groups) > 1:
                    name, title = f"{name}-{times:g}", f"{title}, {times:g} × the budget"
                if gaps:
                    found.append((name, _forest(results, gaps, title, row.unit, row.better)))
    return found


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
    points = " (points)" if unit == "share" else _in(unit)
    label = f"less {results.comparison.label(gaps[0].second)}{points}, {side}"
    return Chart(sentence(title), Axis(label, text=_signed), Axis("", names=names), marks)


def forest(results: Results, charts: list[tuple[str, Chart]], picture: str) -> list[Part]:
    """The forest plot of paired differences, and below it their table."""
    parts: list[Part] = [Heading("Differences from the reference arm")]
    if charts:
        drawn = []
        for name, chart in charts:
            alternative = (
                f"{chart.title}: difference of each arm, {chart.x.label}, with 95 % intervals"
            )
            drawn.append(
                svg.draw(chart, "forest" + "".join(filter(str.isalnum, name)), alternative, 420)
            )
        caption = (
            "Paired differences and their 95 % intervals, of runs of one seed. Filled: the interval leaves out zero; hollow: it does not, "
            "or runs diverged. "
            f"The intervals are not corrected for their number, {sum(len(chart.y.names) for _, chart in charts)}."
        )
        parts.append(
            Figure(
                drawn,
                caption,
                elsewhere=f"The lowest part of the picture above ({picture}) draws the first of them.",
            )
        )
    tables = [
        table
        for task, metrics in results.metrics(own=False).items()
        if (table := _pairs(results, task, metrics[0]))
    ]
    if not tables:
        return (
            [*parts, Paragraph("There are no two arms with a score on the shared yardstick yet.")]
            if results.shares
            else []
        )
    return parts + (
        list(tables)
        if len(tables) == 1
        else [Details("Paired differences in numbers", list(tables), printed=True)]
    )


def _pairs(results: Results, task: str, metric: str) -> Table | None:
    """Differences on a shared yardstick: arm against arm, and against the untrained model of its kind."""
    pairs = results.pairs(task, metric)
    held = [(arm, results.untrained(arm)) for arm in results.arms(task, metric)]
    pairs += [pair for pair in held if results.score(pair[1], task, metric)]
    if not pairs:
        return None
    label, row = results.comparison.label, results.row(task, metric)
    gaps = [results.gap(*pair, task, metric) for pair in pairs]
    places = figures.places([gap.estimate for gap in gaps if gap], row.unit)
    rows = []
    for (first, second), gap in zip(pairs, gaps, strict=True):
        title = f"{label(first)} against {label(second)}"
        if gap is None:
            rows.append([title, *[figures.MISSING] * 5, "? inconclusive (no seed in common)"])
            continue
        one, against = results.score(first, task, metric), results.score(second, task, metric)
        assert one and against
        common = sorted(one.values.keys() & against.values.keys())
        each = ", ".join(
            figures.signed(one.values[seed] - against.values[seed], row.unit, places)
            for seed in common
        )
        leads = results.better(gap, row.better)
        lost = results.diverged(first, second)
        verdict = (
            "? inconclusive" + (f" ({lost})" if lost else "")
            if leads is None
            else f"{label(first if leads else second)} better"
        )
        numbers = [figures.probability(gap.p), figures.effect(gap.effect)]
        rows.append(
            [
                title,
                each,
                *figures.estimate(gap.estimate, row.unit, places, signed=True),
                *numbers,
                verdict,
            ]
        )
    mark = " (points)" if row.unit == "share" else ""
    columns = [("First against second", "l"), (f"By seed{mark}", "r"), (f"Mean{mark}", "r"), _INTERVAL, ("p", "r"), ("Effect size", "r"),
               ("Verdict", "l")]  # fmt: skip
    caption = (
        f"Differences (first {figures.MINUS} second) in {metric_name(metric)}, {task_name(task)}, between runs of the same seed. "
        "Inconclusive: the interval holds zero, or runs diverged. "
        f"Intervals and p-values are not corrected for their number, {len(rows)}: of twenty, one misses by chance."
    )
    return Table(columns, rows, caption)


def matrix(results: Results) -> list[Part]:
    """Arms by shared yardsticks."""
    title, keys = (
        Heading("Table by task"),
        [(task, metrics[0]) for task, metrics in results.metrics(own=False).items()],
    )
    arms = list(
        dict.fromkeys(
            arm
            for key in keys
            for arm in [*results.comparison.arms, *results.who(key[0])]
            if results.score(arm, *key)
        )
    )
    if not arms:
        return (
            [title, Paragraph("Nothing has been measured on a shared yardstick yet.")]
            if results.shares
            else []
        )
    columns = [
        ("", "l"),
        *(
            (f"{sentence(task_name(task))}: {_column(results, task, metric)}", "r")
            for task, metric in keys
        ),
    ]
    cells: list[list[str]] = []
    for task, metric in keys:
        found = {arm: score for arm in arms if (score := results.score(arm, task, metric))}
        places, best = (
            figures.places(
                [score.estimate for score in found.values()], results.row(task, metric).unit
            ),
            _best(results, task, metric),
        )
        column = []
        for arm in arms:
            if arm not in found:
                column.append(figures.MISSING)
                continue
            text = _stacked(found[arm], places)
            column.append(Strong(text) if arm == best else text)
        cells.append(column)
    rows = [
        [results.comparison.label(arm), *(column[place] for column in cells)]
        for place, arm in enumerate(arms)
    ]
    caption = (
        "The yardsticks that all arms share, each by its first metric: mean and 95 % interval. Bold: the best arm, where the interval of "
        "its difference from every other arm leaves out zero, not corrected for their number; "
        "none where runs diverged. ↓ lower is better, ↑ higher is better."
    )
    return [
        title,
        Table(
            columns, rows, caption + results.mixed(arms) + results.note(task for task, _ in keys)
        ),
    ]


def _best(results: Results, task: str, metric: str) -> str:
    """The arm that is better than each other beyond doubt; "" if none is."""
    direction = results.row(task, metric).better
    scored = {
        arm: score.estimate.mean
        for arm in results.arms(task, metric)
        if (score := results.score(arm, task, metric))
    }
    order = sorted(scored, key=lambda arm: scored[arm], reverse=direction == "higher")
    if results.mixed(order) or results.diverged(*results.comparison.arms):
        return ""
    for other in order[1:]:  # the next best first: it decides nearly always
        gap = results.gap(order[0], other, task, metric)
        if gap is None or not results.better(gap, direction):
            return ""
    return order[0] if len(order) > 1 else ""


def details(results: Results, own: bool, title: str) -> list[Part]:
    """A table for each task: every arm measured on it beside the baselines on the same examples."""
    found = [_table(results, task, metrics, own) for task, metrics in results.metrics(own).items()]
    if not found:
        return [Heading(title), Paragraph("Nothing has been measured yet.")]
    note = "Rows of one table are the same quantity on the same held-out text and may be compared; one table may not be with another."
    parts = [
        Details(
            f"{sentence(task_name(task))} by part of its examples",
            [_by_part(results, task, metrics, own)],
            printed=True,
        )
        for task, metrics in results.metrics(own, parts=True).items()
    ]
    return [Heading(title), *([Paragraph(note)] if own else []), *found, *parts]


def _table(results: Results, task: str, metrics: list[str], own: bool) -> Table:
    arms, noun = results.who(task, own), "tokens" if results.counts_tokens(task) else "examples"
    columns, counts = [(sentence(task_name(task)), "l"), ("Seeds", "r")], dict[str, set[int]]()
    seeds, cells = dict.fromkeys(arms, 0), {arm: list[str]() for arm in arms}
    for metric in metrics:
        columns += [(_column(results, task, metric), "r"), _INTERVAL]
        unit = results.row(task, metric).unit
        found = {arm: each for arm in arms if (each := results.score(arm, task, metric))}
        places = figures.places([each.estimate for each in found.values()], unit)
        for arm in arms:
            if arm in found:
                cells[arm] += figures.estimate(found[arm].estimate, unit, places)
                seeds[arm] = max(seeds[arm], found[arm].estimate.n)
                counts.setdefault("bytes" if unit.endswith("/byte") else noun, set()).add(
                    found[arm].count
                )
            else:
                cells[arm] += [figures.MISSING, figures.MISSING]
    rows = [
        [results.comparison.label(arm), str(seeds[arm] or figures.MISSING), *cells[arm]]
        for arm in arms
    ]
    # A loss by byte counts the bytes of the same text.
    spans = [_span(found) + f" {what}" for what, found in counts.items()]
    size = spans[0] + (f" ({', '.join(spans[1:])})" if spans[1:] else "")
    caption = (
        f"On {size} of documents held out from training. ↓ lower is better, ↑ higher is better."
    )
    return Table(columns, rows, caption + results.mixed(arms) + results.note([task]))


def _by_part(results: Results, task: str, metrics: list[str], own: bool) -> Table:
    """Parts of a task's examples by arm: phenomena of minimal pairs, lengths, depths."""
    arms = [
        arm
        for arm in results.who(task, own)
        if any(results.score(arm, task, metric) for metric in metrics)
    ]
    columns, rows = (
        [("Part", "l"), ("Examples", "r"), *((results.comparison.label(arm), "r") for arm in arms)],
        [],
    )
    several = len({metric.split("/")[0] for metric in metrics}) > 1
    for metric in metrics:
        whole, _, part = metric.partition("/")
        found = {arm: score for arm in arms if (score := results.score(arm, task, metric))}
        places = figures.places(
            [score.estimate for score in found.values()], results.row(task, metric).unit
        )
        cells = [_stacked(found[arm], places) if arm in found else figures.MISSING for arm in arms]
        name = metric_name(part) + (f" ({metric_name(whole)})" if several else "")
        rows.append([name, _span({score.count for score in found.values()}), *cells])
    what = ", ".join(
        dict.fromkeys(_column(results, task, metric, metric.split("/")[0]) for metric in metrics)
    )
    return Table(
        columns,
        rows,
        f"{what}: mean and 95 % interval, not corrected for the number of parts, {len(metrics)}.",
    )


def _column(results: Results, task: str, metric: str, name: str = "") -> str:
    """A metric's name with its unit and direction."""
    row = results.row(task, metric)
    # "Bits per byte" says its unit already.
    unit = f" ({row.unit})" if "/" in row.unit and row.unit.replace("/", "_per_") != metric else ""
    # No line break between a head and its arrow.
    return f"{sentence(metric_name(name or metric))}{unit}\u00a0{'↓' if row.better == 'lower' else '↑'}"


def _stacked(score: Score, places: int) -> str:
    """The mean, and below it the interval where there is one."""
    return "\n".join(
        text
        for text in figures.estimate(score.estimate, score.unit, places)
        if text != figures.MISSING
    )


def _span(counts: set[int]) -> str:
    return " to ".join(figures.count(value) for value in dict.fromkeys([min(counts), max(counts)]))


def _in(unit: str) -> str:
    return " (%)" if unit == "share" else f" ({unit})" if "/" in unit else ""


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + figures.tick(value)
