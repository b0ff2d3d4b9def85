"""Scaling laws: L(N, D) = E + A / N^α + B / D^β over a grid of sizes N and tokens D, with intervals, and where two of them cross.

The fit is approach 3 of Hoffmann et al. 2022 ("Training compute-optimal large language models"): Huber's loss with δ = 10⁻³ on the
residuals of log L, with exp a, exp b and exp e for A, B and E, minimised by L-BFGS from a grid of starts. Here log N and log D are centred
first, and what L-BFGS finds with a softer corner is taken to the minimum by Levenberg-Marquardt steps: stopping short of it is what
Besiroglu et al. 2024 ("Chinchilla scaling: a replication attempt") found wrong with the published constants.

Intervals are by bootstrap of the residuals, so that every resample keeps the grid: with the few points of a small grid, drawing points
would leave out whole sizes. Residuals are enlarged by √(n / (n - 5)), for the five constants that were fitted, and by t / z of n - 5
degrees of freedom. They cover the noise of training (seeds, data order); not that the law may not hold outside the grid.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lm.core.plugins import UserError
from lm.stats.intervals import LEVEL

NAMES = ("E", "A", "B", "alpha", "beta")
DELTA = 1e-3  # Huber's corner, in log loss
RESAMPLES = 2000
FEWEST = (
    3,
    3,
    8,
)  # sizes, numbers of tokens, points: fewer do not determine five constants and their noise
FLOPS = 6.0  # of training, for each parameter and token (Kaplan et al. 2020)


@dataclass(frozen=True, slots=True)
class Point:
    """One run: parameters N, tokens D, held-out loss in nats, and its seed."""

    parameters: float
    tokens: float
    loss: float
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Fit:
    """The constants of L = E + A / N^alpha + B / D^beta.

    Attributes:
      intervals: (low, high) of each constant by name, 95 %. points: how many runs.
      residual: root mean square of log loss minus log prediction.
      samples: the constants of each resample [R, 5], in the order of NAMES.
      note: a warning where a constant ran to the edge of what is tried, so the grid does not determine it; "" else.
    """

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    intervals: dict[str, tuple[float, float]]
    points: int
    residual: float
    samples: np.ndarray
    note: str = ""

    def predict(self, parameters: float, tokens: float) -> float:
        """The loss in nats at a size and a number of tokens."""
        return float(
            _loss(np.array([[self.E, self.A, self.B, self.alpha, self.beta]]), parameters, tokens)[
                0
            ]
        )

    def predicted(self, parameters: float, tokens: float) -> tuple[float, float]:
        """The 95 % interval of `predict`: of the mean over runs, not of a single one."""
        return _ends(_loss(self.samples, parameters, tokens))

    def optimal(self, flops: float, per_token: float = FLOPS) -> tuple[float, float, float]:
        """(parameters, tokens, loss) of the lowest loss at flops = per_token · parameters · tokens, in closed form.

        Raises:
          ValueError: flops or per_token are not positive.
        """
        if not (flops > 0 and per_token > 0):
            raise ValueError(f"flops={flops} and per_token={per_token} should be positive")
        found = _optimal(
            np.array([[self.E, self.A, self.B, self.alpha, self.beta]]),
            np.array([flops]),
            per_token,
        )
        return tuple(float(each[0, 0]) for each in found)  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Crossover:
    """The training budget at which the better of two objectives changes, each at its compute-optimal size.

    Attributes:
      flops: None where none lies in the range. low, high: its 95 % interval; None for an end outside the range, or not known.
      share: of the resamples that cross in the range. note: what happens, in words.
    """

    flops: float | None
    low: float | None
    high: float | None
    share: float
    note: str


def fit(points: Sequence[Point], resamples: int = RESAMPLES) -> Fit:
    """The law through the points.

    Raises:
      UserError: points that are not positive and finite, or a grid that does not determine the constants.
    """
    points = sorted(
        points, key=lambda point: (point.parameters, point.tokens, point.seed)
    )  # their order decides nothing
    N, D, L = (
        np.array([getattr(point, name) for point in points], np.float64)
        for name in ("parameters", "tokens", "loss")
    )
    _check(N, D, L)
    x, y, target = np.log(N) - np.log(N).mean(), np.log(D) - np.log(D).mean(), np.log(L)
    best, edges = _minimise(x, y, target)
    predicted = _predict(best[None], x, y)[0][0]
    residuals = target - predicted
    enlarged = (residuals - residuals.mean()) * _enlargement(len(points))
    drawn = np.random.default_rng(0).choice(enlarged, (resamples, len(points)))
    samples = _natural(
        _refine(np.repeat(best[None], resamples, 0), x, y, predicted + drawn, edges),
        np.log(N).mean(),
        np.log(D).mean(),
    )
    E, A, B, alpha, beta = _natural(best[None], np.log(N).mean(), np.log(D).mean())[0].tolist()
    intervals = {name: _ends(samples[:, index]) for index, name in enumerate(NAMES)}
    at_edge = [
        name
        for name, value, (low, high) in zip(("alpha", "beta"), best[3:], edges[3:], strict=True)
        if not low < value < high
    ]
    note = (
        f"the grid does not determine {' and '.join(at_edge)}: give sizes or tokens further apart"
        if at_edge
        else ""
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
    """Where the better of two fits changes between two budgets in FLOPs, with its interval over resamples of both.

    Args:
      low, high: the budgets. per_token: FLOPs for each parameter and token, of either: objectives may cost differently.

    Raises:
      ValueError: low and high are no range of positive numbers.
    """
    from scipy import optimize

    if not 0 < low < high < math.inf:
        raise ValueError(f"a range of FLOPs is needed, not {low} to {high}")

    def gap(log_flops: float) -> float:
        flops = math.exp(log_flops)
        return first.optimal(flops, per_token[0])[2] - second.optimal(flops, per_token[1])[2]

    grid = np.linspace(math.log(low), math.log(high), 400)
    gaps = np.array([gap(each) for each in grid])
    changes = np.flatnonzero(np.sign(gaps[:-1]) != np.sign(gaps[1:]))
    count = min(len(first.samples), len(second.samples))
    sampled = [
        _optimal(each.samples[:count], np.exp(grid), cost)[2]
        for each, cost in zip((first, second), per_token, strict=True)
    ]
    differences = sampled[0] - sampled[1]
    crossings = _crossings(differences, grid)
    share = float(np.isfinite(crossings).mean())
    if not len(changes):
        better = "first" if gaps[0] < 0 else "second"
        return Crossover(None, None, None, share, f"the {better} is better over the whole range")
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
        f"; they cross {len(changes)} times, this is the lowest" if len(changes) > 1 else ""
    )
    return Crossover(math.exp(root), inside[0], inside[1], share, note)


def _check(N: np.ndarray, D: np.ndarray, L: np.ndarray) -> None:
    if not all(np.isfinite(each).all() and (each > 0).all() for each in (N, D, L)):
        raise UserError(
            "points of a scaling fit need positive, finite parameters, tokens and loss: leave out runs that diverged"
        )
    found = len(set(N)), len(set(D)), len(L)
    wanted = (
        f"a grid of at least {FEWEST[0]} sizes and {FEWEST[1]} numbers of tokens, with at least {FEWEST[2]} runs in all, as of 3 sizes × 3"
        " numbers of tokens, each four times the one before"
    )
    if any(number < fewest for number, fewest in zip(found, FEWEST, strict=True)):
        raise UserError(
            f"{found[2]} runs of {found[0]} sizes and {found[1]} numbers of tokens do not determine a scaling law; give {wanted}"
        )
    spread = np.stack([np.log(N) - np.log(N).mean(), np.log(D) - np.log(D).mean()])
    correlation = (spread[0] @ spread[1]) / math.sqrt(
        (spread[0] @ spread[0]) * (spread[1] @ spread[1])
    )
    if abs(correlation) > 0.999:
        raise UserError(
            f"tokens grow in step with size in all runs, so the two cannot be told apart; give {wanted}, every size with each"
        )


def _predict(theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log L [R, n] of constants (a, b, e, α, β) [R, 5] at centred log N, log D; and its slope in them [R, n, 5]."""
    a, b, e, alpha, beta = (theta[:, index, None] for index in range(5))
    terms = np.stack([a - alpha * x, b - beta * y, np.broadcast_to(e, (len(theta), len(x)))], -1)
    most = terms.max(-1, keepdims=True)
    powers = np.exp(terms - most)
    total = powers.sum(-1, keepdims=True)
    shares = powers / total
    slope = np.concatenate(
        [shares, -shares[..., :1] * x[:, None], -shares[..., 1:2] * y[:, None]], -1
    )
    return (np.log(total) + most)[..., 0], slope


def _huber(residual: np.ndarray, delta: float) -> np.ndarray:
    """In units of its corner: r²/2 within it, |r| - 1/2 beyond."""
    size = np.abs(residual) / delta
    return np.where(size <= 1, size**2 / 2, size - 0.5)


def _minimise(x: np.ndarray, y: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(a, b, e, α, β) of the lowest loss, and the edges of what is tried [5, 2]."""
    from scipy import optimize

    floor, top = float(target.min()), float(target.max())
    edges = np.array(
        [[floor - 12, top], [floor - 12, top], [floor - 12, floor], [0.01, 3.0], [0.01, 3.0]]
    )
    middle, exponents = float(np.exp(target).mean()), (0.1, 0.3, 0.6, 1.2)
    starts = []
    for share in (0.2, 0.5, 0.8, 0.95):
        rest = middle - share * math.exp(floor)
        for part in (0.2, 0.5, 0.8):
            for alpha in exponents:
                starts += [
                    [
                        math.log(rest * part),
                        math.log(rest * (1 - part)),
                        math.log(share) + floor,
                        alpha,
                        beta,
                    ]
                    for beta in exponents
                ]
    grid = np.array(starts)
    order = np.argsort(_huber(_predict(grid, x, y)[0] - target, 0.03).sum(-1))

    def objective(theta: np.ndarray, delta: float) -> tuple[float, np.ndarray]:
        predicted, slope = _predict(theta[None], x, y)
        residual = predicted[0] - target
        return float(_huber(residual, delta).sum()), np.clip(residual / delta, -1, 1) @ slope[
            0
        ] / delta

    ends = []
    for start in grid[order[:4]]:
        # At a softer corner: where it is sharp, L-BFGS creeps along the folds.
        ends.append(
            optimize.minimize(
                objective,
                start,
                (0.03,),
                "L-BFGS-B",
                jac=True,
                bounds=edges,
                options={"maxiter": 150},
            ).x
        )
    refined = _refine(np.array(ends), x, y, np.repeat(target[None], len(ends), 0), edges)
    return refined[_huber(_predict(refined, x, y)[0] - target, DELTA).sum(-1).argmin()], edges


def _refine(
    theta: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    target: np.ndarray,
    edges: np.ndarray,
    steps: int = 40,
) -> np.ndarray:
    """Levenberg-Marquardt on Huber's loss by reweighting, for many targets [R, n] at once: what L-BFGS finds one by one."""
    theta = theta.copy()
    for delta in (0.01, DELTA):
        damping = np.full(len(theta), 1e-2)
        predicted, slope = _predict(theta, x, y)
        value = _huber(predicted - target, delta).sum(-1)
        for _ in range(steps):
            residual = predicted - target
            weight = 1 / np.maximum(1.0, np.abs(residual) / delta)
            weighted = slope * weight[..., None]
            normal = np.einsum("rni,rnj->rij", weighted, slope)
            diagonal = np.einsum("rii->ri", normal) + 1e-12
            normal[:, range(5), range(5)] += damping[:, None] * diagonal
            step = np.linalg.solve(normal, np.einsum("rni,rn->ri", weighted, residual)[..., None])[
                ..., 0
            ]
            tried = np.clip(theta - step, edges[:, 0], edges[:, 1])
            new_predicted, new_slope = _predict(tried, x, y)
            new_value = _huber(new_predicted - target, delta).sum(-1)
            better = new_value < value
            theta[better], predicted[better], slope[better] = (
                tried[better],
                new_predicted[better],
                new_slope[better],
            )
            value[better] = new_value[better]
            damping = np.clip(np.where(better, damping / 5, damping * 4), 1e-12, 1e8)
    return theta


def _natural(theta: np.ndarray, log_N: float, log_D: float) -> np.ndarray:
    """(E, A, B, α, β) [R, 5] of centred (a, b, e, α, β)."""
    a, b, e, alpha, beta = theta.T
    return np.stack(
        [np.exp(e), np.exp(a + alpha * log_N), np.exp(b + beta * log_D), alpha, beta], -1
    )


def _enlargement(count: int) -> float:
    from scipy import special

    freedom, tail = count - 5, 0.5 + LEVEL / 2
    return math.sqrt(count / freedom) * float(special.stdtrit(freedom, tail) / special.ndtri(tail))


def _loss(constants: np.ndarray, parameters, tokens) -> np.ndarray:
    E, A, B, alpha, beta = constants.T
    return E + A * parameters**-alpha + B * tokens**-beta


def _optimal(
    constants: np.ndarray, flops: np.ndarray, per_token: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(parameters, tokens, loss), each [R, F]: Hoffmann et al., equation 4."""
    _, A, B, alpha, beta = (each[:, None] for each in constants.T)
    G = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    N = G * (flops / per_token) ** (beta / (alpha + beta))
    D = (flops / per_token) / N
    return N, D, constants[:, :1] + A * N**-alpha + B * D**-beta


def _crossings(differences: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """log FLOPs of each resample's first change of sign [R], linear between points of the grid; nan where there is none."""
    change = np.sign(differences[:, :-1]) != np.sign(differences[:, 1:])
    at, rows = change.argmax(1), np.arange(len(differences))
    before, after = differences[rows, at], differences[rows, at + 1]
    with np.errstate(all="ignore"):
        found = grid[at] + (grid[at + 1] - grid[at]) * before / (before - after)
    return np.where(change.any(1), found, np.nan)


def _before_or_after(crossings: np.ndarray, differences: np.ndarray, start: float) -> np.ndarray:
    """Resamples that do not cross within the range cross after it where they begin as the fit does, and before it where they do not."""
    outside = np.where(np.sign(differences[:, 0]) == np.sign(start), np.inf, -np.inf)
    return np.where(np.isfinite(crossings), crossings, outside)


def _ends(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)
