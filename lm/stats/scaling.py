"""Scaling laws L(N, D) = E + A / N^α + B / D^β over sizes N and tokens D, and their crossovers.

The fit is approach 3 of Hoffmann et al. 2022 ("Training compute-optimal large language models"):
Huber's loss with δ = 10⁻³ on the residuals of log L, with exp a, exp b and exp e for A, B and E,
minimized by L-BFGS from a grid of starts. Here, log N and log D are centered first, and the optimum
that L-BFGS finds with a larger δ is refined by Levenberg-Marquardt steps. Besiroglu et al. 2024
("Chinchilla scaling: a replication attempt") found that the published constants came from an
optimizer that stopped before the minimum.

Intervals are from a bootstrap of the residuals, so that every resample keeps the grid: with the few
points of a small grid, resampling points would omit whole sizes. Residuals are scaled by
√(n / (n - 5)), for the five fitted constants, and by t / z of n - 5 degrees of freedom. The
intervals cover the variance of training (seeds, data order), but not the possibility that the law
does not hold outside the grid.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from lm.core.plugins import UserError
from lm.stats import _huber_fit
from lm.stats.intervals import LEVEL

NAMES = ("E", "A", "B", "alpha", "beta")
RESAMPLES = 2000
# Minimum number of sizes, token counts and points that determine five constants and the residual
# variance.
MINIMUM = (3, 3, 8)
FLOPS = 6.0  # training FLOPs per parameter and token (Kaplan et al. 2020)

Constants = Float64[np.ndarray, "R 5"]  # in the order of NAMES


@dataclass(frozen=True, slots=True)
class Point:
    """One run.

    Attributes:
      parameters: number of parameters, N.
      tokens: number of training tokens, D.
      loss: held-out loss in nats.
      seed: seed of the run.
    """

    parameters: float
    tokens: float
    loss: float
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Fit:
    """The constants of L = E + A / N^alpha + B / D^beta.

    Attributes:
      E: irreducible loss in nats.
      A: factor of the term for parameters.
      B: factor of the term for tokens.
      alpha: exponent of parameters.
      beta: exponent of tokens.
      intervals: the 95 % interval (low, high) of each constant, by name.
      points: number of runs.
      residual: root mean square of log loss minus log prediction.
      samples: the constants of each resample, [R, 5].
      note: a warning if a constant reached the bounds of the search, so that the grid does not
        determine it; otherwise "".
    """

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    intervals: dict[str, tuple[float, float]]
    points: int
    residual: float
    samples: Constants
    note: str = ""

    def predict(self, parameters: float, tokens: float) -> float:
        """Returns the loss in nats at a size and a number of tokens.

        Args:
          parameters: number of parameters.
          tokens: number of training tokens.
        """
        constants = np.array([[self.E, self.A, self.B, self.alpha, self.beta]])
        return float(_loss(constants, parameters, tokens)[0])

    def predicted(self, parameters: float, tokens: float) -> tuple[float, float]:
        """Returns the 95 % interval of `predict`, which is a mean over runs, not a single run.

        Args:
          parameters: number of parameters.
          tokens: number of training tokens.

        Returns:
          (low, high), in nats.
        """
        return _ends(_loss(self.samples, parameters, tokens))

    def optimal(self, flops: float, per_token: float = FLOPS) -> tuple[float, float, float]:
        """Returns the compute-optimal (parameters, tokens, loss), in closed form.

        Args:
          flops: training budget, per_token · parameters · tokens.
          per_token: training FLOPs per parameter and token.

        Raises:
          ValueError: flops or per_token is not positive.
        """
        if not (flops > 0 and per_token > 0):
            raise ValueError(f"flops={flops} and per_token={per_token} must be positive")
        constants = np.array([[self.E, self.A, self.B, self.alpha, self.beta]])
        N, D, L = _optimal(constants, np.array([flops]), per_token)
        return float(N[0, 0]), float(D[0, 0]), float(L[0, 0])


@dataclass(frozen=True, slots=True)
class Crossover:
    """The training budget at which the better of two objectives changes.

    Each objective is trained at its compute-optimal size.

    Attributes:
      flops: the budget in FLOPs; None if there is no crossover within the range.
      low: lower end of the budget's 95 % interval, in FLOPs; None if it is outside the range or
        unknown.
      high: upper end of the budget's 95 % interval, in FLOPs; None if it is outside the range or
        unknown.
      fraction: fraction of resamples that cross within the range.
      note: text that states which objective is better at which budgets.
    """

    flops: float | None
    low: float | None
    high: float | None
    fraction: float
    note: str


def fit(points: Sequence[Point], resamples: int = RESAMPLES) -> Fit:
    """Fits the scaling law to the points.

    Args:
      points: the runs; their order does not matter.
      resamples: number of bootstrap resamples.

    Raises:
      UserError: points are not positive and finite, or the grid does not determine the constants.
    """
    points = sorted(points, key=lambda point: (point.parameters, point.tokens, point.seed))
    N, D, L = (
        np.array([getattr(point, name) for point in points], np.float64)
        for name in ("parameters", "tokens", "loss")
    )
    _check(N, D, L)
    x, y, target = np.log(N) - np.log(N).mean(), np.log(D) - np.log(D).mean(), np.log(L)
    best, bounds = _huber_fit.minimize(x, y, target)
    predicted = _huber_fit.predict(best[None], x, y)[0][0]
    residuals = target - predicted
    enlarged = (residuals - residuals.mean()) * _enlargement(len(points))
    drawn = np.random.default_rng(0).choice(enlarged, (resamples, len(points)))
    samples = _natural(
        _huber_fit.refine(np.repeat(best[None], resamples, 0), x, y, predicted + drawn, bounds),
        np.log(N).mean(),
        np.log(D).mean(),
    )
    E, A, B, alpha, beta = _natural(best[None], np.log(N).mean(), np.log(D).mean())[0].tolist()
    intervals = {name: _ends(samples[:, index]) for index, name in enumerate(NAMES)}
    at_bounds = [
        name
        for name, value, (low, high) in zip(("alpha", "beta"), best[3:], bounds[3:], strict=True)
        if not low < value < high
    ]
    note = ""
    if at_bounds:
        note = (
            f"the grid does not determine {' and '.join(at_bounds)}; use sizes or token counts that"
            " are further apart"
        )
    return Fit(
        E,
        A,
        B,
        alpha,
        beta,
        intervals,
        len(points),
        float(np.sqrt(np.mean(residuals**2))),
        samples,
        note,
    )


def crossover(
    first: Fit,
    second: Fit,
    low: float,
    high: float,
    per_token: tuple[float, float] = (FLOPS, FLOPS),
) -> Crossover:
    """Returns the budget at which the better of two fits changes, with its interval.

    The interval is over the resamples of both fits.

    Args:
      first: fit of the first objective.
      second: fit of the second objective.
      low: smallest budget in FLOPs.
      high: largest budget in FLOPs.
      per_token: training FLOPs per parameter and token of the first and the second objective.

    Raises:
      ValueError: `low` and `high` are not a range of positive, finite numbers.
    """
    from scipy import optimize

    if not 0 < low < high < math.inf:
        raise ValueError(f"a range of positive FLOPs is required, not {low} to {high}")

    def gap(log_flops: float) -> float:
        flops = math.exp(log_flops)
        return first.optimal(flops, per_token[0])[2] - second.optimal(flops, per_token[1])[2]

    grid = np.linspace(math.log(low), math.log(high), 400)
    gaps = np.array([gap(log_flops) for log_flops in grid])
    changes = np.flatnonzero(np.sign(gaps[:-1]) != np.sign(gaps[1:]))
    count = min(len(first.samples), len(second.samples))
    sampled = [
        _optimal(side.samples[:count], np.exp(grid), cost)[2]
        for side, cost in zip((first, second), per_token, strict=True)
    ]
    differences = sampled[0] - sampled[1]
    crossings = _crossings(differences, grid)
    fraction = float(np.isfinite(crossings).mean())
    if not len(changes):
        better = "first" if gaps[0] < 0 else "second"
        return Crossover(None, None, None, fraction, f"the {better} is better over the whole range")
    at = int(changes[0])
    root = optimize.brentq(gap, grid[at], grid[at + 1]) if gaps[at] else grid[at]
    ends = np.quantile(
        _before_or_after(crossings, differences, gaps[0]),
        ((1 - LEVEL) / 2, (1 + LEVEL) / 2),
        method="inverted_cdf",
    )
    inside = [float(math.exp(end)) if math.isfinite(end) else None for end in ends]
    better = (
        "the first is better below, the second above"
        if gaps[at] < 0 or gaps[at + 1] > 0
        else "the second is better below, the first above"
    )
    note = better + (
        f"; they cross {len(changes)} times, this is the lowest crossing"
        if len(changes) > 1
        else ""
    )
    return Crossover(math.exp(root), inside[0], inside[1], fraction, note)


def _check(N: np.ndarray, D: np.ndarray, L: np.ndarray) -> None:
    if not all(np.isfinite(values).all() and (values > 0).all() for values in (N, D, L)):
        raise UserError(
            "points of a scaling fit must have positive, finite parameters, tokens and loss;"
            " exclude runs that diverged"
        )
    counts = len(set(N)), len(set(D)), len(L)
    required = (
        f"a grid of at least {MINIMUM[0]} sizes and {MINIMUM[1]} token counts, with at least"
        f" {MINIMUM[2]} runs in total, for example 3 sizes × 3 token counts, each four times the"
        " one before"
    )
    if any(count < minimum for count, minimum in zip(counts, MINIMUM, strict=True)):
        raise UserError(
            f"{counts[2]} runs of {counts[0]} sizes and {counts[1]} token counts do not determine a"
            f" scaling law; use {required}"
        )
    spread = np.stack([np.log(N) - np.log(N).mean(), np.log(D) - np.log(D).mean()])
    correlation = (spread[0] @ spread[1]) / math.sqrt(
        (spread[0] @ spread[0]) * (spread[1] @ spread[1])
    )
    if abs(correlation) > 0.999:
        raise UserError(
            "tokens are proportional to a power of the size in all runs, so their effects cannot be"
            f" separated; use {required}, with every size at every token count"
        )


def _natural(theta: Float64[np.ndarray, "R 5"], log_N: float, log_D: float) -> Constants:
    """(E, A, B, α, β) from (a, b, e, α, β) for log N and log D centered at the given means."""
    a, b, e, alpha, beta = theta.T
    return np.stack(
        [np.exp(e), np.exp(a + alpha * log_N), np.exp(b + beta * log_D), alpha, beta], -1
    )


def _enlargement(count: int) -> float:
    """The factor of the residuals: see the module's docstring."""
    from scipy import special

    dof, tail = count - 5, 0.5 + LEVEL / 2
    return math.sqrt(count / dof) * float(special.stdtrit(dof, tail) / special.ndtri(tail))


def _loss(constants: Constants, parameters: float, tokens: float) -> Float64[np.ndarray, "R"]:
    E, A, B, alpha, beta = constants.T
    return E + A * parameters**-alpha + B * tokens**-beta


def _optimal(
    constants: Constants, flops: Float64[np.ndarray, "F"], per_token: float
) -> tuple[Float64[np.ndarray, "R F"], Float64[np.ndarray, "R F"], Float64[np.ndarray, "R F"]]:
    """The compute-optimal (parameters, tokens, loss): Hoffmann et al., equation 4."""
    _, A, B, alpha, beta = (constant[:, None] for constant in constants.T)
    G = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    N = G * (flops / per_token) ** (beta / (alpha + beta))
    D = (flops / per_token) / N
    return N, D, constants[:, :1] + A * N**-alpha + B * D**-beta


def _crossings(
    differences: Float64[np.ndarray, "R F"], grid: Float64[np.ndarray, "F"]
) -> Float64[np.ndarray, "R"]:
    """log FLOPs of each resample's first change of sign; nan if there is none.

    The difference is interpolated linearly between points of the grid.
    """
    change = np.sign(differences[:, :-1]) != np.sign(differences[:, 1:])
    at, rows = change.argmax(1), np.arange(len(differences))
    before, after = differences[rows, at], differences[rows, at + 1]
    with np.errstate(all="ignore"):
        log_flops = grid[at] + (grid[at + 1] - grid[at]) * before / (before - after)
    return np.where(change.any(1), log_flops, np.nan)


def _before_or_after(
    crossings: Float64[np.ndarray, "R"], differences: Float64[np.ndarray, "R F"], start: float
) -> Float64[np.ndarray, "R"]:
    """The crossings, with infinities for resamples that do not cross within the range.

    +inf if the difference has the sign of the fit's difference at the start of the range (the
    crossing is above it), otherwise -inf.
    """
    outside = np.where(np.sign(differences[:, 0]) == np.sign(start), np.inf, -np.inf)
    return np.where(np.isfinite(crossings), crossings, outside)


def _ends(values: Float64[np.ndarray, "R"]) -> tuple[float, float]:
    low, high = np.quantile(values, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)
