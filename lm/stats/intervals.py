"""Intervals from scores alone, p-values, Holm's correction, effect sizes and verdicts.

Two things make a measured score uncertain, and an `Estimate` says which of them its interval covers:

- "seeds": another seed gives other initial values and another data order. Student's t over the n seeds' scores (Student 1908), which
  takes the scores as roughly normal. With two seeds t is 12.7 and with three 4.30: such intervals are wide because little is known.
- "test set": other test examples would give another score. All seeds are scored on the same examples, so more seeds do not shrink this.

Where what stands behind a score is known example by example, lm/stats/bootstrap.py has narrower intervals of both. Here is what scores alone
allow: for a share of examples Wilson's score interval (Wilson 1927), for another mean the normal interval from its standard error; added
to the seeds' in quadrature (MOVER: Zou and Donner 2008, "Construction of confidence intervals about effect measures", Statistics in
Medicine 27). The result is never narrower than either part and errs on the wide side.

Nothing here covers another corpus, split, tokenizer or hyper-parameter. One seed gives no interval over seeds: none is invented.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

LEVEL = 0.95
_SMALLEST = 1e-9  # of p
SEEDS = "seeds"
TEST_SET = "test set"

Verdict = Literal["supported", "refuted", "inconclusive"]
HOLDS: Verdict = "supported"
FAILS: Verdict = "refuted"
INCONCLUSIVE: Verdict = "inconclusive"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and, where one can be had, its two-sided interval.

    Attributes:
      mean: the mean over seeds, or the value itself where no seed enters.
      low, high: the ends of the interval; both None where there is none.
      n: the number of seeds; 0 for a value that depends on none, such as a unigram baseline.
      deviation: the sample standard deviation over seeds (n - 1 below); None for n < 2.
      covers: what the interval covers, of `SEEDS` and `TEST_SET`; empty where there is no interval.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    deviation: float | None
    covers: tuple[str, ...]

    @property
    def has_interval(self) -> bool:
        return self.low is not None

    @property
    def note(self) -> str:
        """What the interval covers in words, or why there is none."""
        if self.covers:
            return " and ".join(self.covers)
        return "one seed, no interval" if self.n == 1 else "does not depend on a seed, no interval"


def over_seeds(
    values: Sequence[float],
    test: tuple[float, float] | None = None,
    limits: tuple[float, float] | None = None,
    level: float = LEVEL,
) -> Estimate:
    """The mean over seeds with its interval.

    Args:
      values: one score a seed.
      test: the test set's own interval around the mean (`wilson`, `normal`), to be covered as well.
      limits: the smallest and largest possible score; the interval is cut there.
      level: the share of such intervals that hold the true value.

    Returns:
      An estimate over n seeds. With n = 1 it has no interval, even where `test` is given: half an interval would pass for a whole one.

    Raises:
      ValueError: no values, a value that is not finite, a `test` interval that does not hold the mean.
    """
    from scipy import stats

    values = _finite(values)
    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1:
        return Estimate(mean, None, None, 1, None, ())
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stats.t.ppf(0.5 + level / 2, n - 1)) * deviation / math.sqrt(n)
    below = above = half
    if test is not None:
        if not test[0] - 1e-12 <= mean <= test[1] + 1e-12:
            raise ValueError(
                f"the test set's interval {test} should hold the mean over seeds, {mean}"
            )
        below, above = math.hypot(half, mean - test[0]), math.hypot(half, test[1] - mean)
    low, high = mean - below, mean + above
    if limits is not None:
        low, high = max(low, limits[0]), min(high, limits[1])
    return Estimate(mean, low, high, n, deviation, (SEEDS,) if test is None else (SEEDS, TEST_SET))


def fixed(value: float, test: tuple[float, float] | None = None) -> Estimate:
    """A score that depends on no seed (a count-based baseline): only the test set can make it uncertain.

    Raises:
      ValueError: the value is not finite.
    """
    (value,) = _finite([value])
    if test is None:
        return Estimate(value, None, None, 0, None, ())
    return Estimate(value, test[0], test[1], 0, None, (TEST_SET,))


def wilson(share: float, count: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a share of `count` independent examples (Wilson 1927, JASA 22).

    `share` need not be a whole number of examples: a mean over seeds is not. Then it is taken as if it were one model's share, which bounds
    the sampling error of a mean over models from above.

    Raises:
      ValueError: a share outside [0, 1], or no examples.
    """
    from scipy import stats

    if not 0 <= share <= 1 or count < 1:
        raise ValueError(
            f"a share between 0 and 1 of at least one example is needed, not {share} of {count}"
        )
    z = float(stats.norm.ppf(0.5 + level / 2))
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def normal(value: float, error: float, level: float = LEVEL) -> tuple[float, float]:
    """The interval of a mean over many test examples from its standard error `error`, by the central limit theorem.

    Raises:
      ValueError: the error is negative or not finite.
    """
    from scipy import stats

    if not 0 <= error < math.inf:
        raise ValueError(f"a standard error should be a number of at least 0, not {error}")
    half = float(stats.norm.ppf(0.5 + level / 2)) * error
    return value - half, value + half


def paired(
    first: Mapping[int, float],
    second: Mapping[int, float],
    error: float | None = None,
    level: float = LEVEL,
) -> Estimate:
    """The mean of first - second over the seeds both have (the paired t interval).

    The same seed means the same data order and shared initial values, so what a seed does to both cancels.

    Args:
      first, second: score by seed.
      error: standard error of the difference over test examples, to be covered as well. Without scores by example,
        `difference_error` bounds it.
      level: as in `over_seeds`.

    Raises:
      ValueError: no seed in common, or a value that is not finite.
    """
    common = sorted(first.keys() & second.keys())
    if not common:
        raise ValueError(f"no seed in common: {sorted(first)} and {sorted(second)}")
    differences = [first[seed] - second[seed] for seed in common]
    test = (
        None if error is None else normal(math.fsum(differences) / len(differences), error, level)
    )
    return over_seeds(differences, test, level=level)


def ratios(
    first: Mapping[int, float], second: Mapping[int, float], level: float = LEVEL
) -> Estimate:
    """The mean of first / second over the seeds both have, with the t interval over seeds alone.

    Raises:
      ValueError: no seed in common, a divisor of zero, or a value that is not finite.
    """
    common = sorted(first.keys() & second.keys())
    if not common:
        raise ValueError(f"no seed in common: {sorted(first)} and {sorted(second)}")
    if any(second[seed] == 0 for seed in common):
        raise ValueError("a ratio needs a divisor other than zero")
    return over_seeds([first[seed] / second[seed] for seed in common], level=level)


def difference_error(first: float, second: float, count: int) -> float:
    """An upper bound of the standard error of a difference of two shares of the same `count` examples.

    It is the error for two independent samples: two models tend to fail on the same examples, which makes the true error smaller.
    """
    return math.sqrt((first * (1 - first) + second * (1 - second)) / count)


def effect(first: Mapping[int, float], second: Mapping[int, float]) -> float | None:
    """Hedges' g: the difference of two means over seeds, in standard deviations between seeds (Hedges 1981).

    The deviation is pooled over both sides, so it means the same whether or not seeds are paired; a side under the seed -1 (a baseline)
    has none. The gamma functions take away what few seeds add to Cohen's d: a quarter with three seeds a side.

    Args:
      first, second: score by seed.

    Returns:
      None where fewer than two degrees of freedom are known over both sides, or seeds do not differ.
    """
    sides = [list(side.values()) for side in (first, second)]
    means = [math.fsum(values) / len(values) for values in sides]
    freedom = sum(len(values) - 1 for values in sides)
    squares = sum(
        math.fsum((value - mean) ** 2 for value in values)
        for values, mean in zip(sides, means, strict=True)
    )
    if (
        freedom < 2 or not squares
    ):  # with one degree of freedom d has no expectation that could be corrected
        return None
    correction = math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)) / math.sqrt(
        freedom / 2
    )
    return correction * (means[0] - means[1]) / math.sqrt(squares / freedom)


def p_value(excludes: Callable[[float], bool]) -> float:
    """The smallest p at which the interval of level 1 - p excludes what is tested; 1 where none does.

    So p is below 0.05 exactly when the 95 % interval excludes it, whatever kind of interval it is.

    Args:
      excludes: of a level. What it excludes at one level it must exclude at any lower one.

    Returns:
      p to 1e-6 of itself; what is below 1e-9 is given as 1e-9.
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
    """p adjusted for testing several hypotheses (Holm 1979): below 0.05 for a true one with a probability of at most 0.05 over all of them.

    The k-th smallest of m is multiplied by m - k + 1; none becomes smaller than one before it, or larger than 1.

    Raises:
      ValueError: a p outside [0, 1].
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"p-values lie between 0 and 1, not {list(p_values)}")
    adjusted, largest, total = [0.0] * len(p_values), 0.0, len(p_values)
    for rank, index in enumerate(sorted(range(total), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (total - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def above(estimate: Estimate, threshold: float) -> Verdict:
    """Whether the estimate lies above a threshold: its whole interval, none of it, or it overlaps (inconclusive, as without interval)."""
    if estimate.low is None or estimate.high is None:
        return INCONCLUSIVE
    return (
        HOLDS if estimate.low > threshold else FAILS if estimate.high < threshold else INCONCLUSIVE
    )


def below(estimate: Estimate, threshold: float) -> Verdict:
    """Whether the estimate lies below a threshold; see `above`."""
    if estimate.low is None or estimate.high is None:
        return INCONCLUSIVE
    return (
        HOLDS if estimate.high < threshold else FAILS if estimate.low > threshold else INCONCLUSIVE
    )


def apart_above(first: Estimate, second: Estimate, margin: float = 0.0) -> Verdict:
    """Whether the first interval lies wholly above the second, by more than `margin`; overlapping intervals are inconclusive.

    Intervals apart is stricter than a difference whose interval excludes zero. A second estimate without interval that depends on no seed
    counts as a point.
    """
    low, high = second.low, second.high
    if low is None or high is None:
        if second.n:
            return INCONCLUSIVE
        low = high = second.mean
    if first.low is None or first.high is None:
        return INCONCLUSIVE
    return (
        HOLDS if first.low > high + margin else FAILS if first.high < low + margin else INCONCLUSIVE
    )


def _finite(values: Sequence[float]) -> list[float]:
    values = [float(value) for value in values]
    if not values:
        raise ValueError("a mean needs at least one value")
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"values should be finite, not {values}")
    return values
