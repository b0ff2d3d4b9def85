"""Scaling fits: constants, coverage of intervals, and closed forms of optimum and crossover."""

import dataclasses
import functools
import math

import numpy as np
import pytest
from scipy import optimize

from lm.core.plugins import UserError
from lm.stats import scaling
from lm.stats.scaling import Fit, Point

CHINCHILLA = {
    "E": 1.69,
    "A": 406.4,
    "B": 410.7,
    "alpha": 0.34,
    "beta": 0.28,
}  # Hoffmann et al. 2022, equation 10
SIZES, TOKENS = (1e8, 4e8, 1.6e9, 6.4e9), (2e9, 8e9, 3.2e10, 1.28e11)


def law(N, D, E, A, B, alpha, beta):
    return E + A / N**alpha + B / D**beta


def points(noise=0.0, rng=0, seeds=1, sizes=SIZES, tokens=TOKENS, **constants):
    draw = np.random.default_rng(rng)
    return [
        Point(N, D, law(N, D, **(CHINCHILLA | constants)) * math.exp(noise * draw.normal()), seed)
        for N in sizes for D in tokens for seed in range(seeds)
    ]  # fmt: skip


@functools.cache
def exact() -> Fit:
    return scaling.fit(points(), 20)


@functools.cache
def noisy(rng: int, **constants) -> Fit:
    return scaling.fit(points(0.003, rng, **constants), 120)


def exact_fit(**constants) -> Fit:
    """A fit without noise, whose resamples are all the same."""
    values = CHINCHILLA | constants
    return Fit(
        **values,
        intervals={},
        points=16,
        residual=0.0,
        samples=np.array([list(values.values())] * 30),
    )


def test_constants_are_recovered_from_exact_points():
    for name, value in CHINCHILLA.items():
        assert getattr(exact(), name) == pytest.approx(value, rel=1e-5)
        assert exact().intervals[name] == pytest.approx((value, value), rel=1e-4)
    assert exact().residual < 1e-7 and exact().note == "" and exact().points == 16
    assert exact().predict(7e10, 1.4e12) == pytest.approx(law(7e10, 1.4e12, **CHINCHILLA), rel=1e-6)


def test_constants_of_small_models_are_recovered():
    """Sizes and tokens that two cores can train."""
    constants = {"E": 3.0, "A": 60.0, "B": 2000.0, "alpha": 0.4, "beta": 0.5}
    result = scaling.fit(points(sizes=(5e4, 2e5, 8e5), tokens=(2.5e5, 1e6, 4e6), **constants), 5)
    for name, value in constants.items():
        assert getattr(result, name) == pytest.approx(value, rel=1e-4)


def test_an_outlier_hardly_moves_the_fit():
    spoilt = points()
    spoilt[5] = dataclasses.replace(spoilt[5], loss=spoilt[5].loss * 1.3)
    assert scaling.fit(spoilt, 5).predict(1e9, 2e10) == pytest.approx(
        law(1e9, 2e10, **CHINCHILLA), rel=2e-3
    )


def test_intervals_cover_under_noise():
    truth = CHINCHILLA | {"loss": law(1e9, 2e10, **CHINCHILLA)}
    held = dict.fromkeys(truth, 0)
    for rng in range(8):
        result = noisy(rng)
        for name, (low, high) in (result.intervals | {"loss": result.predicted(1e9, 2e10)}).items():
            assert low < high
            held[name] += low <= truth[name] <= high
    assert min(held.values()) >= 6, held  # 8 × 95 % less three standard errors


def test_the_optimum_is_the_minimum_over_sizes_at_the_budget():
    flops = 3e20
    N, D, loss = exact_fit().optimal(flops)
    result = optimize.minimize_scalar(
        lambda n: law(math.exp(n), flops / 6 / math.exp(n), **CHINCHILLA),
        bounds=(10, 30),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert (
        6 * N * D == pytest.approx(flops)
        and math.log(N) == pytest.approx(result.x, abs=1e-4)
        and loss == pytest.approx(result.fun)
    )
    assert exact_fit().optimal(flops, 12.0)[0] * exact_fit().optimal(flops, 12.0)[
        1
    ] == pytest.approx(flops / 12)


def test_crossover_in_closed_form():
    # With the same exponents L = E + K · C^-γ, γ = αβ / (α + β), so E1 + K1 C^-γ = E2 + K2 C^-γ has
    # one solution.
    first, second = exact_fit(E=2.0, A=200.0, B=200.0), exact_fit(E=1.69)
    gamma = 0.34 * 0.28 / 0.62
    K = [(item.optimal(1.0)[2] - item.E) for item in (first, second)]
    expected = ((K[1] - K[0]) / (2.0 - 1.69)) ** (1 / gamma)
    result = scaling.crossover(first, second, expected / 1e4, expected * 1e4)
    assert result.flops == pytest.approx(expected, rel=1e-6) and result.fraction == 1.0
    assert (result.low, result.high) == pytest.approx((expected, expected), rel=1e-2)
    assert result.note == "the first is better below, the second above"
    assert (
        scaling.crossover(second, first, expected / 1e4, expected * 1e4).note
        == "the second is better below, the first above"
    )
    # At another cost of each, K_i counts C / cost_i: the solution moves with it.
    costs = (6.0, 10.5)
    K = [
        (item.optimal(1.0, cost)[2] - item.E)
        for item, cost in zip((first, second), costs, strict=True)
    ]
    dearer = ((K[1] - K[0]) / (2.0 - 1.69)) ** (1 / gamma)
    result = scaling.crossover(first, second, dearer / 1e4, dearer * 1e4, costs)
    assert (
        result.flops == pytest.approx(dearer, rel=1e-6) and not expected / 2 < dearer < 2 * expected
    )


def test_no_crossover_is_reported():
    result = scaling.crossover(exact_fit(E=1.5), exact_fit(), 1e18, 1e24)
    assert (result.flops, result.low, result.high, result.fraction) == (None, None, None, 0.0)
    assert result.note == "the first is better over the whole range"


def test_a_crossover_that_is_not_known_well_has_open_ends():
    first, second = noisy(0), noisy(1, E=1.68)
    result = scaling.crossover(first, second, 1e19, 1e22)
    assert result.fraction < 0.975 and (
        result.flops is None or result.low is None or result.high is None
    )


def test_results_are_deterministic():
    result = scaling.fit(points(0.01), 10).intervals
    assert (
        result
        == scaling.fit(points(0.01), 10).intervals
        == scaling.fit(points(0.01)[::-1], 10).intervals
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (points(sizes=(1e8, 4e8)), "8 runs of 2 sizes and 4 token counts"),
        (points(tokens=(2e9,), seeds=3), "1 token counts do not determine"),
        ([Point(N, 20 * N, 3.0, seed) for N in SIZES for seed in range(3)], "cannot be separated"),
        ([*points(), Point(1e8, 1e9, math.nan)], "exclude runs that diverged"),
        ([*points(), Point(0, 1e9, 3.0)], "positive, finite"),
        ([], "at least 3 sizes"),
    ],
)
def test_a_grid_that_does_not_determine_the_law_is_rejected(given, message):
    with pytest.raises(UserError, match=message):
        scaling.fit(given)


@pytest.mark.parametrize(
    "call",
    [
        lambda: exact_fit().optimal(0.0),
        lambda: scaling.crossover(exact_fit(), exact_fit(), 2.0, 1.0),
    ],
)
def test_impossible_budgets_are_rejected(call):
    with pytest.raises(ValueError):
        call()
