"""Scores with their intervals from a comparison's rows, paired differences, and the verdict of each hypothesis.

Where the workdir has what stands behind the scores, example by example, intervals are those of lm/stats/bootstrap.py; else those of
lm/stats/intervals.py, from the scores alone, which are wider.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lm.core.plugins import UserError
from lm.report import figures
from lm.report.read import Comparison, Row
from lm.stats import bootstrap, intervals
from lm.stats.bootstrap import Difference
from lm.stats.intervals import LEVEL, Estimate, Verdict
from lm.stats.scores import Examples

_NOT_NEGATIVE = ("nll", "ce", "kl", "bits_per_byte")
_NO_SHARES = ("macro_f1",)  # written as shares, but not of a number of examples
OPERATIONS = ("ratio_below", "ratio_above", "below", "above", "intervals_apart_above")


@dataclass(frozen=True, slots=True)
class Score:
    """One arm's, baseline's or untrained model's score on one metric. `values` is by seed; -1 stands for none."""

    arm: str
    values: dict[int, float]
    estimate: Estimate
    count: int  # test examples or tokens behind it, the fewest over seeds
    unit: str
    better: str
    kind: str
    error: float | None  # standard error over test examples where it is known
    examples: dict[int, Examples] = field(
        default_factory=dict
    )  # what stands behind each value; empty where that is not known of all


@dataclass(frozen=True, slots=True)
class Judged:
    """A hypothesis and what was measured.

    Attributes:
      text, measured, interval, needed: as text. `interval` is the 95 % interval of what was measured.
      verdict: supported or refuted where the adjusted p is below 0.05. why: the reason of a verdict that is not seen in the interval.
      p: two-sided, against the threshold; below 0.05 exactly when the interval lies on one side of it. None without an interval.
      adjusted: p after Holm's correction over all hypotheses judged together.
      effect: Hedges' g (`statistics.effect`) of the difference from what it is compared with.
    """

    text: str
    measured: str
    interval: str
    needed: str
    verdict: Verdict
    why: str = ""
    p: float | None = None
    adjusted: float | None = None
    effect: float | None = None


def score(
    comparison: Comparison, arm: str, task: str, metric: str, level: float = LEVEL
) -> Score | None:
    """The score of an arm over its finished seeds; None where nothing is measured.

    The interval covers the seeds and, where examples are known, for shares of a known number of examples, or where the standard error is
    given, the test set. `level` is the share of such intervals that hold the true value.
    """
    rows = [
        row for row in comparison.rows if (row.arm, row.task, row.metric) == (arm, task, metric)
    ]
    if not rows:
        return None
    # A row without a seed cannot stand among rows with seeds: the seeds are the finer measurement.
    seeded = [row for row in rows if row.seed >= 0] or rows
    values = {row.seed: row.value for row in seeded}
    mean = sum(values.values()) / len(values)
    first, count = seeded[0], min(row.count for row in seeded)
    errors = [row.error for row in seeded if row.error is not None]
    proportion = first.unit == "share" and 0 <= mean <= 1 and metric not in _NO_SHARES
    limits = (0.0, 1.0) if proportion else None
    behind = {
        row.seed: each
        for row in seeded
        if (each := comparison.examples(arm, row.seed, task, metric)) is not None
    }
    if len(behind) == len(seeded):
        estimate = _cut(metric, bootstrap.interval(behind, limits, level))
        return Score(
            arm, values, estimate, count, first.unit, first.better, first.kind, None, behind
        )
    if len(errors) == len(seeded):
        error = max(errors)
        test = intervals.normal(mean, error, level)
    elif (
        proportion
        and count > 0
        and (first.kind not in ("baseline", "bound") or metric == "accuracy")
    ):
        # A baseline's balanced accuracy may be that of a constant guess, the same on any test examples.
        error, test = None, intervals.wilson(mean, count, level)
    else:
        error, test = None, None
    if first.unit == "perplexity" and first.seed >= 0:
        estimate = _perplexity(list(values.values()), level)
    else:
        estimate = (
            intervals.fixed(mean, test)
            if first.seed < 0
            else intervals.over_seeds(list(values.values()), test, limits, level)
        )
    return Score(
        arm, values, _cut(metric, estimate), count, first.unit, first.better, first.kind, error
    )


def _cut(metric: str, estimate: Estimate) -> Estimate:
    """With no negative end of what cannot be negative."""
    low = estimate.low
    return (
        dataclasses.replace(estimate, low=max(0.0, low))
        if low is not None and metric in _NOT_NEGATIVE
        else estimate
    )


def _perplexity(values: list[float], level: float) -> Estimate:
    """Of the mean negative log-likelihood: the geometric mean, with an interval that is one of the likelihood's."""
    found = intervals.over_seeds([math.log(value) for value in values], level=level)
    ends = [None if each is None else math.exp(each) for each in (found.low, found.high)]
    return dataclasses.replace(found, mean=math.exp(found.mean), low=ends[0], high=ends[1])


def metrics(comparison: Comparison, own: bool) -> dict[str, list[str]]:
    """The metrics by task on which a trained arm was measured as its own (or as the shared) yardstick, in the file's order."""
    found: dict[str, list[str]] = {}
    for row in comparison.rows:
        if row.kind == "model" and row.own == own:
            names = found.setdefault(row.task, [])
            if row.metric not in names:
                names.append(row.metric)
    return found


def who(comparison: Comparison, task: str, own: bool | None = None) -> list[str]:
    """Who has a score on a task: arms in the comparison's order, then untrained models, then baselines, then what bounds them."""
    kinds: dict[str, str] = {}
    for row in comparison.rows:
        if row.task == task and (own is None or row.kind != "model" or row.own == own):
            kinds.setdefault(row.arm, row.kind)
    order = {"model": 0, "untrained": 1, "baseline": 2, "bound": 3}
    arms = list(comparison.arms)
    return sorted(
        kinds,
        key=lambda arm: (order.get(kinds[arm], 4), arms.index(arm) if arm in arms else len(arms)),
    )


def difference(first: Score, second: Score, level: float = LEVEL) -> Estimate | None:
    """The paired difference first - second; None where there is nothing to pair.

    Without examples only common seeds are paired, and for shares the sampling of test examples is covered by a bound
    (`statistics.difference_error`).
    """
    if first.examples and second.examples:
        return bootstrap.difference(first.examples, second.examples, level=level).estimate
    if not first.values.keys() & second.values.keys():
        return None
    error = None
    if first.error is not None and second.error is not None:
        error = (first.error**2 + second.error**2) ** 0.5
    elif first.unit == second.unit == "share" and min(first.count, second.count) > 0:
        means = [min(1.0, max(0.0, each.estimate.mean)) for each in (first, second)]
        error = intervals.difference_error(means[0], means[1], min(first.count, second.count))
    return intervals.paired(first.values, second.values, error, level)


def contrast(first: Score, second: Score) -> Difference | None:
    """`difference` with its p against 0 and its effect size."""
    estimate = difference(first, second)
    if estimate is None:
        return None
    if first.examples and second.examples:
        return bootstrap.difference(first.examples, second.examples)
    decide = _against(lambda level: difference(first, second, level), intervals.above, 0.0)
    return Difference(estimate, _p(estimate, decide), intervals.effect(first.values, second.values))


def judge_all(comparison: Comparison) -> list[Judged]:
    """The verdicts of all hypotheses of comparison.json, in its order, by p-values that Holm's correction makes hold for all together.

    The correction counts those too that are not measured yet: how many there are was fixed before the runs.

    Raises:
      UserError: as `judge`.
    """
    hypotheses = comparison.about.get("hypotheses") or []
    found = [judge(comparison, hypothesis) for hypothesis in hypotheses]
    adjusted = intervals.holm([1.0 if each.p is None else each.p for each in found])
    found = [
        each if each.p is None else _adjusted(each, p)
        for each, p in zip(found, adjusted, strict=True)
    ]
    return [
        _complete(comparison, hypothesis, each)
        for hypothesis, each in zip(hypotheses, found, strict=True)
    ]


def _complete(comparison: Comparison, hypothesis: dict[str, Any], judged: Judged) -> Judged:
    """Inconclusive where runs of one side diverged: the seeds that are left are a choice of the outcome."""
    said = diverged(comparison, *(str(hypothesis.get(key) or "") for key in ("arm", "compare")))
    if not said:
        return judged
    return dataclasses.replace(
        judged, verdict=intervals.INCONCLUSIVE, why="; ".join(filter(None, [said, judged.why]))
    )


def diverged(comparison: Comparison, *arms: str) -> str:
    """How many runs of these arms diverged; "" where none did."""
    said = []
    for name in dict.fromkeys(arms):
        runs = [run for run in comparison.runs if run.arm == name]
        if lost := sum(run.status == "diverged" for run in runs):
            said.append(f"{lost} of {len(runs)} runs of {comparison.label(name)} diverged")
    return "; ".join(said)


def _adjusted(judged: Judged, p: float) -> Judged:
    if judged.verdict == intervals.INCONCLUSIVE or p < 1 - LEVEL:
        return dataclasses.replace(judged, adjusted=p)
    why = f"p is {judged.p:.3f} alone, {p:.3f} among all hypotheses"
    return dataclasses.replace(judged, adjusted=p, verdict=intervals.INCONCLUSIVE, why=why)


def judge(comparison: Comparison, check: dict[str, Any]) -> Judged:
    """The verdict of one hypothesis of comparison.json, taken alone.

    `ratio_below` and `ratio_above` compare with `value` times the score of `compare`; `below` and `above` with `value`, added to the score
    of `compare` where that is given; `intervals_apart_above` asks for the interval to lie above that of `compare` by more than `value`.
    What is compared is paired by seed and by example where both are shared. Without examples, a baseline is a constant.

    Raises:
      UserError: a hypothesis without its fields, or an operation that is not one of `OPERATIONS`.
    """
    try:
        text, arm, task, metric = (str(check[key]) for key in ("text", "arm", "task", "metric"))
        other, operation, value = (
            str(check.get("compare") or ""),
            str(check["op"]),
            float(check.get("value") or 0.0),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"a check needs text, arm, task, metric, op and a number as value, not {check!r} ({error!r})"
        ) from error
    if operation not in OPERATIONS:
        raise UserError(
            f"the check {text!r} has op={operation!r}; it should be one of: {', '.join(OPERATIONS)}"
        )
    if not other and operation in ("ratio_below", "ratio_above", "intervals_apart_above"):
        raise UserError(
            f"the check {text!r} has op={operation!r}, which needs 'compare': the arm or baseline to compare with"
        )
    own, against = (
        score(comparison, arm, task, metric),
        score(comparison, other, task, metric) if other else None,
    )
    absent = [
        comparison.label(name)
        for name, found in ((arm, own), (other, against))
        if name and found is None
    ]
    if own is None or absent:
        shown = (
            figures.estimate(own.estimate, own.unit) if own else (figures.MISSING, figures.MISSING)
        )
        return Judged(
            text,
            *shown,
            figures.MISSING,
            intervals.INCONCLUSIVE,
            f"not measured yet: {', '.join(absent)} on {task} {metric}",
        )
    sign, side = ("<", intervals.below) if operation.endswith("below") else (">", intervals.above)
    name, ratio = comparison.label(other), operation.startswith("ratio")

    def again(who: str, level: float) -> Estimate:
        found = score(comparison, who, task, metric, level)
        assert found is not None
        return found.estimate

    if operation == "intervals_apart_above":
        assert against is not None
        mean, interval = figures.estimate(against.estimate, against.unit)
        needed = f"> {name} {mean}" + (f" {interval}" if against.estimate.has_interval else "")
        return _judged(
            text,
            own,
            own.estimate,
            own.unit,
            needed,
            lambda level: intervals.apart_above(again(arm, level), again(other, level), value),
            against,
        )
    constant = against is None or (
        against.estimate.n == 0 and not (own.examples and against.examples)
    )
    if against is None or constant:
        threshold, needed = _threshold(own, against, name, sign, value, ratio)
        return _judged(
            text,
            own,
            own.estimate,
            own.unit,
            needed,
            _against(lambda level: again(arm, level), side, threshold),
            against,
        )
    if ratio:
        estimate = _ratio(own, against, LEVEL)
        if estimate is None:
            return _unpaired(text, own, name)
        needed = f"ratio to {name} {sign} {value:g}"
        return _judged(
            text,
            own,
            estimate,
            "",
            needed,
            _against(lambda level: _ratio(own, against, level), side, value),
            against,
        )
    estimate = difference(own, against)
    if estimate is None:
        return _unpaired(text, own, name)
    needed = f"difference from {name} {sign} {figures.gap(value, own.unit)}"
    judged = _judged(
        text,
        own,
        estimate,
        own.unit,
        needed,
        _against(lambda level: difference(own, against, level), side, value),
        against,
    )
    mean, interval = figures.estimate(estimate, own.unit, signed=True)
    return dataclasses.replace(
        judged, measured=mean + (" points" if own.unit == "share" else ""), interval=interval
    )


def _threshold(
    own: Score, against: Score | None, name: str, sign: str, value: float, ratio: bool
) -> tuple[float, str]:
    """The number that a score is held against, and that in words."""
    if against is None:
        return value, f"{sign} {figures.measured(value, own.unit)}"
    number = figures.measured(against.estimate.mean, own.unit)
    threshold = value * against.estimate.mean if ratio else value + against.estimate.mean
    how = (
        f"{value:g} × {name} {number}"
        if ratio
        else f"{name} {number}" + (f" + {figures.gap(value, own.unit)}" if value else "")
    )
    trivial = value == 1 if ratio else value == 0
    return (
        threshold,
        f"{sign} {name} {number}"
        if trivial
        else f"{sign} {figures.measured(threshold, own.unit)} = {how}",
    )


def _ratio(own: Score, against: Score, level: float) -> Estimate | None:
    if not own.values.keys() & against.values.keys() and against.estimate.n:
        return None
    if own.examples and against.examples:
        return bootstrap.ratio(own.examples, against.examples, level=level).estimate
    return intervals.ratios(own.values, against.values, level)


def _unpaired(text: str, own: Score, name: str) -> Judged:
    shown = figures.estimate(own.estimate, own.unit)
    return Judged(
        text, *shown, figures.MISSING, intervals.INCONCLUSIVE, f"no seed in common with {name}"
    )


def _against(
    estimate: Callable[[float], Estimate | None],
    side: Callable[[Estimate, float], Verdict],
    threshold: float,
) -> Callable[[float], Verdict]:
    """The verdict by level: on which side of the threshold the interval lies."""

    def decide(level: float) -> Verdict:
        found = estimate(level)
        return intervals.INCONCLUSIVE if found is None else side(found, threshold)

    return decide


def _p(estimate: Estimate, decide: Callable[[float], Verdict]) -> float | None:
    """The smallest p at which the verdict stands."""
    return (
        intervals.p_value(lambda level: decide(level) != intervals.INCONCLUSIVE)
        if estimate.has_interval
        else None
    )


def _judged(
    text: str,
    own: Score,
    estimate: Estimate,
    unit: str,
    needed: str,
    decide: Callable[[float], Verdict],
    against: Score | None,
) -> Judged:
    mean, interval = figures.estimate(estimate, unit)
    single = estimate.n == 1 or (against is not None and against.estimate.n == 1)
    why = "one seed gives no interval" if single else ""
    p = None if single else _p(estimate, decide)
    effect = None if against is None else intervals.effect(own.values, against.values)
    return Judged(text, mean, interval, needed, decide(LEVEL), why, p, p, effect)


def rows_of(comparison: Comparison, task: str, metric: str) -> list[Row]:
    """The rows behind a metric, for counts and units."""
    return [row for row in comparison.rows if (row.task, row.metric) == (task, metric)]
