"""Power of the paired t test: seeds needed for a difference, smallest detectable difference.

Two arms are paired by seed. `deviation` is the standard deviation over seeds of their difference
(`Estimate.deviation`), from a pilot run or another experiment. `test` is the standard error of the
difference due to the choice of test examples (`bootstrap.test_error`), which more seeds do not
reduce; `detectable` ignores it and is therefore a lower bound.

Source: Cohen 1988, "Statistical power analysis", chapter 2, by the noncentral t distribution.
"""

import math

from lm.stats.intervals import LEVEL

MAX_SEEDS = 100_000  # maximum number of seeds that the search tries


def power(
    deviation: float, difference: float, seeds: int, level: float = LEVEL, test: float = 0.0
) -> float:
    """Returns the probability that the paired t interval excludes 0, on either side.

    Args:
      deviation: standard deviation over seeds of the difference of two arms.
      difference: the true difference, in the unit of `deviation`; its sign does not matter.
      seeds: number of seeds.
      level: confidence level of the interval.
      test: standard error of the difference over test examples.

    Raises:
      ValueError: fewer than two seeds, a deviation that is not positive, a level outside (0, 1).
    """
    from scipy import special

    _check(deviation, level)
    if seeds < 2:
        raise ValueError(
            f"{seeds} seed{'' if seeds == 1 else 's'} give no interval and therefore no power; use"
            " at least 2 seeds"
        )
    dof, shift = (
        seeds - 1,
        min(abs(difference) / math.hypot(deviation / math.sqrt(seeds), test), 1e3),
    )
    needed = -float(special.stdtrit(dof, (1 - level) / 2))
    # P(T > t) as P(-T < -t), with a negative shift: avoids 1 - x near 1.
    wrong_side = float(special.nctdtr(dof, shift, -needed))
    return float(special.nctdtr(dof, -shift, -needed)) + (
        wrong_side if math.isfinite(wrong_side) else 0.0
    )


def most_power(difference: float, level: float, test: float) -> float:
    """Returns the upper limit of the power over all numbers of seeds: 1 if `test` is 0.

    Args:
      difference: the true difference; its sign does not matter.
      level: confidence level of the interval.
      test: standard error of the difference over test examples.
    """
    from scipy import special

    return (
        float(special.ndtr(abs(difference) / test + special.ndtri((1 - level) / 2)))
        if test
        else 1.0
    )


def seeds_needed(
    deviation: float, difference: float, power: float = 0.8, level: float = LEVEL, test: float = 0.0
) -> int:
    """Returns the smallest number of seeds for which the interval excludes 0 with this power.

    Args:
      deviation: standard deviation over seeds of the difference of two arms.
      difference: the true difference, in the unit of `deviation`; its sign does not matter.
      power: probability of detecting the difference.
      level: confidence level of the interval.
      test: standard error of the difference over test examples.

    Raises:
      ValueError: the difference is 0, or too small to be detected on these test examples with any
        number of seeds; the deviation is negative; the power or the level is outside (0, 1); or
        more than 100,000 seeds are needed.
    """
    _check(deviation or 1.0, level)
    if not 0 < power < 1:
        raise ValueError(f"power={power} must be between 0 and 1")
    if not difference or not math.isfinite(difference):
        raise ValueError(f"no number of seeds can detect a difference of {difference}")
    if not deviation and not test:
        return 2
    deviation = deviation or 1e-9 * test
    if most_power(difference, level, test) <= power:
        raise ValueError(
            f"no number of seeds can detect a difference of {difference:g} at a standard error of"
            f" {test:g} over test examples"
        )
    low, high = 1, 2
    while _power(deviation, difference, high, level, test) < power:
        low, high = high, 2 * high
        if low > MAX_SEEDS:
            raise ValueError(
                f"a difference of {difference:g} at a deviation of {deviation:g} needs more than"
                f" {MAX_SEEDS:,} seeds"
            )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (low, middle)
            if _power(deviation, difference, middle, level, test) >= power
            else (middle, high)
        )
    return high


def detectable(deviation: float, seeds: int, power: float = 0.8, level: float = LEVEL) -> float:
    """Returns the smallest true difference that is detected with this power.

    Args:
      deviation: standard deviation over seeds of the difference of two arms.
      seeds: number of seeds.
      power: probability of detecting the difference.
      level: confidence level of the interval.

    Raises:
      ValueError: as for `power`; or the power is not above 1 - level, which a difference of 0
        already reaches, or not below 1.
    """
    from scipy import optimize

    _check(deviation, level)
    if not 1 - level < power < 1:
        raise ValueError(f"power={power} must be between {1 - level:g} and 1")
    high = deviation
    while _power(deviation, high, seeds, level) < power:
        high *= 2
    return float(
        optimize.brentq(
            lambda difference: _power(deviation, difference, seeds, level) - power,
            0.0,
            high,
            rtol=1e-9,
        )
    )


_power = power  # an alias that the arguments called `power` do not shadow


def _check(deviation: float, level: float) -> None:
    if not 0 < deviation < math.inf:
        raise ValueError(f"the deviation over seeds must be positive, not {deviation}")
    if not 0 < level < 1:
        raise ValueError(f"level={level} must be between 0 and 1")
