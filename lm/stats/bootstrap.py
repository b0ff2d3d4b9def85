"""Multi-Bootstrap: intervals of scores, differences and ratios over seeds and test examples.

Sellam et al. 2022 ("The MultiBERTs: BERT reproductions for robustness analysis") resample seeds and
examples together, both with replacement, and take the interval from the quantiles of the
replicates. With the three to five seeds that pretraining can afford, these quantiles are far too
narrow: n seeds drawn from n have (n - 1)/n of the variance they should have, no quantile accounts
for the uncertainty of a deviation estimated from three seeds, and the effect of a seed on single
examples is counted up to three times (Owen 2007, "The pigeonhole bootstrap"). At 3 seeds and 2,000
examples, a fifth of the differences between equal models come out significant instead of 5 %
(`python -m benchmarks.calibration`). This module therefore estimates the two variances separately
and combines them into an interval with the nominal coverage:

- Seeds. The mean of n seeds drawn with replacement has a variance in closed form. Multiplied by
  n/(n - 1) it is s²/n, with n - 1 degrees of freedom. It includes the effect of a seed on all
  examples and on single examples.
- Test set. Each score is recomputed on examples drawn with replacement, with the same draws for all
  scores of the same examples (`Examples.identity`). The covariance of two different seeds'
  replicates is the effect of the choice of examples on all seeds alike, which more seeds do not
  reduce. The variance of one seed's replicates is not used: what is specific to a seed is already
  in the first part. In the analysis of several readers and several cases (Obuchowski and Rockette
  1995; Hillis 2007) these are the same two variances.
- Combination: half_width^q = (t · sd of seeds)^q + (t' · sd of test set)^q, with q = 2 + 12/f² for
  f degrees of freedom over seeds. The usual choice, Satterthwaite's degrees of freedom, is too
  narrow for three seeds: up to 7.8 % false positives instead of 5 %, if the test set contributes 5
  to 30 % of the variance. Addition in quadrature (q = 2, Zou and Donner 2008) is too wide: 2.3 %.
  The q above was selected by simulation over all fractions: 4.4 to 5.3 % for three seeds, 4.7 to
  5.3 % for four and more, 2.3 to 5.0 % for two, and never above the level at stricter levels, which
  Holm's correction needs (benchmarks/calibration.py prints them). With more seeds, q tends to 2 and
  t to z.

Arms are paired by seed if they have at least two seeds in common; other seeds are then ignored.
Otherwise, their seeds are treated as independent (Welch's degrees of freedom). Examples are paired
if their `identity` is the same, and independent otherwise. A score without a seed (a baseline's)
has the key -1, and only the test set makes it uncertain. One seed gives no interval.

Not covered: scores over seeds that are far from normal, such as runs of which one in ten finds a
solution that the others miss.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from lm.stats import hypothesis_tests, intervals, resampling
from lm.stats.intervals import LEVEL, SEEDS, TEST_SET, Estimate
from lm.stats.scores import Examples

NO_SEED = -1

BySeed = Mapping[int, Examples]


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference (or ratio) of two scores.

    Attributes:
      estimate: the difference with its interval.
      p: two-sided p against the tested value; below 0.05 exactly when the 95 % interval excludes
        that value. None without an interval.
      effect: Hedges' g over seeds (`intervals.hedges_g`); None without a deviation over seeds.
    """

    estimate: Estimate
    p: float | None
    effect: float | None


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean with its variances over seeds and over test sets.

    Attributes:
      mean: the mean over seeds.
      n: number of seeds; 0 if the mean does not depend on a seed.
      deviation: sample standard deviation over seeds; None for n < 2.
      seeds: variance of the mean over seeds.
      seeds_dof: degrees of freedom of `seeds`.
      test: variance of the mean over test sets.
      test_dof: degrees of freedom of `test`.
    """

    mean: float
    n: int
    deviation: float | None
    seeds: float
    seeds_dof: float
    test: float
    test_dof: float

    def half_width(self, level: float) -> float:
        """Returns half the width of the interval."""
        from scipy import special

        tail = (1 - level) / 2
        test = -float(special.stdtrit(self.test_dof, tail)) * math.sqrt(self.test)
        if not self.n:
            return test
        return combined(
            -float(special.stdtrit(self.seeds_dof, tail)) * math.sqrt(self.seeds),
            test,
            self.seeds_dof,
        )

    def estimate(self, level: float, limits: tuple[float, float] | None = None) -> Estimate:
        """Returns the mean with its interval.

        Args:
          level: confidence level.
          limits: smallest and largest possible score; the interval is clipped to them.
        """
        if self.n == 1:
            return Estimate(self.mean, None, None, 1, None, ())
        half = self.half_width(level)
        low, high = self.mean - half, self.mean + half
        if limits is not None:
            low, high = max(low, min(limits[0], self.mean)), min(high, max(limits[1], self.mean))
        return Estimate(
            self.mean,
            low,
            high,
            self.n,
            self.deviation,
            (SEEDS, TEST_SET) if self.n else (TEST_SET,),
        )

    def p(self, value: float) -> float | None:
        """Returns the two-sided p of the mean against a value; None without an interval."""
        if self.n == 1:
            return None
        return hypothesis_tests.p_value(
            lambda level: abs(self.mean - value) > self.half_width(level)
        )


def combined(seeds: float, test: float, dof: float) -> float:
    """Returns half the width of an interval over both seeds and test set.

    Args:
      seeds: half the width of the interval over seeds alone.
      test: half the width of the interval over the test set alone.
      dof: degrees of freedom over seeds.
    """
    most = max(seeds, test)
    if most == 0:
        return 0.0
    power = 2 + 12 / dof**2
    return most * ((seeds / most) ** power + (test / most) ** power) ** (1 / power)


def interval(
    examples: BySeed, limits: tuple[float, float] | None = None, level: float = LEVEL
) -> Estimate:
    """Returns the mean of a score over seeds, with its interval over seeds and test set.

    Args:
      examples: per-example values by seed; {-1: …} for a score that does not depend on a seed.
      limits: smallest and largest possible score; the interval is clipped to them. If every example
        is correct, wrong or a tie (both limits or their middle), two examples of each limit are
        added for the variance over the test set, as in Agresti and Coull 1998. Without these
        examples, a model with no error on 200 examples would seem certain never to make one.
      level: confidence level.

    Raises:
      ValueError: there are no examples, or a score is not finite.
    """
    items = [examples[seed] for seed in sorted(examples)]
    values = resampling.values(items)
    covariance, count = resampling.covariance(items)
    test = _common_variance(covariance)
    if limits is not None and all(_at_limits(item, limits) for item in items):
        low, high = limits
        mean, scaled = float(values.mean()), count**2 * test
        test = (scaled + 2 * (mean - low) ** 2 + 2 * (high - mean) ** 2) / (count + 4) ** 2
    return _spread(values, NO_SEED in examples, test, count).estimate(level, limits)


def difference(
    first: BySeed, second: BySeed, against: float = 0.0, level: float = LEVEL
) -> Difference:
    """Returns the difference first - second with its interval over seeds and test set.

    Args:
      first: per-example values of the first side, by seed.
      second: per-example values of the second side, by seed.
      against: the value that p tests the difference against.
      level: confidence level.

    Raises:
      ValueError: a side has no examples, or a score is not finite.
    """
    spread = spread_of_difference(first, second)
    return Difference(spread.estimate(level), spread.p(against), _effect(first, second))


def ratio(first: BySeed, second: BySeed, against: float = 1.0, level: float = LEVEL) -> Difference:
    """Returns the ratio first / second, the mean over common seeds, with its interval.

    The variance over test sets is propagated to first order.

    Args:
      first: per-example values of the first side, by seed.
      second: per-example values of the second side, by seed.
      against: the value that p tests the ratio against.
      level: confidence level.

    Raises:
      ValueError: both sides have seeds but none in common, a divisor is zero, or a score is not
        finite.
    """
    seeds = _paired(first, second, minimum=1)
    if seeds is None:
        raise ValueError(
            f"a ratio requires a common seed, but the seeds are {sorted(first)} and"
            f" {sorted(second)}"
        )
    if not resampling.values([second[_key(second, seed)] for seed in seeds]).all():
        raise ValueError("the divisor of a ratio must not be zero")
    spread = _contrast(first, second, seeds, lambda a, b: (a / b, 1 / b, -a / b**2))
    return Difference(spread.estimate(level), spread.p(against), _effect(first, second))


def spread_of_difference(first: BySeed, second: BySeed) -> Spread:
    """Returns the variances from which `difference` computes its interval and p.

    Args:
      first: per-example values of the first side, by seed.
      second: per-example values of the second side, by seed.
    """
    seeds = _paired(first, second)
    if seeds is None:
        return _unpaired(first, second)
    return _contrast(first, second, seeds, lambda a, b: (a - b, np.ones_like(a), -np.ones_like(b)))


def test_error(first: BySeed, second: BySeed | None = None, factor: float = 1.0) -> float:
    """Returns the standard error of first - factor · second due to the choice of test examples.

    More seeds do not reduce this error.

    Args:
      first: per-example values of the first side, by seed.
      second: per-example values of the second side, by seed; None for the error of `first` alone.
      factor: factor of `second`.
    """
    if second is None:
        covariance, _ = resampling.covariance([first[seed] for seed in sorted(first)])
        return math.sqrt(_common_variance(covariance))
    seeds = _paired(first, second)
    if seeds is None:
        return math.sqrt(_unpaired(first, second).test)
    return math.sqrt(
        _contrast(
            first,
            second,
            seeds,
            lambda a, b: (a - factor * b, np.ones_like(a), np.full_like(b, -factor)),
        ).test
    )


def _paired(first: BySeed, second: BySeed, minimum: int = 2) -> list[int] | None:
    """The seeds to pair by: [-1] if neither side has seeds.

    None if the sides share fewer than `minimum` seeds. A side with fewer than `minimum` seeds must
    share all of its seeds.
    """
    if not first or not second:
        raise ValueError("a difference requires examples on both sides")
    if NO_SEED in first or NO_SEED in second:
        return sorted(second if NO_SEED in first else first)
    common = sorted(first.keys() & second.keys())
    enough = min(minimum, len(first), len(second))
    return common if len(common) >= max(1, enough) else None


def _key(side: BySeed, seed: int) -> int:
    """The key of a side's score: a baseline has the same score for every seed."""
    return NO_SEED if NO_SEED in side else seed


Values = Float64[np.ndarray, "n"]


def _contrast(
    first: BySeed,
    second: BySeed,
    seeds: Sequence[int],
    function: Callable[[Values, Values], tuple[Values, Values, Values]],
) -> Spread:
    """The spread of function(first, second) by seed.

    `function` returns the values and their derivatives with respect to either side.
    """
    items = [side[_key(side, seed)] for side in (first, second) for seed in seeds]
    scores, n = resampling.values(items), len(seeds)
    values, *slopes = function(scores[:n], scores[n:])
    covariance, count = resampling.covariance(items)
    slope = np.concatenate(slopes)
    weighted = slope[:, None] * covariance * slope[None]
    parts = weighted[:n, :n] + weighted[:n, n:] + weighted[n:, :n] + weighted[n:, n:]
    test = _common_variance(parts)
    if all(_at_limits(item, (0.0, 1.0)) for item in items):
        # As if the sides differed on two examples, one in either direction (Bonett and Price 2012
        # add as many).
        test = max(test, 2 * float(np.abs(slope).max()) ** 2 / count**2)
    return _spread(values, seeds == [NO_SEED], test, count)


def _unpaired(first: BySeed, second: BySeed) -> Spread:
    """The difference of two means over independent seeds."""
    sides = [[side[seed] for seed in sorted(side)] for side in (first, second)]
    values, sizes = [resampling.values(side) for side in sides], [len(side) for side in sides]
    mean = float(values[0].mean() - values[1].mean())
    if min(sizes) < 2:
        return Spread(mean, 1, None, 0.0, 0.0, 0.0, 1.0)
    covariance, count = resampling.covariance(sides[0] + sides[1])
    n = sizes[0]
    across = float(covariance[:n, n:].mean())
    test = max(
        0.0,
        _common_variance(covariance[:n, :n]) + _common_variance(covariance[n:, n:]) - 2 * across,
    )
    variances = [float(side.var(ddof=1)) / len(side) for side in values]
    both = sum(variances)
    dof = (
        both**2 / sum(part**2 / (size - 1) for part, size in zip(variances, sizes, strict=True))
        if both
        else min(sizes) - 1.0
    )
    deviation = math.sqrt(sum(float(side.var(ddof=1)) for side in values))
    test_dof = min(count, resampling.RESAMPLES) - 1.0
    return Spread(mean, min(sizes), deviation, both, dof, test, test_dof)


def _spread(values: Values, fixed: bool, test: float, count: int) -> Spread:
    n = 0 if fixed else len(values)
    deviation = float(values.std(ddof=1)) if n > 1 else None
    seeds = 0.0 if deviation is None else deviation**2 / n
    return Spread(
        float(values.mean()),
        n,
        deviation,
        seeds,
        max(1.0, n - 1.0),
        test,
        max(1.0, min(count, resampling.RESAMPLES) - 1.0),
    )


def _effect(first: BySeed, second: BySeed) -> float | None:
    sides = []
    for side in (first, second):
        scores = resampling.values(list(side.values()))
        sides.append({seed: float(score) for seed, score in zip(side, scores, strict=True)})
    return intervals.hedges_g(*sides)


def _common_variance(covariance: Float64[np.ndarray, "K K"]) -> float:
    """The mean covariance of two different seeds' scores; of one seed, its variance.

    It is at least 0: sampling error alone can make the mean covariance negative.
    """
    n = len(covariance)
    if n == 1:
        return float(covariance[0, 0])
    return max(0.0, float(covariance.sum() - np.trace(covariance)) / (n * (n - 1)))


def _at_limits(examples: Examples, limits: tuple[float, float]) -> bool:
    """Whether each example has the smallest, the largest or the middle score."""
    counted = examples.weights > 0
    values = examples.totals[counted] / examples.weights[counted]
    steps = 2 * (values - limits[0]) / (limits[1] - limits[0])
    return bool((np.abs(steps - np.clip(np.round(steps), 0, 2)) < 1e-9).all())
