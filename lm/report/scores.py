"""Scores with intervals from a comparison's rows, and differences of two scores.

If a workdir has per-example values, lm/stats/bootstrap.py computes the intervals. Otherwise
lm/stats/intervals.py computes them from the scores alone, and they are wider.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from lm.report.comparison import Comparison
from lm.stats import bootstrap, hypothesis_tests, intervals
from lm.stats.bootstrap import Difference
from lm.stats.hypothesis_tests import Verdict
from lm.stats.intervals import LEVEL, Estimate
from lm.stats.scores import Examples

_NOT_NEGATIVE = ("nll", "ce", "kl", "bits_per_byte")
# Metrics in units of a fraction that are not a fraction of a number of examples.
_NO_FRACTIONS = ("macro_f1",)


@dataclass(frozen=True, slots=True)
class Score:
    """The score of one arm, baseline or untrained model on one metric.

    Attributes:
      arm: name of the arm, baseline or untrained model.
      values: the score by seed; seed -1 for none.
      estimate: mean over seeds, with its interval.
      count: number of test examples or tokens, the smallest over seeds.
      unit: unit of the score, as in `lm.stats.scores.Score`.
      better: "lower" or "higher".
      kind: kind of the score, as in `lm.report.comparison.Row`.
      error: standard error over test examples, if known.
      examples: per-example values by seed; empty unless known for all seeds.
    """

    arm: str
    values: dict[int, float]
    estimate: Estimate
    count: int
    unit: str
    better: str
    kind: str
    error: float | None
    examples: dict[int, Examples] = field(default_factory=dict)


def score(
    comparison: Comparison, arm: str, task: str, metric: str, level: float = LEVEL
) -> Score | None:
    """Returns the score of an arm over its finished seeds.

    The interval covers the seeds. It also covers the test set if per-example values or a standard
    error are available, or if the score is a fraction of a known number of examples.

    Args:
      comparison: the comparison.
      arm: name of an arm, baseline or untrained model.
      task: name of a task.
      metric: name of a metric.
      level: confidence level of the interval.

    Returns:
      The score; None without a row for this metric.
    """
    rows = [
        row for row in comparison.rows if (row.arm, row.task, row.metric) == (arm, task, metric)
    ]
    if not rows:
        return None
    # Rows with seeds are the finer measurement: rows without a seed are then ignored.
    seeded = [row for row in rows if row.seed >= 0] or rows
    values = {row.seed: row.value for row in seeded}
    mean = sum(values.values()) / len(values)
    first, count = seeded[0], min(row.count for row in seeded)
    errors = [row.error for row in seeded if row.error is not None]
    is_fraction = first.unit == "share" and 0 <= mean <= 1 and metric not in _NO_FRACTIONS
    limits = (0.0, 1.0) if is_fraction else None
    examples = {
        row.seed: item
        for row in seeded
        if (item := comparison.examples(arm, row.seed, task, metric)) is not None
    }
    if len(examples) == len(seeded):
        estimate = _clipped(metric, bootstrap.interval(examples, limits, level))
        return Score(
            arm, values, estimate, count, first.unit, first.better, first.kind, None, examples
        )
    if len(errors) == len(seeded):
        error = max(errors)
        test = intervals.normal(mean, error, level)
    elif (
        is_fraction
        and count > 0
        and (first.kind not in ("baseline", "bound") or metric == "accuracy")
    ):
        # A baseline's balanced accuracy may be that of a constant guess, the same on any test set.
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
        arm, values, _clipped(metric, estimate), count, first.unit, first.better, first.kind, error
    )


def _clipped(metric: str, estimate: Estimate) -> Estimate:
    """The estimate without a negative lower end, if the metric cannot be negative."""
    low = estimate.low
    return (
        dataclasses.replace(estimate, low=max(0.0, low))
        if low is not None and metric in _NOT_NEGATIVE
        else estimate
    )


def _perplexity(values: list[float], level: float) -> Estimate:
    """The geometric mean, with the interval of the mean negative log-likelihood."""
    nll = intervals.over_seeds([math.log(value) for value in values], level=level)
    low, high = (None if end is None else math.exp(end) for end in (nll.low, nll.high))
    return dataclasses.replace(nll, mean=math.exp(nll.mean), low=low, high=high)


def metrics(comparison: Comparison, own: bool) -> dict[str, list[str]]:
    """Returns the metrics by task on which trained arms were evaluated, in the file's order.

    Args:
      comparison: the comparison.
      own: True for the tasks of the arms' own objectives, False for tasks shared by all arms.
    """
    by_task: dict[str, list[str]] = {}
    for row in comparison.rows:
        if row.kind == "model" and row.own == own:
            names = by_task.setdefault(row.task, [])
            if row.metric not in names:
                names.append(row.metric)
    return by_task


def entries(comparison: Comparison, task: str, own: bool | None = None) -> list[str]:
    """Returns the names of everything that has a score on a task.

    Args:
      comparison: the comparison.
      task: name of a task.
      own: True for the tasks of the arms' own objectives, False for shared tasks; None for both.

    Returns:
      Arms in the comparison's order, then untrained models, baselines and bounds.
    """
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
    """Returns the paired difference first - second.

    Without per-example values, only common seeds are paired. For fractions, the sampling error of
    the test examples is then covered by an upper bound (`intervals.difference_error`).

    Args:
      first: score of the first side.
      second: score of the second side, on the same metric.
      level: confidence level of the interval.

    Returns:
      The difference with its interval; None if there is nothing to pair.
    """
    if first.examples and second.examples:
        return bootstrap.difference(first.examples, second.examples, level=level).estimate
    if not first.values.keys() & second.values.keys():
        return None
    error = None
    if first.error is not None and second.error is not None:
        error = (first.error**2 + second.error**2) ** 0.5
    elif first.unit == second.unit == "share" and min(first.count, second.count) > 0:
        means = [min(1.0, max(0.0, side.estimate.mean)) for side in (first, second)]
        error = intervals.difference_error(means[0], means[1], min(first.count, second.count))
    return intervals.paired(first.values, second.values, error, level)


def contrast(first: Score, second: Score) -> Difference | None:
    """Returns `difference` with its p against 0 and its effect size.

    Args:
      first: score of the first side.
      second: score of the second side.

    Returns:
      The difference first - second; None if there is nothing to compare.
    """
    estimate = difference(first, second)
    if estimate is None:
        return None
    if first.examples and second.examples:
        return bootstrap.difference(first.examples, second.examples)
    verdict = by_level(lambda level: difference(first, second, level), hypothesis_tests.above, 0.0)
    effect = intervals.hedges_g(first.values, second.values)
    return Difference(estimate, p_of(estimate, verdict), effect)


def by_level(
    estimate: Callable[[float], Estimate | None],
    side: Callable[[Estimate, float], Verdict],
    threshold: float,
) -> Callable[[float], Verdict]:
    """Returns the verdict as a function of the confidence level.

    Args:
      estimate: function that returns the estimate with its interval at a confidence level.
      side: `hypothesis_tests.above` or `hypothesis_tests.below`.
      threshold: the threshold to compare with.
    """

    def verdict(level: float) -> Verdict:
        at_level = estimate(level)
        return hypothesis_tests.INCONCLUSIVE if at_level is None else side(at_level, threshold)

    return verdict


def p_of(estimate: Estimate, verdict: Callable[[float], Verdict]) -> float | None:
    """Returns the smallest p at which the verdict is not inconclusive; None without an interval.

    Args:
      estimate: the estimate with its interval.
      verdict: the verdict as a function of the confidence level.
    """
    if not estimate.has_interval:
        return None
    return hypothesis_tests.p_value(lambda level: verdict(level) != hypothesis_tests.INCONCLUSIVE)


def diverged(comparison: Comparison, *arms: str) -> str:
    """Returns how many runs of these arms diverged, as text; "" if no run diverged."""
    counts = []
    for name in dict.fromkeys(arms):
        runs = [run for run in comparison.runs if run.arm == name]
        if number := sum(run.status == "diverged" for run in runs):
            counts.append(f"{number} of {len(runs)} runs of {comparison.label(name)} diverged")
    return "; ".join(counts)
