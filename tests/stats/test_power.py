"""Power against textbook sample sizes, simulation, and the noncentral t written as an integral."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from lm.stats import power


@pytest.mark.parametrize(
    ("effect", "seeds"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10), (2.0, 5)]
)
def test_textbook_sample_sizes_of_a_paired_test(effect, seeds):
    assert power.seeds_needed(1.0, effect) == seeds
    assert power.seeds_needed(0.03, -0.03 * effect) == seeds


def test_power_is_an_integral_of_the_normal_over_the_chi():
    n, effect = 5, 1.3
    needed = stats.t.ppf(0.975, n - 1)

    def given_spread(s):  # both sides, for a sample deviation s
        shift = effect * math.sqrt(n)
        return stats.norm.sf(needed * s - shift) + stats.norm.cdf(-needed * s - shift)

    density = lambda s: stats.chi.pdf(s * math.sqrt(n - 1), n - 1) * math.sqrt(n - 1)
    expected = integrate.quad(lambda s: given_spread(s) * density(s), 0, 10)[0]
    assert power.power(2.0, 2.0 * effect, n) == pytest.approx(expected, rel=1e-6)


def test_power_by_simulation():
    draws = np.random.default_rng(0).normal(0.04, 0.02, (20_000, 3))
    excluded = np.abs(draws.mean(1)) / (draws.std(1, ddof=1) / math.sqrt(3)) > stats.t.ppf(0.975, 2)
    assert power.power(0.02, 0.04, 3) == pytest.approx(excluded.mean(), abs=0.012)


def test_without_a_difference_the_power_is_the_level():
    assert power.power(1.0, 0.0, 4) == pytest.approx(0.05)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.001, 10), st.integers(2, 40), st.floats(0.1, 0.99))
def test_the_smallest_difference_has_the_power_and_needs_the_seeds(deviation, seeds, wanted):
    difference = power.detectable(deviation, seeds, wanted)
    assert power.power(deviation, difference, seeds) == pytest.approx(wanted, abs=1e-4)
    assert power.seeds_needed(deviation, difference * 1.001, wanted) <= seeds


def test_seeds_that_do_not_differ_need_two():
    assert power.seeds_needed(0.0, 0.1) == 2


def test_more_seeds_do_not_reduce_the_error_of_the_test_set():
    needed = power.seeds_needed(0.03, 0.02, test=0.005)
    assert needed > power.seeds_needed(0.03, 0.02)
    assert (
        power.power(0.03, 0.02, needed - 1, test=0.005)
        < 0.8
        <= power.power(0.03, 0.02, needed, test=0.005)
    )
    # By simulation with many seeds: the mean varies with the test set alone, with a known error.
    draws = np.random.default_rng(0).normal(0.02, 0.008, 20_000)
    assert power.most_power(0.02, 0.95, 0.008) == pytest.approx(
        (np.abs(draws) > 1.96 * 0.008).mean(), abs=0.01
    )
    with pytest.raises(
        ValueError,
        match=r"no number of seeds can detect a difference of 0\.02 at a standard error of 0\.008",
    ):
        power.seeds_needed(0.03, 0.02, test=0.008)


@pytest.mark.parametrize(
    "call",
    [
        lambda: power.power(1.0, 1.0, 1),
        lambda: power.power(0.0, 1.0, 3),
        lambda: power.seeds_needed(1.0, 0.0),
        lambda: power.seeds_needed(-1.0, 1.0),
        lambda: power.seeds_needed(1.0, 1.0, power=1.0),
        lambda: power.seeds_needed(1.0, 1e-6),
        lambda: power.detectable(1.0, 3, power=0.01),
        lambda: power.detectable(1.0, 3, level=1.0),
    ],
)
def test_impossible_input_is_rejected(call):
    with pytest.raises(ValueError):
        call()
