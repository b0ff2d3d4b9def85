"""What the report says, part by part, in order; arms, budgets and runs are written here, the rest each in a module of its own."""

import math
from dataclasses import dataclass

from lm.report import (
    curves,
    energy,
    figures,
    hypotheses,
    samples,
    scaling,
    setting,
    task_scores,
    tuning,
)
from lm.report.chart import Chart
from lm.report.page import Details, Heading, Items, Page, Paragraph, Part, Table
from lm.report.read import Comparison
from lm.report.results import Results
from lm.report.scores import Judged

# The head of the budget's column, and the words in a sentence.
MATCHED = {
    "tokens": ("Token positions", "token positions"),
    "loss_tokens": ("Loss-bearing targets", "loss-bearing targets"),
    "flops": ("Training FLOPs", "training FLOPs"),
}


@dataclass(frozen=True, slots=True)
class Drawn:
    """What the PNG shows as well as the page."""

    panels: list[curves.Panel]
    dots: Chart | None
    forest: list[tuple[str, Chart]]


def drawn(results: Results) -> Drawn:
    return Drawn(
        curves.panels(results), task_scores.dot_chart(results), task_scores.forest_charts(results)
    )


def page(results: Results, judged: list[Judged], pictures: Drawn, picture: str) -> Page:
    """The whole report. `picture` is the PNG's file name, which Markdown shows in place of the SVGs."""
    comparison = results.comparison
    about = comparison.about
    facts = [
        str(about.get("config") or ""),
        "seeds " + ", ".join(map(str, comparison.seeds)),
        f"started {figures.moment(about['started'])} UTC" if about.get("started") else "",
    ]
    above = any(panel.seeds for panel in pictures.panels)
    parts: list[Part] = [
        *([Paragraph(str(about["question"]), "lead")] if about.get("question") else []),
        Paragraph(" · ".join(filter(None, facts)), "small"),
        *hypotheses.section(results, judged),
        *_arms(comparison),
        *_budgets(comparison),
        *curves.section(pictures.panels, picture),
        *tuning.section(results),
        *task_scores.dots(results, pictures.dots, picture, above),
        *task_scores.forest(results, pictures.forest, picture),
        *task_scores.matrix(results),
        *task_scores.details(results, True, "Each objective on its own yardstick"),
        *task_scores.details(results, False, "The shared yardsticks in full"),
        *scaling.section(results),
        *samples.section(results),
        *energy.section(results),
        *_unfinished(comparison),
        *setting.reproduce(comparison),
        *setting.data(comparison),
        *setting.machine(comparison),
        *setting.reading(comparison),
    ]
    return Page(str(about.get("name") or "Comparison"), parts)


def _arms(comparison: Comparison) -> list[Part]:
    rows = []
    for arm, about in comparison.arms.items():
        sizes = sorted(
            {size for run in comparison.of(arm) if (size := run.number("parameters")) is not None}
        )
        shown = (
            " to ".join(map(figures.count, dict.fromkeys([sizes[0], sizes[-1]])))
            if sizes
            else figures.MISSING
        )
        kinds = [str(about.get(key) or figures.MISSING) for key in ("objective", "model")]
        rows.append(
            [
                comparison.label(arm),
                *kinds,
                shown,
                _rates(comparison, arm),
                f"{len(comparison.of(arm))} of {len(comparison.seeds)}",
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
        f"{comparison.label(arm)}: {about['describe']}"
        for arm, about in comparison.arms.items()
        if about.get("describe")
    ]
    about_each: list[Part] = [Items(described)] if described else []
    if len(described) > curves.MANY:
        about_each = [Details("What each arm is", about_each, printed=True)]
    return [Heading("What was compared"), Table(columns, rows), *about_each]


def _rates(comparison: Comparison, arm: str) -> str:
    """The learning rate of an arm's runs, as their configs have it."""
    rates = set()
    for run in comparison.runs:
        config = run.record.get("config") if run.arm == arm else None
        optimizer = config.get("optimizer") if isinstance(config, dict) else None
        rate = optimizer.get("learning_rate") if isinstance(optimizer, dict) else None
        if isinstance(rate, int | float):
            rates.add(rate)
    return ", ".join(f"{rate:g}" for rate in sorted(rates)) or figures.MISSING


def _budgets(comparison: Comparison) -> list[Part]:
    def mean(arm: str, key: str) -> float | None:
        values = [value for run in comparison.of(arm) if (value := run.number(key)) is not None]
        return math.fsum(values) / len(values) if values else None

    planned, rows = comparison.about.get("planned") or {}, []
    for arm in comparison.arms:
        plan = planned.get(arm) or {}
        amounts = []
        for key in MATCHED:
            form = figures.flops if key == "flops" else figures.count
            amounts.append(
                form(mean(arm, key)) + (f"\nplanned {form(plan[key])}" if plan.get(key) else "")
            )
        speed = [
            figures.duration(mean(arm, "seconds")),
            figures.plain(mean(arm, "tokens_per_second")),
        ]
        shares = [
            figures.share(mean(arm, "padding")),
            figures.share(mean(arm, "input_wait_share"), 2),
        ]
        rows.append(
            [comparison.label(arm), figures.count(mean(arm, "steps")), *amounts, *speed, *shares]
        )
    budget = comparison.about.get("budget") or {}
    matched, wanted = budget.get("matched"), budget.get("value")
    text = "What was matched is not recorded."
    if matched in MATCHED:
        shown = figures.flops(wanted) if matched == "flops" else figures.count(wanted)
        groups = dict(sorted(comparison.by_times().items()))
        multiples = (
            "" if list(groups) == [1.0] else f" × {', '.join(f'{times:g}' for times in groups)}"
        )
        amount = "" if wanted is None else f", {shown}{multiples} a run"
        whom = "Matched over the arms" + (
            " that get the same multiple of the budget" if len(groups) > 1 else ""
        )
        text = (
            f"{whom}: {MATCHED[matched][1]}{amount}. The other amounts differ as the objectives do."
        )
        text += "".join(
            _spread(comparison, matched, arms, f" of {times:g} × the budget" * (len(groups) > 1))
            for times, arms in groups.items()
        )
    heads = [head + (" (matched)" if key == matched else "") for key, (head, _) in MATCHED.items()]
    columns = [
        ("Arm", "l"),
        ("Steps", "r"),
        *((head, "r") for head in [*heads, "Time a run", "Tokens/s", "Padding", "Input wait"]),
    ]
    caption = (
        "Done: means over the finished seeds of each arm. Token positions are those of all rows, an encoder-decoder's input and output "
        "alike, padding included; padding is measured on the first rows. FLOPs are by formula, a generator's included. Loss-bearing "
        "targets are predicted tokens, judged tokens, and pair labels where there is a pair loss; a place both predicted and judged "
        "counts twice. Input wait: share of the time in which the step waited for data."
    )
    return [Heading("Budgets"), Paragraph(text), Table(columns, rows, caption)]


def _spread(comparison: Comparison, key: str, arms: list[str], which: str) -> str:
    """A sentence on finished runs of arms, in words `which`, whose matched quantity differs by more than the last batch explains."""
    values = [
        value
        for run in comparison.runs
        if run.done and run.arm in arms and (value := run.number(key)) is not None
    ]
    if not values or min(values) <= 0 or max(values) / min(values) <= 1.01:
        return ""
    return f" But finished runs{which} differ in it by up to {figures.share(max(values) / min(values) - 1)}: they are not matched."


def _unfinished(comparison: Comparison) -> list[Part]:
    title, runs = Heading("Runs not counted"), [run for run in comparison.runs if not run.done]
    if not runs:
        return [title, Paragraph("None: every run finished.")]
    rows = []
    for run in runs:
        why = str(run.record.get("error") or figures.MISSING)
        rows.append(
            [
                comparison.label(run.arm),
                str(run.seed),
                run.status,
                figures.count(run.number("tokens")),
                why,
            ]
        )
    columns = [("Arm", "l"), ("Seed", "r"), ("Status", "l"), ("Tokens seen", "r"), ("Error", "l")]
    return [title, Table(columns, rows, "No number in this report includes these runs.")]
