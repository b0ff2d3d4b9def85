"""Multi-Bootstrap over seeds and test examples: intervals, differences and ratios that hold for another seed and another test set.

Sellam et al. 2021 ("The MultiBERTs: BERT reproductions for robustness analysis") draw seeds and examples again, both with replacement and
at once, and read the interval off the quantiles of the replicates. That is what to vary; but with the three to five seeds that
pretraining can afford, their quantiles are far too narrow: n seeds drawn from n vary by (n - 1)/n of what they should, no quantile makes up
for how badly three seeds know their own spread, and what a seed does to single examples is counted up to three times (Owen 2007, "The
pigeonhole bootstrap"). At 3 seeds and 2,000 examples they call a fifth of the differences between equal models significant instead
of 5 % (`python -m benchmarks.calibration`). So the two parts are taken apart, and put together as an interval that keeps its promise:

- Seeds. The mean of n seeds drawn with replacement has a variance known in closed form; times n/(n - 1) it is s²/n, with n - 1 degrees of
  freedom. It holds what a seed does to all examples, and to single ones.
- Test set. Each score is computed again on examples drawn with replacement, the same draws for all scores of the same examples
  (`Examples.identity`). The covariance of two seeds' replicates is what the choice of examples does to all seeds alike, and so does not shrink
  with more seeds. Two seeds, never one with itself: what is a seed's own is in the first part already. In the analysis of several
  readers and several cases (Obuchowski and Rockette 1995; Hillis 2007) these are the same two variances.
- Together: half^q = (t · sd of seeds)^q + (t' · sd of test set)^q, with q = 2 + 12/f² for f degrees of freedom over seeds. Satterthwaite's
  degrees of freedom, the usual way, are too narrow for three seeds: up to 7.8 % false positives instead of 5 %, wherever the share of the
  test set in the variance is 5 to 30 %. Adding in quadrature (q = 2, Zou and Donner 2008) is too wide: 2.3 %. The q above was chosen by
  simulation over all shares: 4.4 to 5.3 % for three seeds, 4.7 to 5.3 % for four and more, 2.3 to 5.0 % for two, and at stricter levels
  never above the level, which Holm's correction needs (benchmarks/calibration.py prints them). With more seeds q goes to 2 and t to z.

Arms are paired by seed where they share at least two seeds: of the others nothing is used then. Otherwise their seeds count as independent
(Welch's degrees of freedom). Examples are paired where `identity` is the same, and else count as independent. A score without a seed (a
baseline's) stands under the seed -1, and only the test set makes it uncertain. One seed gives no interval.

What is not covered: seeds that are far from normal, such as runs of which one in ten finds a solution the others miss.
"""

import functools
import math
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lm.stats import intervals
from lm.stats.intervals import LEVEL, SEEDS, TEST_SET, Estimate
from lm.stats.scores import Examples

RESAMPLES = 1000  # the variance's own error is then that of 999 degrees of freedom
GROUPS = 2048  # more examples than this are added up in so many groups first: the ratio of sums is the same, its variance known to 3 %
NO_SEED = -1

BySeed = Mapping[int, Examples]


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference (or ratio) of two scores.

    Attributes:
      estimate: over the seeds it was computed from, with its interval.
      p: two-sided, against the given value; below 0.05 exactly when the 95 % interval excludes it. None without an interval.
      effect: Hedges' g over seeds, `statistics.effect`; None where no deviation over seeds is known.
    """

    estimate: Estimate
    p: float | None
    effect: float | None


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean, the variance of it over seeds with its degrees of freedom (0: no seeds), the same over the test set."""

    mean: float
    n: int
    deviation: float | None
    seeds: float
    seeds_freedom: float
    test: float
    test_freedom: float

    def half(self, level: float) -> float:
        """Half the width of the interval."""
        from scipy import special

        tail = (1 - level) / 2
        test = -float(special.stdtrit(self.test_freedom, tail)) * math.sqrt(self.test)
        if not self.n:
            return test
        return combined(
            -float(special.stdtrit(self.seeds_freedom, tail)) * math.sqrt(self.seeds),
            test,
            self.seeds_freedom,
        )

    def estimate(self, level: float, limits: tuple[float, float] | None = None) -> Estimate:
        """The mean with its interval, cut at the limits."""
        if self.n == 1:
            return Estimate(self.mean, None, None, 1, None, ())
        half = self.half(level)
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
        """The smallest share of wrong intervals at which the value lies outside."""
        return (
            None
            if self.n == 1
            else intervals.p_value(lambda level: abs(self.mean - value) > self.half(level))
        )


def combined(seeds: float, test: float, freedom: float) -> float:
    """Half the width of an interval over both, from that over seeds alone, with so many degrees of freedom, and over the test set alone."""
    most = max(seeds, test)
    if most == 0:
        return 0.0
    power = 2 + 12 / freedom**2
    return most * ((seeds / most) ** power + (test / most) ** power) ** (1 / power)


def interval(
    examples: BySeed, limits: tuple[float, float] | None = None, level: float = LEVEL
) -> Estimate:
    """The mean of a score over seeds, with its interval over seeds and test set.

    Args:
      examples: what stands behind the score, by seed; {-1: …} for one that depends on no seed.
      limits: the smallest and largest possible score; the interval is cut there. Where every example is right, wrong or a tie (both limits
        or the middle), two more of each limit are added for the test set's variance, as Agresti and Coull 1998 do: without them a model
        that errs on none of 200 examples would seem certain never to.
      level: the share of such intervals that hold the true value.

    Raises:
      ValueError: no examples, or a score that is not finite.
    """
    seeds = sorted(examples)
    behind = [examples[seed] for seed in seeds]
    values = _values(behind)
    covariance, count = _covariance(behind)
    test = _shared(covariance)
    if limits is not None and all(_at_limits(each, limits) for each in behind):
        low, high = limits
        mean, known = float(values.mean()), count**2 * test
        test = (known + 2 * (mean - low) ** 2 + 2 * (high - mean) ** 2) / (count + 4) ** 2
    return _spread(values, NO_SEED in examples, test, count).estimate(level, limits)


def difference(
    first: BySeed, second: BySeed, against: float = 0.0, level: float = LEVEL
) -> Difference:
    """The difference first - second with its interval over seeds and test set, and its p against `against`.

    Raises:
      ValueError: a side without examples, a score that is not finite.
    """
    spread = spread_of_difference(first, second)
    return Difference(spread.estimate(level), spread.p(against), _effect(first, second))


def ratio(first: BySeed, second: BySeed, against: float = 1.0, level: float = LEVEL) -> Difference:
    """The ratio first / second, the mean over common seeds, with its interval, and its p against `against`.

    What the test set does to it is propagated to first order.

    Raises:
      ValueError: no common seed (and neither is without seeds), a divisor of zero, a score that is not finite.
    """
    seeds = _paired(first, second, fewest=1)
    if seeds is None:
        raise ValueError(
            f"a ratio needs a seed that both have: {sorted(first)} and {sorted(second)}"
        )
    if not _values([second[_at(second, seed)] for seed in seeds]).all():
        raise ValueError("a ratio needs a divisor other than zero")
    spread = _contrast(first, second, seeds, lambda a, b: (a / b, 1 / b, -a / b**2))
    return Difference(spread.estimate(level), spread.p(against), _effect(first, second))


def spread_of_difference(first: BySeed, second: BySeed) -> Spread:
    """What `difference` makes its interval and its p of."""
    seeds = _paired(first, second)
    if seeds is None:
        return _unpaired(first, second)
    return _contrast(first, second, seeds, lambda a, b: (a - b, np.ones_like(a), -np.ones_like(b)))


def test_error(first: BySeed, second: BySeed | None = None, factor: float = 1.0) -> float:
    """The standard error that the choice of test examples gives to first - factor · second, whatever the number of seeds."""
    if second is None:
        return math.sqrt(_shared(_covariance([first[seed] for seed in sorted(first)])[0]))
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


def _paired(first: BySeed, second: BySeed, fewest: int = 2) -> list[int] | None:
    """The seeds to pair by, [-1] where neither side has any; None where fewer than `fewest` are in common though each side has as many."""
    if not first or not second:
        raise ValueError("a difference needs examples on both sides")
    if NO_SEED in first or NO_SEED in second:
        return sorted(second if NO_SEED in first else first)
    common = sorted(first.keys() & second.keys())
    enough = min(fewest, len(first), len(second))
    return common if len(common) >= max(1, enough) else None


def _at(side: BySeed, seed: int) -> int:
    """The seed under which a side's score stands: a baseline's is the same beside every seed."""
    return NO_SEED if NO_SEED in side else seed


def _contrast(first: BySeed, second: BySeed, seeds: Sequence[int], function) -> Spread:
    """The spread of function(first, second), seed by seed. `function` gives the values and the slopes in either."""
    behind = [side[_at(side, seed)] for side in (first, second) for seed in seeds]
    scores, n = _values(behind), len(seeds)
    values, *slopes = function(scores[:n], scores[n:])
    covariance, count = _covariance(behind)
    slope = np.concatenate(slopes)
    weighted = slope[:, None] * covariance * slope[None]
    parts = weighted[:n, :n] + weighted[:n, n:] + weighted[n:, :n] + weighted[n:, n:]
    test = _shared(parts)
    if all(_at_limits(each, (0.0, 1.0)) for each in behind):
        # As if two examples told the sides apart, one in either way (Bonett and Price 2012 add as many).
        test = max(test, 2 * float(np.abs(slope).max()) ** 2 / count**2)
    return _spread(values, seeds == [NO_SEED], test, count)


def _unpaired(first: BySeed, second: BySeed) -> Spread:
    """The difference of two means over seeds that have nothing to do with each other."""
    sides = [[side[seed] for seed in sorted(side)] for side in (first, second)]
    values, sizes = [_values(side) for side in sides], [len(side) for side in sides]
    mean = float(values[0].mean() - values[1].mean())
    if min(sizes) < 2:
        return Spread(mean, 1, None, 0.0, 0.0, 0.0, 1.0)
    covariance, count = _covariance(sides[0] + sides[1])
    n = sizes[0]
    across = float(covariance[:n, n:].mean())
    test = max(0.0, _shared(covariance[:n, :n]) + _shared(covariance[n:, n:]) - 2 * across)
    parts = [float(each.var(ddof=1)) / len(each) for each in values]
    both = sum(parts)
    freedom = (
        both**2 / sum(part**2 / (size - 1) for part, size in zip(parts, sizes, strict=True))
        if both
        else min(sizes) - 1.0
    )
    deviation = math.sqrt(sum(float(each.var(ddof=1)) for each in values))
    return Spread(mean, min(sizes), deviation, both, freedom, test, min(count, RESAMPLES) - 1.0)


def _spread(values: np.ndarray, fixed: bool, test: float, count: int) -> Spread:
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
        max(1.0, min(count, RESAMPLES) - 1.0),
    )


def _effect(first: BySeed, second: BySeed) -> float | None:
    values = [
        {seed: float(value) for seed, value in zip(side, _values(list(side.values())), strict=True)}
        for side in (first, second)
    ]
    return intervals.effect(*values)


def _values(behind: Sequence[Examples]) -> np.ndarray:
    """The scores: totals over weights."""
    if not behind:
        raise ValueError("a score needs examples")
    with np.errstate(all="ignore"):
        values = np.array([each.totals.sum() / each.weights.sum() for each in behind], np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"scores should be finite, not {values.tolist()}")
    return values


def _shared(covariance: np.ndarray) -> float:
    """The mean covariance of two different seeds' scores, the variance of the only one; not below 0, which noise alone would make it."""
    n = len(covariance)
    if n == 1:
        return float(covariance[0, 0])
    return max(0.0, float(covariance.sum() - np.trace(covariance)) / (n * (n - 1)))


def _at_limits(examples: Examples, limits: tuple[float, float]) -> bool:
    """Whether each example has the smallest, the largest or the middle score."""
    asked = examples.weights > 0
    steps = (
        2 * (examples.totals[asked] / examples.weights[asked] - limits[0]) / (limits[1] - limits[0])
    )
    return bool((np.abs(steps - np.clip(np.round(steps), 0, 2)) < 1e-9).all())


def _covariance(behind: Sequence[Examples]) -> tuple[np.ndarray, int]:
    """Covariance of the scores over test sets [K, K], 0 for scores of different examples; and the fewest examples behind one."""
    replicates = _replicates(behind)
    asked = np.array([each.identity for each in behind])
    covariance = np.atleast_2d(np.cov(replicates))
    return np.where(asked[:, None] == asked[None], covariance, 0.0), min(
        len(each.totals) for each in behind
    )


_KEPT: dict[int, tuple[weakref.ref, np.ndarray]] = {}


def _replicates(behind: Sequence[Examples]) -> np.ndarray:
    """Each score on each of the resampled test sets, minus the score, scaled to be unbiased in variance: [K, RESAMPLES].

    Kept as long as the examples are: a report asks for the same score in tables, in pictures and in differences.
    """
    missing: dict[int, dict[int, Examples]] = {}  # by their number, so that one product serves all
    for each in behind:
        kept = _KEPT.get(id(each))
        if kept is None or kept[0]() is not each:
            missing.setdefault(len(each.totals), {})[id(each)] = each
    for alike in missing.values():
        for (key, each), found in zip(alike.items(), _resampled(list(alike.values())), strict=True):
            _KEPT[key] = (weakref.ref(each, functools.partial(_forget, key)), found)
    return np.stack([_KEPT[id(each)][1] for each in behind])


def _forget(key: int, _) -> None:
    _KEPT.pop(key, None)


def _resampled(behind: Sequence[Examples]) -> np.ndarray:
    """`_replicates` of scores with the same number of examples."""
    values = np.array([each.totals.sum() / each.weights.sum() for each in behind])
    weights = np.stack([each.weights for each in behind], 1).astype(np.float64)
    # Residuals from the score: what is drawn is then small, and float32 exact enough.
    parts = np.concatenate(
        [np.stack([each.totals for each in behind], 1) - values * weights, weights], 1
    )
    if len(parts) > GROUPS:
        parts = _grouped(parts)
    count, scale = len(parts), np.maximum(np.abs(parts).max(0), 1e-300)
    drawn = (_draws(count) @ (parts / scale).astype(np.float32)).astype(np.float64) * scale
    residuals, weight = np.split(drawn.T, 2)
    # A resample that drew nothing of any weight, as happens with a handful of examples, says nothing.
    return np.where(weight > 0, residuals / np.where(weight > 0, weight, 1.0), 0.0) * math.sqrt(
        count / max(1, count - 1)
    )


def _grouped(parts: np.ndarray) -> np.ndarray:
    """The rows added up in GROUPS groups at random, the same for all scores of as many examples."""
    order = np.random.default_rng(1).permutation(len(parts))
    edges = np.linspace(0, len(parts), GROUPS + 1).astype(int)[:-1]
    return np.add.reduceat(parts[order], edges, axis=0)


@functools.lru_cache(maxsize=8)
def _draws(count: int) -> np.ndarray:
    """How often each of `count` examples is drawn, in each resample: multinomial, float32 [RESAMPLES, count], the same every time."""
    picked = np.random.default_rng(0).integers(0, count, (RESAMPLES, count))
    picked += count * np.arange(RESAMPLES)[:, None]
    return (
        np.bincount(picked.ravel(), minlength=RESAMPLES * count)
        .reshape(RESAMPLES, count)
        .astype(np.float32)
    )
