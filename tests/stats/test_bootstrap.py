"""The bootstrap's two variances against an analysis of variance and closed forms; pairing."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lm.stats import bootstrap, intervals, resampling
from lm.stats.scores import Examples

COUNT = 400


def arm(
    seeds=3,
    count=COUNT,
    identity="rows",
    level=4.0,
    rng=0,
    spread=0.02,
    noise=0.1,
    difficulty=None,
    weights=None,
):
    """Scores of rows by seed: a difficulty per row, an offset per seed, noise per row and seed."""
    rng = np.random.default_rng(rng)
    difficulty = rng.normal(0, 0.5, count) if difficulty is None else difficulty
    weights = np.full(count, 30.0) if weights is None else weights
    return {
        seed: Examples(
            (level + difficulty + rng.normal(0, spread) + rng.normal(0, noise, count)) * weights,
            weights,
            identity,
        )
        for seed in range(seeds)
    }


def means(side):
    return np.array([item.totals.sum() / item.weights.sum() for item in side.values()])


def test_covariance_over_test_sets_is_that_of_residuals():
    weights = np.random.default_rng(5).integers(5, 60, COUNT).astype(float)
    side = arm(weights=weights)
    result, count = resampling.covariance(list(side.values()))
    residuals = (
        np.stack(
            [
                item.totals - value * weights
                for item, value in zip(side.values(), means(side), strict=True)
            ]
        )
        / weights.sum()
    )
    assert count == COUNT
    np.testing.assert_allclose(
        result, residuals @ residuals.T, rtol=0.12
    )  # 1,000 resamples: one standard error is 4.5 %


def test_interval_is_the_analysis_of_variance_of_seeds_and_rows():
    side = arm(seeds=4)
    table = np.stack([item.totals / item.weights for item in side.values()])
    by_seed, by_row = table.mean(1), table.mean(0)
    rest = table - by_seed[:, None] - by_row[None] + table.mean()
    n, count = table.shape
    square_rows = n * ((by_row - table.mean()) ** 2).sum() / (count - 1)
    square_rest = (rest**2).sum() / ((n - 1) * (count - 1))
    test = (square_rows - square_rest) / (n * count)  # the effect of the rows on all seeds alike
    seeds = by_seed.var(ddof=1) / n
    half = bootstrap.combined(
        stats.t.ppf(0.975, 3) * math.sqrt(seeds), stats.norm.ppf(0.975) * math.sqrt(test), 3
    )
    result = bootstrap.interval(side)
    assert (
        result.mean == pytest.approx(table.mean())
        and result.n == 4
        and result.covers == ("seeds", "test set")
    )
    assert result.deviation == pytest.approx(by_seed.std(ddof=1))
    assert result.high - result.mean == pytest.approx(
        half, rel=0.06
    ) and result.mean - result.low == pytest.approx(half, rel=0.06)


def test_without_variance_of_examples_it_is_student_s_t():
    a, b = (
        {seed: Examples(np.full(50, value), np.ones(50), "x") for seed, value in enumerate(values)}
        for values in ((3.0, 4, 6), (1.0, 3, 3))
    )
    expected = stats.ttest_rel([3, 4, 6], [1, 3, 3])
    result = bootstrap.difference(a, b)
    interval = expected.confidence_interval(0.95)
    assert (result.estimate.low, result.estimate.high) == pytest.approx(
        (interval.low, interval.high)
    )
    assert result.p == pytest.approx(expected.pvalue, rel=1e-5)


def test_without_variance_of_seeds_it_is_the_test_set_s():
    one = next(iter(arm(seeds=1).values()))
    result = bootstrap.interval(
        {seed: Examples(one.totals, one.weights, one.identity) for seed in range(5)}
    )
    values = one.totals / one.weights
    assert result.high - result.mean == pytest.approx(
        1.96 * values.std(ddof=1) / math.sqrt(COUNT), rel=0.05
    )
    alone = bootstrap.interval({-1: one})
    assert (
        alone.n == 0
        and alone.covers == ("test set",)
        and alone.high == pytest.approx(result.high, rel=1e-6)
    )


def test_shared_examples_cancel_out():
    difficulty = np.random.default_rng(9).normal(0, 1.0, COUNT)
    first, second = (arm(rng=rng, difficulty=difficulty, level=4.0 + 0.02 * rng) for rng in (1, 2))
    elsewhere = {
        seed: Examples(item.totals, item.weights, "other rows") for seed, item in second.items()
    }
    paired, apart = (
        bootstrap.difference(first, second).estimate,
        bootstrap.difference(first, elsewhere).estimate,
    )
    assert paired.mean == pytest.approx(apart.mean)
    assert apart.high - apart.low > 2 * (paired.high - paired.low)


def test_seeds_are_paired_if_two_are_shared():
    first, second = arm(seeds=3, rng=1), arm(seeds=4, rng=2)
    assert bootstrap.difference(first, second).estimate.n == 3
    later = {seed + 10: item for seed, item in second.items()}
    result = bootstrap.difference(first, later).estimate
    assert result.n == 3 and result.mean == pytest.approx(
        means(first).mean() - means(second).mean()
    )
    welch = stats.ttest_ind(means(first), means(second), equal_var=False).confidence_interval(0.95)
    assert result.high - result.low > 0.9 * (welch.high - welch.low)


def test_a_baseline_is_paired_by_example_and_has_no_seed():
    difficulty = np.random.default_rng(9).normal(0, 1.0, COUNT)
    side, baseline = (
        arm(difficulty=difficulty),
        {-1: next(iter(arm(seeds=1, rng=7, difficulty=difficulty, level=4.1).values()))},
    )
    result = bootstrap.difference(side, baseline)
    assert result.estimate.n == 3 and result.estimate.mean == pytest.approx(
        means(side).mean() - means(baseline)[0]
    )
    assert (
        result.estimate.high - result.estimate.low
        < bootstrap.interval(baseline).high - bootstrap.interval(baseline).low
    )
    back = bootstrap.difference(baseline, side).estimate
    assert (back.low, back.high) == pytest.approx((-result.estimate.high, -result.estimate.low))


def test_one_seed_has_no_interval():
    one = bootstrap.difference(arm(seeds=1), arm(seeds=1, rng=1))
    assert not one.estimate.has_interval and one.p is None and one.effect is None
    assert (
        not bootstrap.interval(arm(seeds=1)).has_interval
        and not bootstrap.ratio(arm(seeds=1), arm(seeds=3, rng=1)).estimate.has_interval
    )


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(2, 5),
    st.floats(-0.1, 0.1),
    st.sampled_from([0.9, 0.95, 0.99]),
)
def test_p_and_interval_agree(rng, seeds, against, level):
    first, second = arm(seeds, 40, rng=rng), arm(seeds, 40, rng=rng + 1)
    result = bootstrap.difference(first, second, against, level)
    excluded = not result.estimate.low <= against <= result.estimate.high
    assert excluded == (result.p < 1 - level)
    assert bootstrap.difference(second, first, -against, level).p == pytest.approx(result.p)


def test_a_ratio_by_hand():
    first, second = arm(rng=1), arm(rng=2, level=5.0)
    result = bootstrap.ratio(first, second, against=0.8)
    ratios = means(first) / means(second)
    assert result.estimate.mean == pytest.approx(
        ratios.mean()
    ) and result.estimate.deviation == pytest.approx(ratios.std(ddof=1))
    assert (result.p < 0.05) == (not result.estimate.low <= 0.8 <= result.estimate.high)
    with pytest.raises(ValueError, match="divisor"):
        bootstrap.ratio(
            first, {seed: Examples(np.zeros(COUNT), np.ones(COUNT), "rows") for seed in range(3)}
        )


def test_a_model_that_never_errs_is_not_certain():
    perfect = {seed: Examples(np.ones(200), np.ones(200), "x") for seed in range(3)}
    result = bootstrap.interval(perfect, limits=(0.0, 1.0))
    assert result.high == result.mean == 1.0 and result.low == pytest.approx(
        1 - 3 / 200, abs=0.003
    )  # the rule of three
    assert bootstrap.difference(perfect, perfect).p == 1.0


def test_grouping_many_examples_does_not_change_the_interval():
    side = arm(count=20_000, rng=3)
    result = bootstrap.interval({-1: side[0]})
    values = side[0].totals / side[0].weights
    assert result.mean == pytest.approx(values.mean())
    assert result.high - result.mean == pytest.approx(
        1.96 * values.std() / math.sqrt(20_000), rel=0.08
    )


def test_results_are_deterministic():
    assert bootstrap.difference(arm(rng=1), arm(rng=2)) == bootstrap.difference(
        arm(rng=1), arm(rng=2)
    )


def test_replicates_are_cached_only_as_long_as_their_examples():
    before = len(resampling._CACHE)
    side = arm()
    bootstrap.interval(side)
    assert len(resampling._CACHE) == before + 3
    del side
    assert len(resampling._CACHE) == before


@given(st.floats(0, 10), st.floats(0, 10), st.floats(1, 50))
def test_combined_is_never_narrower_than_a_part_or_wider_than_in_quadrature(seeds, test, dof):
    result = bootstrap.combined(seeds, test, dof)
    assert max(seeds, test) <= result * (1 + 1e-9) and result <= math.hypot(seeds, test) * (
        1 + 1e-9
    )


def test_effect_is_hedges_g_of_the_seeds():
    first, second = arm(rng=1), arm(rng=2)
    assert bootstrap.difference(first, second).effect == pytest.approx(
        intervals.hedges_g(dict(enumerate(means(first))), dict(enumerate(means(second))))
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda: bootstrap.interval({}),
        lambda: bootstrap.interval({0: Examples(np.ones(3), np.zeros(3), "x")}),
        lambda: bootstrap.difference({}, arm()),
        lambda: bootstrap.ratio(arm(seeds=2), {5: arm()[0], 6: arm()[0]}),
    ],
)
def test_impossible_input_is_rejected(call):
    with pytest.raises(ValueError):
        call()


def test_error_of_the_test_set_alone():
    """It is the test set's part of a difference's spread for any number of seeds.

    For a ratio, the divisor's error counts times the ratio.
    """
    rng = np.random.default_rng(5)
    first, second = (
        {
            seed: Examples((rng.random(500) < accuracy).astype(float), np.ones(500), "same")
            for seed in range(3)
        }
        for accuracy in (0.6, 0.5)
    )
    assert bootstrap.test_error(first, second) ** 2 == pytest.approx(
        bootstrap.spread_of_difference(first, second).test
    )
    alone = {-1: first[0]}
    assert bootstrap.test_error(alone) == pytest.approx(math.sqrt(0.6 * 0.4 / 500), rel=0.15)
    other = {-1: Examples(second[0].totals, second[0].weights, "other")}
    expected = math.hypot(bootstrap.test_error(alone), 0.5 * bootstrap.test_error(other))
    assert bootstrap.test_error(alone, other, 0.5) == pytest.approx(expected)
