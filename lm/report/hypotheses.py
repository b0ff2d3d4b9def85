"""The verdict: each hypothesis with interval, p and effect, what an inconclusive one would take, and what simple baselines reach."""

import statistics as moments

from lm.report import figures, scores
from lm.report.page import Details, Heading, Items, Paragraph, Part, Table
from lm.report.results import Results, metric_name, task_name
from lm.report.scores import Judged, Score
from lm.stats import bootstrap, intervals

SIGNS = {intervals.HOLDS: "✓", intervals.FAILS: "✗", intervals.INCONCLUSIVE: "?"}
_POWER = 0.8
_FEW_ROWS = 8  # of baselines ahead, shown without being asked
_MOST_SEEDS = 1000  # beyond, the number says only that seeds are not what is missing


def headline(judged: list[Judged]) -> str:
    """The verdicts in one sentence."""
    if not judged:
        return "The experiment's config states no hypotheses, so there is no verdict."
    counts = {verdict: sum(each.verdict == verdict for each in judged) for verdict in SIGNS}
    shown = ", ".join(f"{number} {verdict}" for verdict, number in counts.items() if number)
    if len(judged) == 1:
        return f"The one hypothesis is {judged[0].verdict}."
    if len(judged) in counts.values():
        return f"All {len(judged)} hypotheses are {judged[0].verdict}."
    return f"{len(judged)} hypotheses: {shown}."


def section(results: Results, judged: list[Judged]) -> list[Part]:
    """What the report says first."""
    comparison = results.comparison
    parts: list[Part] = [Heading("Verdict"), Paragraph(headline(judged), "headline")]
    if comparison.problems:
        parts += [
            Paragraph("This report is incomplete:", "warning"),
            Items(comparison.problems, "warning"),
        ]
    if judged:
        asked = comparison.about.get("hypotheses") or []
        rows = []
        for each, hypothesis in zip(judged, asked, strict=True):
            complete = not results.diverged(
                str(hypothesis.get("arm")), str(hypothesis.get("compare") or "")
            )
            seeds = (
                _seeds(results, hypothesis, len(judged))
                if complete and each.verdict == intervals.INCONCLUSIVE
                else ""
            )
            why = "; ".join(filter(None, (each.why, seeds)))
            numbers = [
                figures.probability(each.p),
                figures.probability(each.adjusted),
                figures.effect(each.effect),
            ]
            verdict = f"{SIGNS[each.verdict]} {each.verdict}" + (f" ({why})" if why else "")
            rows.append([each.text, verdict, each.measured, each.interval, each.needed, *numbers])
        columns = [("Hypothesis", "l"), ("Verdict", "l"), ("Measured", "r"), ("95 % interval", "r"), ("Needed", "l"),
                   ("p", "r"), ("p, Holm", "r"), ("Effect size", "r")]  # fmt: skip
        parts.append(Table(columns, rows, _caption(results), stack=True))
    added = comparison.about.get("seeds_added") or []
    if said := "; ".join(
        f"{', '.join(map(str, each['seeds']))} ({figures.moment(each['at'])})" for each in added
    ):
        parts.append(
            Paragraph(
                f"Seeds added later: {said}. Intervals and p take no account of a choice made after looking at the others."
            )
        )
    return parts + baselines(results)


def _caption(results: Results) -> str:
    started = results.comparison.about.get("started")
    when = (
        f"were fixed before the first run, {figures.moment(started)}"
        if started
        else "are those of the config"
    )
    return (
        f"Hypotheses, directions and thresholds {when}. One is supported when the whole interval lies on the needed side, refuted when "
        "all of it lies on the other, both only where p adjusted for the number of hypotheses (Holm 1979) is below 0.05; else it is "
        "inconclusive. p: two-sided, against the threshold. Effect size: Hedges' g, in standard deviations over seeds, of the difference "
        "from what it is compared with, whatever the threshold; with so few seeds a rough figure. “How to read this” at the end says what "
        "the intervals cover."
    )


def _seeds(results: Results, hypothesis: dict, number: int) -> str:
    """How many seeds an inconclusive hypothesis would need if what was measured were the truth; empty where that cannot be said.

    Among `number` hypotheses the strictest of Holm's levels is asked for.
    """
    from lm.stats import power

    arm, task, metric, other = (
        str(hypothesis.get(key) or "") for key in ("arm", "task", "metric", "compare")
    )
    value, ratio = (
        float(hypothesis.get("value") or 0.0),
        str(hypothesis.get("op")).startswith("ratio"),
    )
    own, against = (
        results.score(arm, task, metric),
        results.score(other, task, metric) if other else None,
    )
    if own is None or (other and against is None) or own.estimate.n < 2:
        return ""
    if (
        hypothesis.get("op") == "intervals_apart_above"
    ):  # asks for more than a difference: no formula here says how many seeds
        return ""
    apart = _apart(own, against, value, ratio)
    if len(apart) < 2:
        return ""
    deviation, distance, level = (
        moments.stdev(apart),
        abs(moments.fmean(apart)),
        1 - (1 - intervals.LEVEL) / number,
    )
    if not distance:
        return ""
    known = bool(own.examples and (against is None or against.examples))
    test = (
        bootstrap.test_error(
            own.examples, against.examples if against else None, value if ratio else 1.0
        )
        if known
        else 0.0
    )
    if power.most_power(distance, level, test) <= _POWER:
        return "more seeds alone would not decide: the test examples are few"
    try:
        wanted = power.seeds_needed(deviation, distance, _POWER, level, test)
    except ValueError:  # more than it looks for
        wanted = _MOST_SEEDS + 1
    if wanted > _MOST_SEEDS:
        return f"if what was measured is the truth, more than {_MOST_SEEDS:,} seeds would be needed"
    if wanted <= len(apart) and not known:
        return "more seeds alone would hardly help: the test examples are few"
    return (
        f"about {max(wanted, len(apart) + 1)} seeds would decide, if what was measured is the truth"
    )


def _apart(own: Score, against: Score | None, value: float, ratio: bool) -> list[float]:
    """How far each seed is from the threshold."""
    if against is None:
        return [score - value for score in own.values.values()]
    fixed = against.estimate.mean if against.estimate.n == 0 else None
    pairs = [
        (score, against.values.get(seed) if fixed is None else fixed)
        for seed, score in own.values.items()
    ]
    return [
        score - (value * other if ratio else value + other)
        for score, other in pairs
        if other is not None
    ]


def baselines(results: Results) -> list[Part]:
    """A row for each arm whose mean is behind the best baseline, on its own tasks; on a shared one for the best arm."""
    comparison, rows = results.comparison, []
    first: dict[str, dict[str, str]] = {}
    for row in comparison.rows:
        if row.kind == "model" and row.own:
            first.setdefault(row.arm, {}).setdefault(row.task, row.metric)
    for arm in comparison.arms:
        for task, metric in first.get(arm, {}).items():
            found = results.score(arm, task, metric)
            if found and (ahead := _ahead(results, found, task, metric)):
                rows.append([comparison.label(arm), *ahead])
    for task, metrics in results.metrics(own=False).items():
        each = [found for arm in comparison.arms if (found := results.score(arm, task, metrics[0]))]
        if each and (ahead := _ahead(results, best := _best(each), task, metrics[0])):
            rows.append([f"{comparison.label(best.arm)}, the best of all", *ahead])
    if not rows:
        return []
    columns = [
        ("Behind a baseline", "l"),
        ("On", "l"),
        ("Score", "r"),
        ("Best baseline", "l"),
        ("Its score", "r"),
    ]
    caption = (
        "What simple baselines reach: arms whose mean is behind the best baseline on the same examples. On a yardstick that all arms share "
        "only the best arm is listed, since the others are behind as well."
    )
    table = Table(columns, rows, caption)
    if len(rows) <= _FEW_ROWS:
        return [table]
    arms = len({row[0] for row in rows})
    return [
        Details(
            f"What simple baselines reach: {len(rows)} scores of {arms} arms are behind one",
            [table],
            printed=True,
        )
    ]


def _ahead(results: Results, score: Score, task: str, metric: str) -> list[str]:
    """Task and metric, the score, the best baseline's name and its score where it is better; nothing where none is."""
    names = dict.fromkeys(row.arm for row in results.rows(task, metric) if row.kind == "baseline")
    found = [each for name in names if (each := results.score(name, task, metric))]
    if not found or (best := _best([score, *found])) is score:
        return []
    places = figures.places([score.estimate, best.estimate], score.unit)
    own, other = (figures.estimate(each.estimate, score.unit, places)[0] for each in (score, best))
    return [
        f"{task_name(task)}, {metric_name(metric)}",
        own,
        results.comparison.label(best.arm),
        other,
    ]


def _best(found: list[Score]) -> Score:
    """The best by its mean; of equals the first."""
    return (min if found[0].better == "lower" else max)(found, key=lambda each: each.estimate.mean)


def judge(results: Results) -> list[Judged]:
    """Every hypothesis's verdict, in the order of comparison.json."""
    return scores.judge_all(results.comparison)
