"""How many seeds a difference needs, and the smallest difference that so many seeds show: the paired t test's power, by the noncentral t.

Two arms are paired by seed. `deviation` is the standard deviation over seeds of their difference (`Estimate.deviation` of one), of a pilot
run or another experiment; `test` is the standard error that the choice of test examples gives to it (`bootstrap.test_error`), which no
number of seeds makes smaller; `detectable` leaves it out, and so is a lower bound. (Cohen 1988, "Statistical power analysis", chapter 2.)
"""

import math

from lm.stats.intervals import LEVEL

MOST = 100_000  # seeds that are tried


def power(
    deviation: float, difference: float, seeds: int, level: float = LEVEL, test: float = 0.0
) -> float:
    """The probability that the paired t interval of `level` over so many seeds excludes 0, on either side, if this is the true difference.

    Raises:
      ValueError: fewer than two seeds, a deviation that is not positive, a level outside (0, 1).
    """
    from scipy import special

    _check(deviation, level)
    if seeds < 2:
        raise ValueError(
            f"{seeds} seed{'' if seeds == 1 else 's'} give no interval, and so no power; give at least 2"
        )
    freedom, shift = (
        seeds - 1,
        min(abs(difference) / math.hypot(deviation / math.sqrt(seeds), test), 1e3),
    )
    needed = -float(special.stdtrit(freedom, (1 - level) / 2))
    # P(T > t) as P(-T < -t), whose shift is negative: no 1 - x near 1.
    wrong_side = float(special.nctdtr(freedom, shift, -needed))
    return float(special.nctdtr(freedom, -shift, -needed)) + (
        wrong_side if math.isfinite(wrong_side) else 0.0
    )


def most_power(difference: float, level: float, test: float) -> float:
    """The power that no number of seeds exceeds: 1 where the test examples add nothing."""
    from scipy import special

    return (
        float(special.ndtr(abs(difference) / test + special.ndtri((1 - level) / 2)))
        if test
        else 1.0
    )


def seeds_needed(
    deviation: float, difference: float, power: float = 0.8, level: float = LEVEL, test: float = 0.0
) -> int:
    """The fewest seeds for which the interval excludes 0 with this probability.

    Args:
      deviation: over seeds, of the difference of two arms. difference: the true one, in the same unit; its sign does not matter.
      power: probability of finding it. level: of the interval. test: standard error over test examples.

    Raises:
      ValueError: a difference of 0, or one that the test examples hide from any number of seeds; a deviation that is negative, a power or
        level outside (0, 1), or more than 100,000 seeds.
    """
    _check(deviation or 1.0, level)
    if not 0 < power < 1:
        raise ValueError(f"power={power} should lie between 0 and 1")
    if not difference or not math.isfinite(difference):
        raise ValueError(f"no number of seeds shows a difference of {difference}")
    if not deviation and not test:
        return 2
    deviation = deviation or 1e-9 * test
    if most_power(difference, level, test) <= power:
        raise ValueError(
            f"no number of seeds shows a difference of {difference:g} at a standard error of {test:g} over test examples"
        )
    low, high = 1, 2
    while _power(deviation, difference, high, level, test) < power:
        low, high = high, 2 * high
        if low > MOST:
            raise ValueError(
                f"a difference of {difference:g} at a deviation of {deviation:g} needs more than {MOST:,} seeds"
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
    """The smallest true difference that so many seeds show with this probability.

    Raises:
      ValueError: as `power`, or a power that is not above 1 - level (which no difference at all reaches) or not below 1.
    """
    from scipy import optimize

    _check(deviation, level)
    if not 1 - level < power < 1:
        raise ValueError(f"power={power} should lie between {1 - level:g} and 1")
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


_power = power  # under a name that the arguments do not hide


def _check(deviation: float, level: float) -> None:
    if not 0 < deviation < math.inf:
        raise ValueError(f"a deviation over seeds should be positive, not {deviation}")
    if not 0 < level < 1:
        raise ValueError(f"level={level} should lie between 0 and 1")
