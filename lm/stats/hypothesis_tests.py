"""Tests of hypotheses: p-values, Holm's correction, and verdicts from intervals.

A verdict compares an interval (lm/stats/intervals.py, lm/stats/bootstrap.py) with a threshold:
"supported" if the whole interval is on the required side, "refuted" if the whole interval is on the
other side, otherwise "inconclusive".
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

from lm.stats.intervals import Estimate

_SMALLEST = 1e-9  # smallest p-value that is reported

Verdict = Literal["supported", "refuted", "inconclusive"]
SUPPORTED: Verdict = "supported"
REFUTED: Verdict = "refuted"
INCONCLUSIVE: Verdict = "inconclusive"


def p_value(excludes: Callable[[float], bool]) -> float:
    """Returns the smallest p for which the interval of level 1 - p excludes the tested value.

    p is below 0.05 exactly when the 95 % interval excludes the value, for any kind of interval.

    Args:
      excludes: function that returns whether the interval of a given level excludes the value. An
        interval that excludes the value at one level must exclude it at every lower level.

    Returns:
      p to a relative accuracy of 1e-6; at least 1e-9, and 1 if no interval excludes the value.
    """
    if excludes(1 - _SMALLEST):
        return _SMALLEST
    if not excludes(0.0):
        return 1.0
    low, high = math.log(_SMALLEST), 0.0
    while high - low > 1e-7:
        middle = (low + high) / 2
        low, high = (low, middle) if excludes(1 - math.exp(middle)) else (middle, high)
    return math.exp(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values adjusted for testing several hypotheses (Holm 1979), in the given order.

    The probability that the adjusted p of any true null hypothesis is below 0.05 is at most 0.05.
    The k-th smallest of m values is multiplied by m - k + 1, then raised to at least the adjusted
    value before it and limited to 1.

    Raises:
      ValueError: a p is outside [0, 1].
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"p-values must be between 0 and 1, not {list(p_values)}")
    adjusted, largest, total = [0.0] * len(p_values), 0.0, len(p_values)
    for rank, index in enumerate(sorted(range(total), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (total - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def above(estimate: Estimate, threshold: float) -> Verdict:
    """Returns the verdict on "the score is above the threshold".

    The verdict is "supported" if the whole interval is above the threshold and "refuted" if the
    whole interval is below it. It is "inconclusive" if the interval contains the threshold or there
    is no interval.

    Args:
      estimate: the score with its interval.
      threshold: the value to compare with.
    """
    if estimate.low is None or estimate.high is None:
        return INCONCLUSIVE
    if estimate.low > threshold:
        return SUPPORTED
    return REFUTED if estimate.high < threshold else INCONCLUSIVE


def below(estimate: Estimate, threshold: float) -> Verdict:
    """Returns the verdict on "the score is below the threshold", by the rules of `above`.

    Args:
      estimate: the score with its interval.
      threshold: the value to compare with.
    """
    if estimate.low is None or estimate.high is None:
        return INCONCLUSIVE
    if estimate.high < threshold:
        return SUPPORTED
    return REFUTED if estimate.low > threshold else INCONCLUSIVE


def apart_above(first: Estimate, second: Estimate, margin: float = 0.0) -> Verdict:
    """Returns the verdict on "the first interval is above the second by more than `margin`".

    Overlapping intervals are inconclusive. Disjoint intervals are a stricter requirement than a
    difference whose interval excludes zero. If the second estimate has no interval and does not
    depend on a seed, it counts as a point.

    Args:
      first: the score that should be higher.
      second: the score to compare with.
      margin: required distance between the intervals.
    """
    low, high = second.low, second.high
    if low is None or high is None:
        if second.n:
            return INCONCLUSIVE
        low = high = second.mean
    if first.low is None or first.high is None:
        return INCONCLUSIVE
    if first.low > high + margin:
        return SUPPORTED
    return REFUTED if first.high < low + margin else INCONCLUSIVE
