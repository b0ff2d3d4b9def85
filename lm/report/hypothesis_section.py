"""Verdicts on the hypotheses, seeds that inconclusive ones need, and comparison with baselines."""

import statistics as moments
from typing import Any

from lm.report import number_format
from lm.report.page import Details, Heading, Items, Paragraph, Part, Table
from lm.report.results import Results, metric_name, task_name
from lm.report.scores import Score
from lm.report.verdicts import HypothesisResult
from lm.stats import bootstrap, hypothesis_tests, intervals

SIGNS = {
    hypothesis_tests.SUPPORTED: "✓",
    hypothesis_tests.REFUTED: "✗",
    hypothesis_tests.INCONCLUSIVE: "?",
}
_POWER = 0.8
_FEW_ROWS = 8  # a longer table of better baselines is collapsed
_MAX_SEEDS = 1000  # larger numbers of required seeds are not reported


def headline(tested: list[HypothesisResult]) -> str:
    """Returns the verdicts in one sentence."""
    if not tested:
        return "The experiment's config states no hypotheses, so there is no verdict."
    counts = {verdict: sum(item.verdict == verdict for item in tested) for verdict in SIGNS}
    summary = ", ".join(f"{number} {verdict}" for verdict, number in counts.items() if number)
    if len(tested) == 1:
        return f"The one hypothesis is {tested[0].verdict}."
    if len(tested) in counts.values():
        return f"All {len(tested)} hypotheses are {tested[0].verdict}."
    return f"{len(tested)} hypotheses: {summary}."


def section(results: Results, tested: list[HypothesisResult]) -> list[Part]:
    """Returns the first section of the report.

    Args:
      results: scores of the comparison.
      tested: result of each hypothesis, in the record's order.
    """
    comparison = results.comparison
    parts: list[Part] = [Heading("Verdict"), Paragraph(headline(tested), "headline")]
    if comparison.problems:
        parts += [
            Paragraph("This report is incomplete:", "warning"),
            Items(comparison.problems, "warning"),
        ]
    if tested:
        hypotheses = comparison.record.get("hypotheses") or []
        rows = []
        for result, hypothesis in zip(tested, hypotheses, strict=True):
            complete = not results.diverged(
                str(hypothesis.get("arm")), str(hypothesis.get("compare") or "")
            )
            seeds = (
                _seeds(results, hypothesis, len(tested))
                if complete and result.verdict == hypothesis_tests.INCONCLUSIVE
                else ""
            )
            reason = "; ".join(filter(None, (result.reason, seeds)))
            sign = SIGNS[result.verdict]
            rows.append(
                [
                    result.text,
                    f"{sign} {result.verdict}" + (f" ({reason})" if reason else ""),
                    result.measured,
                    result.interval,
                    result.required,
                    number_format.probability(result.p),
                    number_format.probability(result.adjusted),
                    number_format.effect(result.effect),
                ]
            )
        columns = [
            ("Hypothesis", "l"),
            ("Verdict", "l"),
            ("Measured", "r"),
            ("95 % interval", "r"),
            ("Required", "l"),
            ("p", "r"),
            ("p, Holm", "r"),
            ("Effect size", "r"),
        ]
        parts.append(Table(columns, rows, _caption(results), stack=True))
    added = comparison.record.get("seeds_added") or []
    if seeds := "; ".join(
        f"{', '.join(map(str, item['seeds']))} ({number_format.timestamp(item['at'])})"
        for item in added
    ):
        parts.append(
            Paragraph(
                f"Seeds added later: {seeds}. The intervals and p-values do not account for a"
                " decision to add seeds that was based on earlier results."
            )
        )
    return parts + baselines(results)


def _caption(results: Results) -> str:
    started = results.comparison.record.get("started")
    when = (
        f"were fixed before the first run ({number_format.timestamp(started)})"
        if started
        else "are those of the config"
    )
    return (
        f"Hypotheses, directions and thresholds {when}. A hypothesis is supported if the whole"
        " interval is on the required side of the threshold and refuted if the whole interval is on"
        " the other side, in both cases only if p, adjusted for the number of hypotheses"
        " (Holm 1979), is below 0.05; otherwise it is inconclusive. p: two-sided, against the"
        " threshold. Effect size: Hedges' g, in standard deviations over seeds, of the difference"
        " from the compared arm or baseline, regardless of the threshold; with so few seeds it is a"
        " rough estimate. “How to read this report” at the end explains what the intervals cover."
    )


def _seeds(results: Results, hypothesis: dict[str, Any], number: int) -> str:
    """The number of seeds that an inconclusive hypothesis needs if the measured value is true.

    The level is the strictest of Holm's levels for `number` hypotheses. "" if it is unknown.
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
    # Disjoint intervals require more than a difference; this module has no formula for them.
    if hypothesis.get("op") == "intervals_apart_above":
        return ""
    apart = _distances(own, against, value, ratio)
    if len(apart) < 2:
        return ""
    deviation, distance, level = (
        moments.stdev(apart),
        abs(moments.fmean(apart)),
        1 - (1 - intervals.LEVEL) / number,
    )
    if not distance:
        return ""
    has_examples = bool(own.examples and (against is None or against.examples))
    test = (
        bootstrap.test_error(
            own.examples, against.examples if against else None, value if ratio else 1.0
        )
        if has_examples
        else 0.0
    )
    if power.most_power(distance, level, test) <= _POWER:
        return "more seeds alone would not decide it: there are too few test examples"
    try:
        needed = power.seeds_needed(deviation, distance, _POWER, level, test)
    except ValueError:  # more seeds than the search tries
        needed = _MAX_SEEDS + 1
    if needed > _MAX_SEEDS:
        return (
            f"more than {_MAX_SEEDS:,} seeds would be needed if the measured value is the true one"
        )
    if needed <= len(apart) and not has_examples:
        return "more seeds alone would hardly help: there are too few test examples"
    return (
        f"about {max(needed, len(apart) + 1)} seeds would decide it if the measured value is the"
        " true one"
    )


def _distances(own: Score, against: Score | None, value: float, ratio: bool) -> list[float]:
    """The difference of each seed from the threshold."""
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
    """Returns a table of the arms whose mean is worse than the best baseline's.

    On an objective-specific task, the table lists every such arm; on a shared task, only the best.
    """
    comparison, rows = results.comparison, []
    first: dict[str, dict[str, str]] = {}
    for row in comparison.rows:
        if row.kind == "model" and row.own:
            first.setdefault(row.arm, {}).setdefault(row.task, row.metric)
    for arm in comparison.arms:
        for task, metric in first.get(arm, {}).items():
            score = results.score(arm, task, metric)
            if score and (cells := _better_baseline(results, score, task, metric)):
                rows.append([comparison.label(arm), *cells])
    for task, metrics in results.metrics(own=False).items():
        scores = [
            score for arm in comparison.arms if (score := results.score(arm, task, metrics[0]))
        ]
        if scores and (cells := _better_baseline(results, best := _best(scores), task, metrics[0])):
            rows.append([f"{comparison.label(best.arm)} (best arm)", *cells])
    if not rows:
        return []
    columns = [
        ("Arm worse than a baseline", "l"),
        ("Task and metric", "l"),
        ("Score", "r"),
        ("Best baseline", "l"),
        ("Baseline score", "r"),
    ]
    caption = (
        "Arms whose mean score is worse than that of the best simple baseline on the same examples."
        " On an evaluation task shared by all arms, only the best arm is listed, since the other"
        " arms are worse than the baseline as well."
    )
    table = Table(columns, rows, caption)
    if len(rows) <= _FEW_ROWS:
        return [table]
    arms = len({row[0] for row in rows})
    return [
        Details(
            f"Simple baselines: {len(rows)} scores of {arms} arms are worse than the best one's",
            [table],
            printed=True,
        )
    ]


def _better_baseline(results: Results, score: Score, task: str, metric: str) -> list[str]:
    """The cells of a row of `baselines`; empty if no baseline is better."""
    names = dict.fromkeys(row.arm for row in results.rows(task, metric) if row.kind == "baseline")
    scores = [item for name in names if (item := results.score(name, task, metric))]
    if not scores or (best := _best([score, *scores])) is score:
        return []
    places = number_format.places([score.estimate, best.estimate], score.unit)
    own, other = (
        number_format.estimate(item.estimate, score.unit, places)[0] for item in (score, best)
    )
    return [
        f"{task_name(task)}, {metric_name(metric)}",
        own,
        results.comparison.label(best.arm),
        other,
    ]


def _best(scores: list[Score]) -> Score:
    """The best score by its mean; the first one of equal scores."""
    best = min if scores[0].better == "lower" else max
    return best(scores, key=lambda score: score.estimate.mean)
