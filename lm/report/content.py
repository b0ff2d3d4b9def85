"""What the report says, part by part: verdict, arms, budgets and runs here; results in `yardsticks`, the rest in `setting`."""

import math

from lm import statistics
from lm.report import figures, scores, setting, yardsticks
from lm.report.page import Heading, Items, Page, Paragraph, Part, Table
from lm.report.read import Comparison
from lm.report.scores import Judged

SIGNS = {statistics.HOLDS: "✓", statistics.FAILS: "✗", statistics.INCONCLUSIVE: "?"}
# The head of the budget's column, and the words in a sentence.
MATCHED = {
    "tokens": ("Token positions", "token positions"),
    "loss_tokens": ("Loss-bearing targets", "loss-bearing targets"),
    "flops": ("Training FLOPs", "training FLOPs"),
}


def page(comparison: Comparison, picture: str) -> Page:
    """The whole report. `picture` is the PNG's file name, which Markdown shows in place of the SVGs."""
    about = comparison.about
    facts = [
        str(about.get("config") or ""),
        "seeds " + ", ".join(map(str, comparison.seeds)),
        f"started {str(about['started']).replace('T', ' ')}" if about.get("started") else "",
    ]
    parts: list[Part] = [
        *([Paragraph(str(about["question"]), "lead")] if about.get("question") else []),
        Paragraph(" · ".join(filter(None, facts)), "small"),
        *_verdict(comparison),
        *_arms(comparison),
        *_budgets(comparison),
        *yardsticks.curves(comparison, picture),
        *yardsticks.dots(comparison, picture),
        *yardsticks.tables(comparison, True, "Each objective on its own yardstick"),
        *yardsticks.tables(comparison, False, "The shared yardstick in numbers"),
        *yardsticks.differences(comparison),
        *_unfinished(comparison),
        *setting.reproduce(comparison),
        *setting.data(comparison),
        *setting.machine(comparison),
        *setting.reading(comparison),
    ]
    return Page(str(about.get("name") or "Comparison"), parts)


def judged(comparison: Comparison) -> list[Judged]:
    """Every check's verdict, in the order of comparison.json."""
    return [scores.judge(comparison, check) for check in comparison.about.get("hypotheses") or []]


def headline(results: list[Judged]) -> str:
    """The verdicts in one sentence."""
    if not results:
        return "The experiment's config sets no checks, so there is no verdict."
    total = len(results)
    holds, fails, unclear = (sum(each.verdict == verdict for each in results) for verdict in SIGNS)
    if holds == total:
        return "The one check holds." if total == 1 else f"All {total} checks hold."
    parts = [f"{holds} of {total} check{'s' if total > 1 else ''} hold{'s' if holds == 1 else ''}"]
    if fails:
        parts.append(f"{fails} {'does' if fails == 1 else 'do'} not hold")
    if unclear:
        parts.append(f"{unclear} {'is' if unclear == 1 else 'are'} inconclusive")
    return "; ".join(parts) + "."


def _verdict(comparison: Comparison) -> list[Part]:
    results = judged(comparison)
    parts: list[Part] = [Heading("Verdict"), Paragraph(headline(results), "headline")]
    if comparison.problems:
        parts += [Paragraph("This report is incomplete:", "warning"), Items(comparison.problems, "warning")]
    if results:
        rows = []
        for each in results:
            why = f" ({each.why})" if each.why else ""
            rows.append([each.text, f"{SIGNS[each.verdict]} {each.verdict}{why}", each.measured, each.interval, each.needed])
        columns = [("Check", "l"), ("Verdict", "l"), ("Measured", "r"), ("95 % interval", "r"), ("Needed", "l")]
        caption = (
            "Checks are those of the experiment's config. One holds when the whole interval lies on the needed side, does not hold when "
            "all of it lies on the other, and is inconclusive in between. “How to read this” at the end says what the intervals cover."
        )
        parts.append(Table(columns, rows, caption, stack=True))
    if behind := yardsticks.behind(comparison):
        parts += [Paragraph("What simple baselines reach:"), Items(behind)]
    return parts


def _arms(comparison: Comparison) -> list[Part]:
    rows = []
    for arm, about in comparison.arms.items():
        sizes = sorted({size for run in comparison.of(arm) if (size := run.number("parameters")) is not None})
        shown = " to ".join(map(figures.count, dict.fromkeys([sizes[0], sizes[-1]]))) if sizes else figures.MISSING
        kinds = [str(about.get(key) or figures.MISSING) for key in ("objective", "model")]
        rows.append(
            [comparison.label(arm), *kinds, shown, _rates(comparison, arm), f"{len(comparison.of(arm))} of {len(comparison.seeds)}"]
        )
    columns = [("Arm", "l"), ("Objective", "l"), ("Model", "l"), ("Parameters", "r"), ("Learning rate", "r"), ("Seeds done", "r")]
    described = [f"{comparison.label(arm)}: {about['describe']}" for arm, about in comparison.arms.items() if about.get("describe")]
    return [Heading("What was compared"), Table(columns, rows), *([Items(described)] if described else [])]


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

    rows = []
    for arm in comparison.arms:
        amounts = [figures.count(mean(arm, "tokens")), figures.count(mean(arm, "loss_tokens")), figures.flops(mean(arm, "flops"))]
        speed = [figures.duration(mean(arm, "seconds")), figures.plain(mean(arm, "tokens_per_second"))]
        shares = [figures.share(mean(arm, "padding")), figures.share(mean(arm, "input_wait_share"), 2)]
        rows.append([comparison.label(arm), *amounts, *speed, *shares])
    budget = comparison.about.get("budget") or {}
    matched, wanted = budget.get("matched"), budget.get("value")
    text = "What was matched is not recorded."
    if matched in MATCHED:
        shown = figures.flops(wanted) if matched == "flops" else figures.count(wanted)
        amount = "" if wanted is None else f", {shown} a run"
        text = f"Matched over the arms: {MATCHED[matched][1]}{amount}. The other amounts differ as the objectives do."
        text += _spread(comparison, matched)
    heads = [head + (" (matched)" if key == matched else "") for key, (head, _) in MATCHED.items()]
    columns = [("Arm", "l"), *((head, "r") for head in [*heads, "Time a run", "Tokens/s", "Padding", "Input wait"])]
    caption = (
        "Means over the finished seeds of each arm. Token positions are those of all rows, an encoder-decoder's input and output alike, "
        "padding included; padding is measured on the first rows. FLOPs are by formula, a generator's included. Loss-bearing targets are "
        "predicted tokens, judged tokens, and pair labels where there is a pair loss; a place that is both predicted and judged counts "
        "twice. Input wait: share of the time in which the step waited for data."
    )
    return [Heading("Budgets"), Paragraph(text), Table(columns, rows, caption)]


def _spread(comparison: Comparison, key: str) -> str:
    """A sentence on finished runs whose matched quantity differs after all, by more than the last batch explains."""
    values = [value for run in comparison.runs if run.done and (value := run.number(key)) is not None]
    if not values or min(values) <= 0 or max(values) / min(values) <= 1.01:
        return ""
    return f" But finished runs differ in it by up to {figures.share(max(values) / min(values) - 1)}: they are not matched."


def _unfinished(comparison: Comparison) -> list[Part]:
    title, runs = Heading("Runs not counted"), [run for run in comparison.runs if not run.done]
    if not runs:
        return [title, Paragraph("None: every run finished.")]
    rows = []
    for run in runs:
        why = str(run.record.get("error") or figures.MISSING)
        rows.append([comparison.label(run.arm), str(run.seed), run.status, figures.count(run.number("tokens")), why])
    columns = [("Arm", "l"), ("Seed", "r"), ("Status", "l"), ("Tokens seen", "r"), ("Error", "l")]
    return [title, Table(columns, rows, "No number in this report includes these runs.")]
