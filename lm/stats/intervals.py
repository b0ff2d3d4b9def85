"""Intervals and effect sizes from scores alone.

A measured score has two sources of uncertainty. An `Estimate` lists the sources that its interval
covers:

- "seeds": another seed gives other initial values and another data order. The interval is Student's
  t over the scores of n seeds (Student 1908), which assumes that scores are roughly normal. t is
  12.7 with two seeds and 4.30 with three, so such intervals are wide.
- "test set": other test examples would give another score. All seeds are scored on the same
  examples, so more seeds do not reduce this part.

If per-example values of a score are available, lm/stats/bootstrap.py gives narrower intervals over
both sources. This module needs only the scores: for a fraction of examples it uses Wilson's score
interval (Wilson 1927), for another mean the normal interval from its standard error. Either is
added to the interval over seeds in quadrature (MOVER: Zou and Donner 2008, "Construction of
confidence intervals about effect measures", Statistics in Medicine 27). The result is never
narrower than either part and errs on the wide side.

No interval covers another corpus, split, tokenizer or hyperparameter. One seed gives no interval.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEVEL = 0.95
SEEDS = "seeds"
TEST_SET = "test set"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its two-sided interval, if it has one.

    Attributes:
      mean: the mean over seeds, or the value itself if it does not depend on a seed.
      low: lower end of the interval; None without an interval.
      high: upper end of the interval; None without an interval.
      n: number of seeds; 0 for a value that does not depend on a seed, such as a unigram baseline.
      deviation: sample standard deviation over seeds (divisor n - 1); None for n < 2.
      covers: what the interval covers (`SEEDS`, `TEST_SET`); empty without an interval.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    deviation: float | None
    covers: tuple[str, ...]

    @property
    def has_interval(self) -> bool:
        """Whether the estimate has an interval."""
        return self.low is not None

    @property
    def note(self) -> str:
        """The coverage of the interval, or the reason for its absence, as text."""
        if self.covers:
            return " and ".join(self.covers)
        return "one seed, no interval" if self.n == 1 else "does not depend on a seed, no interval"


def over_seeds(
    values: Sequence[float],
    test: tuple[float, float] | None = None,
    limits: tuple[float, float] | None = None,
    level: float = LEVEL,
) -> Estimate:
    """Returns the mean over seeds with its interval.

    Args:
      values: one score per seed.
      test: interval (low, high) over the test set around the mean (`wilson`, `normal`), to be
        covered as well; None for none.
      limits: smallest and largest possible score; the interval is clipped to them.
      level: confidence level.

    Returns:
      An estimate over n seeds. With n = 1 it has no interval, even if `test` is given: an interval
      over the test set alone could be mistaken for an interval over both sources.

    Raises:
      ValueError: there are no values, a value is not finite, or `test` excludes the mean.
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
                f"the interval over the test set, {test}, must contain the mean over seeds, {mean}"
            )
        below, above = math.hypot(half, mean - test[0]), math.hypot(half, test[1] - mean)
    low, high = mean - below, mean + above
    if limits is not None:
        low, high = max(low, limits[0]), min(high, limits[1])
    return Estimate(mean, low, high, n, deviation, (SEEDS,) if test is None else (SEEDS, TEST_SET))


def fixed(value: float, test: tuple[float, float] | None = None) -> Estimate:
    """Returns the estimate of a score that does not depend on a seed (a count-based baseline).

    Args:
      value: the score.
      test: interval (low, high) over the test set; None for no interval.

    Raises:
      ValueError: the value is not finite.
    """
    (value,) = _finite([value])
    if test is None:
        return Estimate(value, None, None, 0, None, ())
    return Estimate(value, test[0], test[1], 0, None, (TEST_SET,))


def wilson(fraction: float, count: int, level: float = LEVEL) -> tuple[float, float]:
    """Returns Wilson's score interval (low, high) of a fraction (Wilson 1927, JASA 22).

    Args:
      fraction: the fraction of hits. `fraction * count` need not be a whole number, for example
        for a mean over seeds. The mean is then treated as one model's fraction, which bounds the
        sampling error of a mean over models from above.
      count: number of independent examples.
      level: confidence level.

    Raises:
      ValueError: the fraction is outside [0, 1], or there are no examples.
    """
    from scipy import stats

    if not 0 <= fraction <= 1 or count < 1:
        raise ValueError(
            f"a fraction between 0 and 1 of at least one example is required, not {fraction} of"
            f" {count}"
        )
    z = float(stats.norm.ppf(0.5 + level / 2))
    center = (fraction + z * z / (2 * count)) / (1 + z * z / count)
    variance = fraction * (1 - fraction) / count + (z / (2 * count)) ** 2
    half = z / (1 + z * z / count) * math.sqrt(variance)
    return max(0.0, min(center - half, fraction)), min(1.0, max(center + half, fraction))


def normal(value: float, error: float, level: float = LEVEL) -> tuple[float, float]:
    """Returns the interval (low, high) of a mean over many test examples.

    Args:
      value: the mean.
      error: standard error of the mean over the examples; the central limit theorem is assumed.
      level: confidence level.

    Raises:
      ValueError: the error is negative or not finite.
    """
    from scipy import stats

    if not 0 <= error < math.inf:
        raise ValueError(f"a standard error must be finite and at least 0, not {error}")
    half = float(stats.norm.ppf(0.5 + level / 2)) * error
    return value - half, value + half


def paired(
    first: Mapping[int, float],
    second: Mapping[int, float],
    error: float | None = None,
    level: float = LEVEL,
) -> Estimate:
    """Returns the mean of first - second over their common seeds, with the paired t interval.

    Runs with the same seed share the data order and initial values, so the effect of a seed on both
    cancels out.

    Args:
      first: scores of the first side, by seed.
      second: scores of the second side, by seed.
      error: standard error of the difference over test examples, to be covered as well. Without
        per-example scores, `difference_error` is an upper bound.
      level: confidence level.

    Raises:
      ValueError: there is no common seed, or a value is not finite.
    """
    common = sorted(first.keys() & second.keys())
    if not common:
        raise ValueError(f"there is no common seed: {sorted(first)} and {sorted(second)}")
    differences = [first[seed] - second[seed] for seed in common]
    test = (
        None if error is None else normal(math.fsum(differences) / len(differences), error, level)
    )
    return over_seeds(differences, test, level=level)


def ratios(
    first: Mapping[int, float], second: Mapping[int, float], level: float = LEVEL
) -> Estimate:
    """Returns the mean of first / second over their common seeds, with the t interval over seeds.

    Args:
      first: scores of the first side, by seed.
      second: scores of the second side, by seed.
      level: confidence level.

    Raises:
      ValueError: there is no common seed, a divisor is zero, or a value is not finite.
    """
    common = sorted(first.keys() & second.keys())
    if not common:
        raise ValueError(f"there is no common seed: {sorted(first)} and {sorted(second)}")
    if any(second[seed] == 0 for seed in common):
        raise ValueError("the divisor of a ratio must not be zero")
    return over_seeds([first[seed] / second[seed] for seed in common], level=level)


def difference_error(first: float, second: float, count: int) -> float:
    """Returns an upper bound of the standard error of a difference of two fractions.

    The bound is the error of two independent samples. Two models tend to fail on the same examples,
    which makes the true error smaller.

    Args:
      first: fraction of hits of the first model.
      second: fraction of hits of the second model.
      count: number of examples on which both models were evaluated.
    """
    return math.sqrt((first * (1 - first) + second * (1 - second)) / count)


def hedges_g(first: Mapping[int, float], second: Mapping[int, float]) -> float | None:
    """Returns Hedges' g: a difference of means in standard deviations over seeds (Hedges 1981).

    The deviation is pooled over both sides, so g does not depend on whether seeds are paired. A
    baseline, which has the single seed -1, contributes no deviation. The gamma functions correct
    the bias of Cohen's d for few seeds: the bias is a quarter with three seeds per side.

    Args:
      first: scores of the first side, by seed.
      second: scores of the second side, by seed.

    Returns:
      Hedges' g; None if both sides together have fewer than two degrees of freedom, or all seeds of
      each side have equal scores.
    """
    sides = [list(side.values()) for side in (first, second)]
    means = [math.fsum(values) / len(values) for values in sides]
    dof = sum(len(values) - 1 for values in sides)
    squares = sum(
        math.fsum((value - mean) ** 2 for value in values)
        for values, mean in zip(sides, means, strict=True)
    )
    # With one degree of freedom, d has no expectation that could be corrected.
    if dof < 2 or not squares:
        return None
    correction = math.exp(math.lgamma(dof / 2) - math.lgamma((dof - 1) / 2)) / math.sqrt(dof / 2)
    return correction * (means[0] - means[1]) / math.sqrt(squares / dof)


def _finite(values: Sequence[float]) -> list[float]:
    values = [float(value) for value in values]
    if not values:
        raise ValueError("a mean requires at least one value")
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"values must be finite, not {values}")
    return values
