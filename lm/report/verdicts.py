"""Evaluates the hypotheses of a comparison: each is supported, refuted or inconclusive.

A hypothesis states that a quantity is on one side of a threshold. The quantity is a score, a
difference of two scores or a ratio of two scores (`evaluate`). The verdict follows from its
two-sided 95 % interval over seeds and, where it is known, over the test set:

- Supported: the whole interval is on the stated side of the threshold, and p is below 0.05 after
  Holm's correction for the number of hypotheses.
- Refuted: the whole interval is on the other side, and p meets the same condition.
- Inconclusive: otherwise. This includes a score from one seed, which has no interval; a score that
  is not measured yet; two arms without a common seed; and arms of which a run diverged, since the
  remaining seeds are not a random sample.

p is two-sided, against the threshold, and below 0.05 exactly when the 95 % interval excludes the
threshold. The formulas of the intervals are in lm/stats/intervals.py and lm/stats/bootstrap.py, and
the formulas of p, Holm's correction and verdicts in lm/stats/hypothesis_tests.py.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lm.core.plugins import UserError
from lm.report import number_format
from lm.report.comparison import Comparison
from lm.report.scores import Score, by_level, difference, diverged, p_of, score
from lm.stats import bootstrap, hypothesis_tests, intervals
from lm.stats.hypothesis_tests import Verdict
from lm.stats.intervals import LEVEL, Estimate

OPERATIONS = ("ratio_below", "ratio_above", "below", "above", "intervals_apart_above")


@dataclass(frozen=True, slots=True)
class HypothesisResult:
    """A hypothesis, the measurement, and the verdict.

    Attributes:
      text: the hypothesis.
      measured: the measured value, as text.
      interval: 95 % interval of the measured value, as text.
      required: the condition on the measured value, as text.
      verdict: supported or refuted if the adjusted p is below 0.05, otherwise inconclusive.
      reason: why the verdict does not follow from the interval alone; "" if it does.
      p: two-sided p against the threshold; below 0.05 exactly when the interval excludes the
        threshold. None without an interval.
      adjusted: p after Holm's correction over all hypotheses.
      effect: Hedges' g (`intervals.hedges_g`) of the difference from the other side.
    """

    text: str
    measured: str
    interval: str
    required: str
    verdict: Verdict
    reason: str = ""
    p: float | None = None
    adjusted: float | None = None
    effect: float | None = None


def evaluate_all(comparison: Comparison) -> list[HypothesisResult]:
    """Evaluates all hypotheses of comparison.json, in its order, with Holm's correction.

    The correction also counts hypotheses without a measurement, since their number was fixed before
    the runs.

    Raises:
      UserError: a hypothesis lacks a field, or its op is unknown.
    """
    hypotheses = comparison.record.get("hypotheses") or []
    results = [evaluate(comparison, hypothesis) for hypothesis in hypotheses]
    adjusted = hypothesis_tests.holm([1.0 if result.p is None else result.p for result in results])
    results = [
        result if result.p is None else _with_adjusted_p(result, p)
        for result, p in zip(results, adjusted, strict=True)
    ]
    return [
        _unless_diverged(comparison, hypothesis, result)
        for hypothesis, result in zip(hypotheses, results, strict=True)
    ]


def _unless_diverged(
    comparison: Comparison, hypothesis: dict[str, Any], result: HypothesisResult
) -> HypothesisResult:
    """Inconclusive if runs of either side diverged: the remaining seeds are not a random sample."""
    sides = (str(hypothesis.get(key) or "") for key in ("arm", "compare"))
    if not (note := diverged(comparison, *sides)):
        return result
    reason = "; ".join(filter(None, [note, result.reason]))
    return dataclasses.replace(result, verdict=hypothesis_tests.INCONCLUSIVE, reason=reason)


def _with_adjusted_p(result: HypothesisResult, p: float) -> HypothesisResult:
    if result.verdict == hypothesis_tests.INCONCLUSIVE or p < 1 - LEVEL:
        return dataclasses.replace(result, adjusted=p)
    reason = f"p is {result.p:.3f} unadjusted, {p:.3f} adjusted for all hypotheses"
    return dataclasses.replace(
        result, adjusted=p, verdict=hypothesis_tests.INCONCLUSIVE, reason=reason
    )


def evaluate(comparison: Comparison, hypothesis: dict[str, Any]) -> HypothesisResult:
    """Evaluates one hypothesis of comparison.json on its own.

    The operations compare the score of `arm` with the score of `compare`, an arm or baseline:

    - `ratio_below` and `ratio_above`: the threshold is `value` times the score of `compare`.
    - `below` and `above`: the threshold is `value`, plus the score of `compare` if it is given.
    - `intervals_apart_above`: the interval is above the interval of `compare` by more than `value`.

    The two scores are paired by seed and by example if both share them. Without per-example values,
    a baseline is a constant.

    Args:
      comparison: the comparison.
      hypothesis: a dict with the keys "text", "arm", "task", "metric", "compare", "op" and "value".

    Raises:
      UserError: the hypothesis lacks a field, or its op is not one of `OPERATIONS`.
    """
    try:
        text, arm, task, metric = (
            str(hypothesis[key]) for key in ("text", "arm", "task", "metric")
        )
        other, operation, value = (
            str(hypothesis.get("compare") or ""),
            str(hypothesis["op"]),
            float(hypothesis.get("value") or 0.0),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            "a hypothesis needs text, arm, task, metric, op and a number as value, not"
            f" {hypothesis!r} ({error!r})"
        ) from error
    if operation not in OPERATIONS:
        raise UserError(
            f"the hypothesis {text!r} has op={operation!r}; it must be one of:"
            f" {', '.join(OPERATIONS)}"
        )
    if not other and operation in ("ratio_below", "ratio_above", "intervals_apart_above"):
        raise UserError(
            f"the hypothesis {text!r} has op={operation!r}, which needs 'compare': the arm or"
            " baseline to compare with"
        )
    own = score(comparison, arm, task, metric)
    against = score(comparison, other, task, metric) if other else None
    absent = [
        comparison.label(name)
        for name, side in ((arm, own), (other, against))
        if name and side is None
    ]
    if own is None or absent:
        shown = (
            number_format.estimate(own.estimate, own.unit)
            if own
            else (number_format.MISSING, number_format.MISSING)
        )
        return HypothesisResult(
            text,
            *shown,
            number_format.MISSING,
            hypothesis_tests.INCONCLUSIVE,
            f"not measured yet: {', '.join(absent)} on {task} {metric}",
        )
    sign, side = (
        ("<", hypothesis_tests.below)
        if operation.endswith("below")
        else (">", hypothesis_tests.above)
    )
    name, is_ratio = comparison.label(other), operation.startswith("ratio")

    def at_level(entry: str, level: float) -> Estimate:
        result = score(comparison, entry, task, metric, level)
        assert result is not None
        return result.estimate

    def result(
        estimate: Estimate, unit: str, required: str, verdict: Callable[[float], Verdict]
    ) -> HypothesisResult:
        return _result(text, own, against, estimate, unit, required, verdict)

    if operation == "intervals_apart_above":
        assert against is not None
        mean, interval = number_format.estimate(against.estimate, against.unit)
        required = f"> {name} {mean}" + (f" {interval}" if against.estimate.has_interval else "")
        return result(
            own.estimate,
            own.unit,
            required,
            lambda level: hypothesis_tests.apart_above(
                at_level(arm, level), at_level(other, level), value
            ),
        )
    constant = against is None or (
        against.estimate.n == 0 and not (own.examples and against.examples)
    )
    if against is None or constant:
        threshold, required = _threshold(own, against, name, sign, value, is_ratio)
        verdict = by_level(lambda level: at_level(arm, level), side, threshold)
        return result(own.estimate, own.unit, required, verdict)
    if is_ratio:
        estimate = _ratio(own, against, LEVEL)
        if estimate is None:
            return _unpaired(text, own, name)
        required = f"ratio to {name} {sign} {value:g}"
        verdict = by_level(lambda level: _ratio(own, against, level), side, value)
        return result(estimate, "", required, verdict)
    estimate = difference(own, against)
    if estimate is None:
        return _unpaired(text, own, name)
    required = f"difference from {name} {sign} {number_format.difference(value, own.unit)}"
    verdict = by_level(lambda level: difference(own, against, level), side, value)
    mean, interval = number_format.estimate(estimate, own.unit, signed=True)
    return dataclasses.replace(
        result(estimate, own.unit, required, verdict),
        measured=mean + (" points" if own.unit == "share" else ""),
        interval=interval,
    )


def _threshold(
    own: Score, against: Score | None, name: str, sign: str, value: float, is_ratio: bool
) -> tuple[float, str]:
    """The threshold of a score, as a number and as text."""
    if against is None:
        return value, f"{sign} {number_format.measured(value, own.unit)}"
    number = number_format.measured(against.estimate.mean, own.unit)
    threshold = value * against.estimate.mean if is_ratio else value + against.estimate.mean
    how = (
        f"{value:g} × {name} {number}"
        if is_ratio
        else f"{name} {number}"
        + (f" + {number_format.difference(value, own.unit)}" if value else "")
    )
    trivial = value == 1 if is_ratio else value == 0
    return (
        threshold,
        f"{sign} {name} {number}"
        if trivial
        else f"{sign} {number_format.measured(threshold, own.unit)} = {how}",
    )


def _ratio(own: Score, against: Score, level: float) -> Estimate | None:
    if not own.values.keys() & against.values.keys() and against.estimate.n:
        return None
    if own.examples and against.examples:
        return bootstrap.ratio(own.examples, against.examples, level=level).estimate
    return intervals.ratios(own.values, against.values, level)


def _unpaired(text: str, own: Score, name: str) -> HypothesisResult:
    shown = number_format.estimate(own.estimate, own.unit)
    return HypothesisResult(
        text,
        *shown,
        number_format.MISSING,
        hypothesis_tests.INCONCLUSIVE,
        f"no seed in common with {name}",
    )


def _result(
    text: str,
    own: Score,
    against: Score | None,
    estimate: Estimate,
    unit: str,
    required: str,
    verdict: Callable[[float], Verdict],
) -> HypothesisResult:
    mean, interval = number_format.estimate(estimate, unit)
    single = estimate.n == 1 or (against is not None and against.estimate.n == 1)
    reason = "one seed gives no interval" if single else ""
    p = None if single else p_of(estimate, verdict)
    effect = None if against is None else intervals.hedges_g(own.values, against.values)
    return HypothesisResult(text, mean, interval, required, verdict(LEVEL), reason, p, p, effect)
