"""Huber regression of log L = log(A / N^α + B / D^β + E) for lm/stats/scaling.py."""

import math

import numpy as np
from jaxtyping import Float64

DELTA = 1e-3  # Huber's delta, in log loss

Constants = Float64[np.ndarray, "R 5"]  # (a, b, e, α, β)
Points = Float64[np.ndarray, "n"]
Values = Float64[np.ndarray, "R n"]


def predict(theta: Constants, x: Points, y: Points) -> tuple[Values, Float64[np.ndarray, "R n 5"]]:
    """Returns log L and its gradient with respect to the constants.

    Args:
      theta: constants (a, b, e, α, β), [R, 5], with A = exp a, B = exp b and E = exp e.
      x: centered log N.
      y: centered log D.
    """
    a, b, e, alpha, beta = (theta[:, index, None] for index in range(5))
    terms = np.stack([a - alpha * x, b - beta * y, np.broadcast_to(e, (len(theta), len(x)))], -1)
    most = terms.max(-1, keepdims=True)
    powers = np.exp(terms - most)
    total = powers.sum(-1, keepdims=True)
    parts = powers / total
    slope = np.concatenate([parts, -parts[..., :1] * x[:, None], -parts[..., 1:2] * y[:, None]], -1)
    return (np.log(total) + most)[..., 0], slope


def huber(residual: Float64[np.ndarray, "*S"], delta: float) -> Float64[np.ndarray, "*S"]:
    """Returns Huber's loss with r = |residual| / delta: r²/2 up to 1, r - 1/2 above.

    Args:
      residual: difference of prediction and target.
      delta: residual at which the loss becomes linear.
    """
    size = np.abs(residual) / delta
    return np.where(size <= 1, size**2 / 2, size - 0.5)


def minimize(
    x: Points, y: Points, target: Points
) -> tuple[Float64[np.ndarray, "5"], Float64[np.ndarray, "5 2"]]:
    """Returns the constants (a, b, e, α, β) with the lowest loss, and the bounds of the search.

    Args:
      x: centered log N.
      y: centered log D.
      target: log L.
    """
    from scipy import optimize

    floor, top = float(target.min()), float(target.max())
    bounds = np.array(
        [[floor - 12, top], [floor - 12, top], [floor - 12, floor], [0.01, 3.0], [0.01, 3.0]]
    )
    middle, exponents = float(np.exp(target).mean()), (0.1, 0.3, 0.6, 1.2)
    starts = []
    for irreducible in (0.2, 0.5, 0.8, 0.95):
        rest = middle - irreducible * math.exp(floor)
        for part in (0.2, 0.5, 0.8):
            for alpha in exponents:
                starts += [
                    [
                        math.log(rest * part),
                        math.log(rest * (1 - part)),
                        math.log(irreducible) + floor,
                        alpha,
                        beta,
                    ]
                    for beta in exponents
                ]
    grid = np.array(starts)
    order = np.argsort(huber(predict(grid, x, y)[0] - target, 0.03).sum(-1))

    def objective(theta: np.ndarray, delta: float) -> tuple[float, np.ndarray]:
        predicted, slope = predict(theta[None], x, y)
        residual = predicted[0] - target
        return float(huber(residual, delta).sum()), np.clip(residual / delta, -1, 1) @ slope[
            0
        ] / delta

    optima = []
    for start in grid[order[:4]]:
        # With a larger delta: with a small one, the loss is nearly piecewise linear and L-BFGS
        # converges slowly along its folds.
        optima.append(
            optimize.minimize(
                objective,
                start,
                (0.03,),
                "L-BFGS-B",
                jac=True,
                bounds=bounds,
                options={"maxiter": 150},
            ).x
        )
    refined = refine(np.array(optima), x, y, np.repeat(target[None], len(optima), 0), bounds)
    return refined[huber(predict(refined, x, y)[0] - target, DELTA).sum(-1).argmin()], bounds


def refine(
    theta: Constants,
    x: Points,
    y: Points,
    target: Values,
    bounds: Float64[np.ndarray, "5 2"],
    steps: int = 40,
) -> Constants:
    """Returns the constants after Levenberg-Marquardt steps on Huber's loss by reweighting.

    Many targets are fitted at once; L-BFGS would have to fit them one by one.

    Args:
      theta: constants (a, b, e, α, β) to start from, one row per target.
      x: centered log N.
      y: centered log D.
      target: log L, one row per target.
      bounds: (low, high) of each constant.
      steps: number of Levenberg-Marquardt steps per value of δ.
    """
    theta = theta.copy()
    for delta in (0.01, DELTA):
        damping = np.full(len(theta), 1e-2)
        predicted, slope = predict(theta, x, y)
        value = huber(predicted - target, delta).sum(-1)
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
            tried = np.clip(theta - step, bounds[:, 0], bounds[:, 1])
            new_predicted, new_slope = predict(tried, x, y)
            new_value = huber(new_predicted - target, delta).sum(-1)
            better = new_value < value
            theta[better], predicted[better], slope[better] = (
                tried[better],
                new_predicted[better],
                new_slope[better],
            )
            value[better] = new_value[better]
            damping = np.clip(np.where(better, damping / 5, damping * 4), 1e-12, 1e8)
    return theta
