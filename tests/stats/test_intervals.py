"""Intervals against scipy and computations by hand; their coverage in small simulations."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lm.stats import hypothesis_tests, intervals


def test_mean_of_three_by_hand():
    # mean 2, standard deviation 1, t(0.975, 2) = 4.302653 from a printed table,
    # half-width 4.302653 / sqrt(3)
    estimate = intervals.over_seeds([1.0, 2.0, 3.0])
    assert estimate.mean == 2 and estimate.deviation == 1 and estimate.n == 3
    assert estimate.low == pytest.approx(2 - 2.484138, abs=1e-6)
    assert estimate.high == pytest.approx(2 + 2.484138, abs=1e-6)
    assert estimate.covers == ("seeds",) and estimate.note == "seeds"


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_mean_agrees_with_scipy(level):
    values = np.random.default_rng(0).normal(5, 2, 7).tolist()
    expected = stats.ttest_1samp(values, 0).confidence_interval(level)
    estimate = intervals.over_seeds(values, level=level)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_one_seed_has_no_interval():
    estimate = intervals.over_seeds([0.7], test=intervals.wilson(0.7, 100))
    assert (
        estimate.mean == 0.7
        and not estimate.has_interval
        and estimate.low is None
        and estimate.high is None
    )
    assert estimate.covers == () and "one seed" in estimate.note
    assert (
        hypothesis_tests.above(estimate, 0.1)
        == hypothesis_tests.below(estimate, 0.9)
        == "inconclusive"
    )


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (3, 10), (10, 10), (640, 1000), (1, 1)])
def test_wilson_agrees_with_scipy(hits, count):
    expected = stats.binomtest(hits, count).proportion_ci(method="wilson")
    assert intervals.wilson(hits / count, count) == pytest.approx(
        (expected.low, expected.high), abs=1e-12
    )


def test_normal_by_hand():
    assert intervals.normal(10.0, 0.5) == pytest.approx((10 - 0.979982, 10 + 0.979982), abs=1e-6)


def test_both_parts_add_in_quadrature():
    values, count = [0.60, 0.62, 0.64], 400
    seeds, test = intervals.over_seeds(values), intervals.wilson(0.62, count)
    both = intervals.over_seeds(values, test)
    assert both.low == pytest.approx(0.62 - math.hypot(0.62 - seeds.low, 0.62 - test[0]))
    assert both.high == pytest.approx(0.62 + math.hypot(seeds.high - 0.62, test[1] - 0.62))
    assert both.covers == ("seeds", "test set") and both.note == "seeds and test set"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.integers(1, 10_000))
def test_interval_contains_the_mean_and_both_parts_and_stays_in_limits(values, count):
    mean = math.fsum(values) / len(values)
    test = intervals.wilson(mean, count)
    both = intervals.over_seeds(values, test, limits=(0, 1))
    seeds = intervals.over_seeds(values, limits=(0, 1))
    assert 0 <= both.low <= min(seeds.low, test[0]) + 1e-9
    assert max(seeds.high, test[1]) - 1e-9 <= both.high <= 1
    assert both.low - 1e-12 <= both.mean <= both.high + 1e-12


def test_fixed_values():
    exact, measured = intervals.fixed(6.52), intervals.fixed(0.85, intervals.wilson(0.85, 500))
    assert not exact.has_interval and exact.n == 0 and "does not depend on a seed" in exact.note
    assert measured.covers == ("test set",) and measured.low < 0.85 < measured.high


def test_paired_agrees_with_scipy_and_uses_common_seeds_only():
    first, second = {0: 0.58, 1: 0.61, 2: 0.55, 9: 0.0}, {2: 0.45, 1: 0.44, 0: 0.47, 5: 1.0}
    expected = stats.ttest_rel([0.58, 0.61, 0.55], [0.47, 0.44, 0.45]).confidence_interval(0.95)
    estimate = intervals.paired(first, second)
    assert estimate.n == 3 and estimate.mean == pytest.approx((0.11 + 0.17 + 0.10) / 3)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))
    wider = intervals.paired(first, second, error=0.01)
    assert wider.high - wider.mean == pytest.approx(
        math.hypot(estimate.high - estimate.mean, 0.01 * 1.959964), abs=1e-7
    )
    assert wider.covers == ("seeds", "test set")


def test_pairing_removes_what_seeds_share():
    first = {0: 0.10, 1: 0.50, 2: 0.90}
    second = {seed: value - 0.05 + 0.001 * seed for seed, value in first.items()}
    estimate = intervals.paired(first, second)
    assert hypothesis_tests.above(estimate, 0) == "supported"
    apart = hypothesis_tests.apart_above(
        intervals.over_seeds(list(first.values())), intervals.over_seeds(list(second.values()))
    )
    assert apart == "inconclusive"


def test_ratios_by_hand():
    estimate = intervals.ratios({0: 2.0, 1: 3.0}, {0: 1.0, 1: 2.0})
    assert estimate.mean == 1.75 and estimate.high == pytest.approx(
        1.75 + 12.706205 * 0.25, abs=1e-5
    )


def test_difference_error_by_hand():
    assert intervals.difference_error(0.5, 0.5, 200) == pytest.approx(0.05)


@pytest.mark.parametrize(
    "call",
    [
        lambda: intervals.over_seeds([]),
        lambda: intervals.over_seeds([1.0, math.nan]),
        lambda: intervals.over_seeds([1.0, 2.0], test=(3.0, 4.0)),
        lambda: intervals.fixed(math.inf),
        lambda: intervals.wilson(1.2, 10),
        lambda: intervals.wilson(0.5, 0),
        lambda: intervals.normal(1.0, -1.0),
        lambda: intervals.paired({0: 1.0}, {1: 1.0}),
        lambda: intervals.ratios({0: 1.0}, {1: 1.0}),
        lambda: intervals.ratios({0: 1.0}, {0: 0.0}),
    ],
)
def test_invalid_input_raises(call):
    with pytest.raises(ValueError):
        call()


def test_coverage_over_seeds():
    # 3,000 experiments with three seeds: the standard error of the coverage is 0.4 points
    draws = np.random.default_rng(1).normal(4.9, 0.03, (3000, 3))
    hits = [(e := intervals.over_seeds(row)).low <= 4.9 <= e.high for row in draws.tolist()]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.012)


def test_coverage_over_seeds_and_test_set():
    # Each experiment draws one test set that its three models share, as in lm.compare. A model of
    # skill p solves example i if its difficulty u_i < p. Models fail on the same examples, which is
    # the worst case for an interval over seeds alone.
    rng = np.random.default_rng(2)
    skill = rng.normal(0.6, 0.01, (1000, 3))
    difficulty = rng.random((1000, 1, 500), dtype=np.float32)
    scores = (difficulty < skill[..., None]).mean(-1)
    both, seeds = [], []
    for row in scores.tolist():
        test = intervals.wilson(math.fsum(row) / 3, 500)
        e = intervals.over_seeds(row, test, limits=(0, 1))
        both.append(e.low <= 0.6 <= e.high)
        e = intervals.over_seeds(row)
        seeds.append(e.low <= 0.6 <= e.high)
    assert np.mean(both) > 0.94, "the interval must cover seeds and test set"
    assert np.mean(seeds) < 0.9, (
        "seeds alone must not cover the test set here, or the simulation proves nothing"
    )


def test_hedges_g_by_hand():
    # Cohen's d = 2 / 1 with four degrees of freedom, times Γ(2) / (Γ(1.5) √2) = 0.7979
    assert intervals.hedges_g({0: 3.0, 1: 4.0, 2: 5.0}, {0: 1.0, 1: 2.0, 2: 3.0}) == pytest.approx(
        2 * 0.797885, rel=1e-5
    )
    assert intervals.hedges_g({0: 3.0, 1: 4.0, 2: 5.0}, {-1: 2.0}) == pytest.approx(
        2 * 0.564190, rel=1e-5
    )
    assert (
        intervals.hedges_g({0: 3.0}, {0: 1.0}) is None
        and intervals.hedges_g({0: 1.0, 1: 1.0}, {0: 2.0, 1: 2.0}) is None
    )
