"""Do intervals keep their promise? The simulation of benchmarks/calibration.py at reduced size, which must see it where one does not."""

import functools

import numpy as np
import pytest
from scipy import special

from benchmarks import calibration
from lm.stats import bootstrap

COMPARISONS = 400
NORMAL = calibration.Setting("nats", 3, 200, 0.1, 4.0, -0.03)
ERROR = 3 * (0.05 * 0.95 / COMPARISONS) ** 0.5  # three standard errors

simulate = functools.cache(calibration.simulate)


@pytest.mark.parametrize(
    "setting",
    [
        calibration.Setting("nats", 3, 200, 0.005, 4.0, -0.03),
        NORMAL,
        calibration.Setting("share", 5, 200, 0.1, 0.52, 0.15),
    ],
    ids=str,
)
def test_false_positives_and_coverage(setting):
    found = simulate(setting, COMPARISONS)
    assert found["false_positives"] == pytest.approx(0.05, abs=ERROR)
    assert found["coverage"] == pytest.approx(0.95, abs=ERROR)
    assert found["one"] == pytest.approx(0.95, abs=ERROR)


def test_the_simulation_sees_that_plain_percentiles_are_too_narrow():
    found = simulate(NORMAL, COMPARISONS)
    assert found["plain"] > 0.05 + 3 * ERROR


@pytest.mark.parametrize("seeds", [3, 4, 5, 10])
def test_both_parts_together_whatever_the_test_set_s_share(seeds):
    """`combined` on 100,000 normal draws: 4 to 6 % false positives at each share of the test set, where neither Satterthwaite's form
    nor quadrature manages that for three seeds."""
    rng, freedom = np.random.default_rng(0), seeds - 1
    off, spread = (
        np.abs(rng.standard_normal(100_000)),
        np.sqrt(rng.chisquare(freedom, 100_000) / freedom),
    )
    t, z = special.stdtrit(freedom, 0.975), special.ndtri(0.975)
    worst = {"combined": 0.0, "quadrature": 0.0, "Satterthwaite": 0.0}
    for share in (0.05, 0.2, 0.5, 0.8, 0.95):
        parts, test = t * spread * (1 - share) ** 0.5, z * share**0.5
        halves = {"quadrature": np.hypot(parts, test)}
        halves["combined"] = np.array(
            [bootstrap.combined(each, test, freedom) for each in parts[:10_000]]
        )
        variance = spread**2 * (1 - share)
        total = variance + share
        halves["Satterthwaite"] = special.stdtrit(
            freedom * (total / variance) ** 2, 0.975
        ) * np.sqrt(total)
        for name, half in halves.items():
            worst[name] = max(worst[name], abs((off[: len(half)] > half).mean() - 0.05))
    assert worst["combined"] < 0.01
    if seeds == 3:
        assert worst["quadrature"] > 0.015 and worst["Satterthwaite"] > 0.015
