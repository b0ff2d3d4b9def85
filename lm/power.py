"""How many seeds a difference needs. (A stand-in until the statistics are merged.)"""


def seeds_needed(deviation: float, difference: float, power: float = 0.8, level: float = 0.95) -> int:
    """The fewest seeds for which a paired t test finds `difference` with probability `power`."""
    import math

    from scipy import stats

    for seeds in range(2, 100_000):
        critical = stats.t.ppf(0.5 + level / 2, seeds - 1)
        if 1 - stats.nct.cdf(critical, seeds - 1, difference / deviation * math.sqrt(seeds)) >= power:
            return seeds
    return 100_000
