"""The sections of the report in order; those on arms, budgets and excluded runs are here."""

import math
from dataclasses import dataclass

from lm.report import (
    curves,
    differences,
    energy,
    hypothesis_section,
    number_format,
    reproduction,
    samples,
    scaling,
    task_scores,
    tuning,
)
from lm.report.chart import Chart
from lm.report.comparison import Comparison
from lm.report.page import Details, Heading, Items, Page, Paragraph, Part, Table
from lm.report.results import Results
from lm.report.verdicts import HypothesisResult

# Column header of each budget, and its name in a sentence.
MATCHED = {
    "tokens": ("Token positions", "token positions"),
    "loss_tokens": ("Loss targets", "loss targets"),
    "flops": ("Training FLOPs", "training FLOPs"),
}


@dataclass(frozen=True, slots=True)
class Charts:
    """Charts that both the PNG and the page show.

    Attributes:
      panels: learning curves, one panel per arm.
      dots: scores on the first shared task; None without a shared task.
      forest: differences from the reference arm, by name.
    """

    panels: list[curves.Panel]
    dots: Chart | None
    forest: list[tuple[str, Chart]]


def charts(results: Results) -> Charts:
    """Returns the charts of the scores."""
    return Charts(
        curves.panels(results), task_scores.dot_chart(results), differences.forest_charts(results)
    )


def page(results: Results, tested: list[HypothesisResult], charts: Charts, picture: str) -> Page:
    """Returns the report.

    Args:
      results: the scores.
      tested: the results of the hypotheses.
      charts: the charts of the scores.
      picture: file name of the PNG, which Markdown shows instead of the SVGs; "" without a PNG.
    """
    comparison = results.comparison
    record = comparison.record
    facts = [
        str(record.get("config") or ""),
        "seeds " + ", ".join(map(str, comparison.seeds)),
        f"started {number_format.timestamp(record['started'])} UTC"
        if record.get("started")
        else "",
    ]
    above = any(panel.seeds for panel in charts.panels)
    parts: list[Part] = [
        *([Paragraph(str(record["question"]), "lead")] if record.get("question") else []),
        Paragraph(" · ".join(filter(None, facts)), "small"),
        *hypothesis_section.section(results, tested),
        *_arms(comparison),
        *_budgets(comparison),
        *curves.section(charts.panels, picture),
        *tuning.section(results),
        *task_scores.dots(results, charts.dots, picture, above),
        *differences.forest(results, charts.forest, picture),
        *task_scores.matrix(results),
        *task_scores.details(results, True, "Objective-specific evaluation tasks"),
        *task_scores.details(results, False, "Shared evaluation tasks in full"),
        *scaling.section(results),
        *samples.section(results),
        *energy.section(results),
        *_unfinished(comparison),
        *reproduction.reproduce(comparison),
        *reproduction.data(comparison),
        *reproduction.machine(comparison),
        *reproduction.reading(comparison),
    ]
    return Page(str(record.get("name") or "Comparison"), parts)


def _arms(comparison: Comparison) -> list[Part]:
    rows = []
    for arm, description in comparison.arms.items():
        sizes = sorted(
            {
                size
                for run in comparison.finished(arm)
                if (size := run.number("parameters")) is not None
            }
        )
        shown = (
            " to ".join(map(number_format.count, dict.fromkeys([sizes[0], sizes[-1]])))
            if sizes
            else number_format.MISSING
        )
        kinds = [
            str(description.get(key) or number_format.MISSING) for key in ("objective", "model")
        ]
        rows.append(
            [
                comparison.label(arm),
                *kinds,
                shown,
                _rates(comparison, arm),
                f"{len(comparison.finished(arm))} of {len(comparison.seeds)}",
            ]
        )
    columns = [
        ("Arm", "l"),
        ("Objective", "l"),
        ("Model", "l"),
        ("Parameters", "r"),
        ("Learning rate", "r"),
        ("Seeds done", "r"),
    ]
    described = [
        f"{comparison.label(arm)}: {description['describe']}"
        for arm, description in comparison.arms.items()
        if description.get("describe")
    ]
    descriptions: list[Part] = [Items(described)] if described else []
    if len(described) > curves.MANY:
        descriptions = [Details("Description of each arm", [Items(described)], printed=True)]
    return [Heading("What was compared"), Table(columns, rows), *descriptions]


def _rates(comparison: Comparison, arm: str) -> str:
    """The learning rate of an arm's runs, from their configs."""
    rates = set()
    for run in comparison.runs:
        config = run.record.get("config") if run.arm == arm else None
        optimizer = config.get("optimizer") if isinstance(config, dict) else None
        rate = optimizer.get("learning_rate") if isinstance(optimizer, dict) else None
        if isinstance(rate, int | float):
            rates.add(rate)
    return ", ".join(f"{rate:g}" for rate in sorted(rates)) or number_format.MISSING


def _budgets(comparison: Comparison) -> list[Part]:
    def mean(arm: str, key: str) -> float | None:
        values = [
            value for run in comparison.finished(arm) if (value := run.number(key)) is not None
        ]
        return math.fsum(values) / len(values) if values else None

    planned, rows = comparison.record.get("planned") or {}, []
    for arm in comparison.arms:
        plan = planned.get(arm) or {}
        amounts = []
        for key in MATCHED:
            text = number_format.flops if key == "flops" else number_format.count
            amounts.append(
                text(mean(arm, key)) + (f"\nplanned {text(plan[key])}" if plan.get(key) else "")
            )
        speed = [
            number_format.duration(mean(arm, "seconds")),
            number_format.plain(mean(arm, "tokens_per_second")),
        ]
        fractions = [
            number_format.percentage(mean(arm, "padding")),
            number_format.percentage(mean(arm, "input_wait_share"), 2),
        ]
        rows.append(
            [
                comparison.label(arm),
                number_format.count(mean(arm, "steps")),
                *amounts,
                *speed,
                *fractions,
            ]
        )
    budget = comparison.record.get("budget") or {}
    matched, value = budget.get("matched"), budget.get("value")
    paragraph = "The matched quantity is not recorded."
    if matched in MATCHED:
        shown = number_format.flops(value) if matched == "flops" else number_format.count(value)
        groups = dict(sorted(comparison.arms_by_multiple().items()))
        multiples = (
            ""
            if list(groups) == [1.0]
            else f" × {', '.join(f'{multiple:g}' for multiple in groups)}"
        )
        amount = "" if value is None else f", {shown}{multiples} per run"
        which = " with the same multiple of the budget" if len(groups) > 1 else ""
        paragraph = (
            f"Matched across arms{which}: {MATCHED[matched][1]}{amount}. The other quantities"
            " differ between objectives."
        )
        paragraph += "".join(
            _mismatch(
                comparison, matched, arms, f" with {multiple:g} × the budget" * (len(groups) > 1)
            )
            for multiple, arms in groups.items()
        )
    heads = [head + (" (matched)" if key == matched else "") for key, (head, _) in MATCHED.items()]
    columns = [
        ("Arm", "l"),
        ("Steps", "r"),
        *((head, "r") for head in [*heads, "Time per run", "Tokens/s", "Padding", "Input wait"]),
    ]
    caption = (
        "Means over the finished seeds of each arm. Token positions are those of all rows, of both"
        " the input and the output of an encoder-decoder, including padding. Padding is measured on"
        " the first rows. FLOPs are computed by formula and include a generator's. Loss targets are"
        " predicted tokens, tokens classified by a discriminator, and the labels of a pair loss; a"
        " token that is both predicted and classified counts twice. Input wait: percentage of the"
        " time in which the training step waited for data."
    )
    return [Heading("Budgets"), Paragraph(paragraph), Table(columns, rows, caption)]


def _mismatch(comparison: Comparison, key: str, arms: list[str], which: str) -> str:
    """A warning if the matched quantity differs between finished runs by more than a batch.

    `which` describes these arms.
    """
    values = [
        value
        for run in comparison.runs
        if run.done and run.arm in arms and (value := run.number(key)) is not None
    ]
    if not values or min(values) <= 0 or max(values) / min(values) <= 1.01:
        return ""
    difference = number_format.percentage(max(values) / min(values) - 1)
    return (
        f" However, the finished runs{which} differ in this quantity by up to {difference}, so they"
        " are not matched."
    )


def _unfinished(comparison: Comparison) -> list[Part]:
    title, runs = Heading("Excluded runs"), [run for run in comparison.runs if not run.done]
    if not runs:
        return [title, Paragraph("None: every run finished.")]
    rows = []
    for run in runs:
        error = str(run.record.get("error") or number_format.MISSING)
        rows.append(
            [
                comparison.label(run.arm),
                str(run.seed),
                run.status,
                number_format.count(run.number("tokens")),
                error,
            ]
        )
    columns = [("Arm", "l"), ("Seed", "r"), ("Status", "l"), ("Tokens seen", "r"), ("Error", "l")]
    return [
        title,
        Table(
            columns, rows, "These runs are excluded from all scores, but their energy is counted."
        ),
    ]
