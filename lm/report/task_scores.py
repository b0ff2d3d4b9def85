"""Scores: dot plot on the shared task, table by shared task, and tables of each task."""

from typing import Any

from lm.report import number_format, svg
from lm.report.chart import Axis, Chart, Dots, Line
from lm.report.page import Details, Figure, Heading, Paragraph, Part, Strong, Table
from lm.report.results import INTERVAL, Results, metric_name, sentence, task_name, unit_suffix
from lm.report.scores import Score

_NONE = "The experiment has no evaluation task that is shared by all arms."


def dot_chart(results: Results) -> Chart | None:
    """Returns the scores of arms, untrained models and baselines on the first shared task."""
    for task, metrics in results.metrics(own=False).items():
        scores = [
            score
            for entry in results.entries(task)
            if (score := results.score(entry, task, metrics[0]))
        ]
        if not scores:
            continue
        unit, marks = scores[0].unit, list[Any]()
        scale = 100.0 if unit == "share" else 1.0
        for place, score in enumerate(scores):
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
        names = tuple(results.comparison.label(score.arm) for score in scores)
        label = f"{task_name(task)}: {metric_name(metrics[0])}{unit_suffix(unit)}"
        return Chart("", Axis(label, text=number_format.tick), Axis("", names=names), marks)
    return None


def dots(results: Results, chart: Chart | None, picture: str, above: bool) -> list[Part]:
    """Returns the section with the dot plot.

    Args:
      results: the scores.
      chart: result of `dot_chart`; None without a chart.
      picture: file name of the PNG.
      above: whether Markdown already shows the PNG with the learning curves.
    """
    title = Heading("The shared evaluation task")
    if chart is None:
        text = (
            "No finished run has been evaluated on the shared task yet."
            if results.has_shared_task
            else _NONE
        )
        return [title, Paragraph(text)]
    drawn = svg.draw(
        chart,
        "dots",
        f"{chart.x.label} of each arm, untrained model and baseline with 95 % intervals",
        440,
    )
    caption = (
        f"{sentence(chart.x.label)}. Mean and 95 % interval on an evaluation task that is shared by"
        " all arms. Small ticks above a dot: individual seeds. Hollow grey: untrained models and"
        " baselines. The numbers are in a table below."
        + results.budget_note(list(results.comparison.arms))
    )
    if above:
        return [
            title,
            Figure(
                [drawn],
                caption,
                elsewhere=f"{caption} The plot is below the curves in the figure above"
                f" ({picture}).",
            ),
        ]
    return [title, Figure([drawn], caption, picture)]


def matrix(results: Results) -> list[Part]:
    """Returns the section with the table of arms by shared tasks."""
    title, keys = (
        Heading("Scores by shared task"),
        [(task, metrics[0]) for task, metrics in results.metrics(own=False).items()],
    )
    arms = list(
        dict.fromkeys(
            arm
            for key in keys
            for arm in [*results.comparison.arms, *results.entries(key[0])]
            if results.score(arm, *key)
        )
    )
    if not arms:
        return (
            [title, Paragraph("There is no score on a shared task yet.")]
            if results.has_shared_task
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
        scores = {arm: score for arm in arms if (score := results.score(arm, task, metric))}
        places, best = (
            number_format.places(
                [score.estimate for score in scores.values()], results.row(task, metric).unit
            ),
            _best(results, task, metric),
        )
        column = []
        for arm in arms:
            if arm not in scores:
                column.append(number_format.MISSING)
                continue
            text = _stacked(scores[arm], places)
            column.append(Strong(text) if arm == best else text)
        cells.append(column)
    rows = [
        [results.comparison.label(arm), *(column[place] for column in cells)]
        for place, arm in enumerate(arms)
    ]
    caption = (
        "The evaluation tasks that are shared by all arms, each with its first metric: mean and"
        " 95 % interval. Bold: the best arm, if the interval of its difference from every other arm"
        " excludes zero, not corrected for multiple comparisons; none if runs diverged."
        " ↓ lower is better, ↑ higher is better."
    )
    return [
        title,
        Table(
            columns,
            rows,
            caption + results.budget_note(arms) + results.task_notes(task for task, _ in keys),
        ),
    ]


def _best(results: Results, task: str, metric: str) -> str:
    """The arm that is significantly better than every other; "" if none is."""
    direction = results.row(task, metric).better
    scored = {
        arm: score.estimate.mean
        for arm in results.arms(task, metric)
        if (score := results.score(arm, task, metric))
    }
    order = sorted(scored, key=lambda arm: scored[arm], reverse=direction == "higher")
    if results.budget_note(order) or results.diverged(*results.comparison.arms):
        return ""
    for other in order[1:]:  # the second-best arm first, which nearly always decides
        gap = results.gap(order[0], other, task, metric)
        if gap is None or not results.better(gap, direction):
            return ""
    return order[0] if len(order) > 1 else ""


def details(results: Results, own: bool, title: str) -> list[Part]:
    """Returns the section with a table per task: arms and baselines on the same examples.

    Args:
      results: the scores of the comparison.
      own: True for the tasks of the arms' own objectives, False for tasks shared by all arms.
      title: heading of the section.
    """
    tables = [_table(results, task, metrics, own) for task, metrics in results.metrics(own).items()]
    if not tables:
        return [Heading(title), Paragraph("There are no scores yet.")]
    note = (
        "The rows of one table are the same quantity on the same held-out text and can be compared."
        " Different tables cannot be compared."
    )
    parts = [
        Details(
            f"{sentence(task_name(task))} by subset of examples",
            [_by_part(results, task, metrics, own)],
            printed=True,
        )
        for task, metrics in results.metrics(own, parts=True).items()
    ]
    return [Heading(title), *([Paragraph(note)] if own else []), *tables, *parts]


def _table(results: Results, task: str, metrics: list[str], own: bool) -> Table:
    arms, noun = results.entries(task, own), "tokens" if results.counts_tokens(task) else "examples"
    columns, counts = [(sentence(task_name(task)), "l"), ("Seeds", "r")], dict[str, set[int]]()
    seeds, cells = dict.fromkeys(arms, 0), {arm: list[str]() for arm in arms}
    for metric in metrics:
        columns += [(_column(results, task, metric), "r"), INTERVAL]
        unit = results.row(task, metric).unit
        scores = {arm: score for arm in arms if (score := results.score(arm, task, metric))}
        places = number_format.places([score.estimate for score in scores.values()], unit)
        for arm in arms:
            if arm in scores:
                cells[arm] += number_format.estimate(scores[arm].estimate, unit, places)
                seeds[arm] = max(seeds[arm], scores[arm].estimate.n)
                counts.setdefault("bytes" if unit.endswith("/byte") else noun, set()).add(
                    scores[arm].count
                )
            else:
                cells[arm] += [number_format.MISSING, number_format.MISSING]
    rows = [
        [results.comparison.label(arm), str(seeds[arm] or number_format.MISSING), *cells[arm]]
        for arm in arms
    ]
    # The count of a loss per byte is the number of bytes of the same text.
    spans = [f"{_span(numbers)} {unit}" for unit, numbers in counts.items()]
    size = spans[0] + (f" ({', '.join(spans[1:])})" if spans[1:] else "")
    caption = (
        f"On {size} of documents held out from training. ↓ lower is better, ↑ higher is better."
    )
    return Table(columns, rows, caption + results.budget_note(arms) + results.task_notes([task]))


def _by_part(results: Results, task: str, metrics: list[str], own: bool) -> Table:
    """Scores by subset of a task's examples: phenomena of minimal pairs, lengths, depths."""
    arms = [
        arm
        for arm in results.entries(task, own)
        if any(results.score(arm, task, metric) for metric in metrics)
    ]
    columns, rows = (
        [
            ("Subset", "l"),
            ("Examples", "r"),
            *((results.comparison.label(arm), "r") for arm in arms),
        ],
        [],
    )
    several = len({metric.split("/")[0] for metric in metrics}) > 1
    for metric in metrics:
        base, _, subset = metric.partition("/")
        scores = {arm: score for arm in arms if (score := results.score(arm, task, metric))}
        places = number_format.places(
            [score.estimate for score in scores.values()], results.row(task, metric).unit
        )
        cells = [
            _stacked(scores[arm], places) if arm in scores else number_format.MISSING
            for arm in arms
        ]
        name = metric_name(subset) + (f" ({metric_name(base)})" if several else "")
        rows.append([name, _span({score.count for score in scores.values()}), *cells])
    names = ", ".join(
        dict.fromkeys(_column(results, task, metric, metric.split("/")[0]) for metric in metrics)
    )
    return Table(
        columns,
        rows,
        f"{names}: mean and 95 % interval, not corrected for the {len(metrics)} subsets.",
    )


def _column(results: Results, task: str, metric: str, name: str = "") -> str:
    """A metric's name with its unit and direction."""
    row = results.row(task, metric)
    # "Bits per byte" already includes its unit.
    unit = f" ({row.unit})" if "/" in row.unit and row.unit.replace("/", "_per_") != metric else ""
    # No line break between a header and its arrow.
    arrow = "↓" if row.better == "lower" else "↑"
    return f"{sentence(metric_name(name or metric))}{unit}\u00a0{arrow}"


def _stacked(score: Score, places: int) -> str:
    """The mean, and below it the interval if there is one."""
    return "\n".join(
        text
        for text in number_format.estimate(score.estimate, score.unit, places)
        if text != number_format.MISSING
    )


def _span(counts: set[int]) -> str:
    return " to ".join(
        number_format.count(value) for value in dict.fromkeys([min(counts), max(counts)])
    )
