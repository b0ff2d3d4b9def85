"""Scores on resampled test sets, and their covariance.

All scores of the same examples (`Examples.identity`) are computed on the same resamples, so that
the covariance of two scores measures the effect of the test set on both.
"""

import functools
import math
import weakref
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Float64

from lm.stats.scores import Examples

RESAMPLES = 1000  # the variance then has the sampling error of 999 degrees of freedom
# More examples than this are first summed in this many groups. The groups do not change the ratio
# of sums, and the variance of the ratio is known to 3 %.
GROUPS = 2048

# Replicates by id of their examples, for as long as the examples exist.
_CACHE: dict[int, tuple[weakref.ref, np.ndarray]] = {}


def values(examples: Sequence[Examples]) -> Float64[np.ndarray, "K"]:
    """Returns the scores: totals over weights.

    Raises:
      ValueError: there are no examples, or a score is not finite.
    """
    if not examples:
        raise ValueError("a score requires examples")
    with np.errstate(all="ignore"):
        scores = np.array([item.totals.sum() / item.weights.sum() for item in examples], np.float64)
    if not np.isfinite(scores).all():
        raise ValueError(f"scores must be finite, not {scores.tolist()}")
    return scores


def covariance(examples: Sequence[Examples]) -> tuple[Float64[np.ndarray, "K K"], int]:
    """Returns the covariance of scores over test sets, and the smallest number of examples.

    The covariance of two scores on different examples is 0.
    """
    matrix = np.atleast_2d(np.cov(replicates(examples)))
    identities = np.array([item.identity for item in examples])
    same = identities[:, None] == identities[None]
    return np.where(same, matrix, 0.0), min(len(item.totals) for item in examples)


def replicates(examples: Sequence[Examples]) -> Float64[np.ndarray, "K R"]:
    """Returns scores on resampled test sets minus the scores, scaled for an unbiased variance.

    Results are cached, since a report uses the same score in tables, figures and differences.
    """
    # Scores are grouped by their number of examples: one matmul then resamples many scores.
    missing: dict[int, dict[int, Examples]] = {}
    for item in examples:
        cached = _CACHE.get(id(item))
        if cached is None or cached[0]() is not item:
            missing.setdefault(len(item.totals), {})[id(item)] = item
    for group in missing.values():
        rows = _resampled(list(group.values()))
        for (key, item), replicate in zip(group.items(), rows, strict=True):
            _CACHE[key] = (weakref.ref(item, functools.partial(_forget, key)), replicate)
    return np.stack([_CACHE[id(item)][1] for item in examples])


def _forget(key: int, _: weakref.ref) -> None:
    _CACHE.pop(key, None)


def _resampled(examples: Sequence[Examples]) -> Float64[np.ndarray, "K R"]:
    """Returns the `replicates` of K scores that all have the same number of examples."""
    scores = np.array([item.totals.sum() / item.weights.sum() for item in examples])
    weights = np.stack([item.weights for item in examples], 1).astype(np.float64)
    # Residuals from the score are small, so that float32 is exact enough.
    residuals = np.stack([item.totals for item in examples], 1) - scores * weights
    parts = np.concatenate([residuals, weights], 1)
    if len(parts) > GROUPS:
        parts = _grouped(parts)
    count, scale = len(parts), np.maximum(np.abs(parts).max(0), 1e-300)
    sums = (_draws(count) @ (parts / scale).astype(np.float32)).astype(np.float64) * scale
    residual, weight = np.split(sums.T, 2)
    # With a handful of examples, all that a resample drew may have weight 0; it counts as 0.
    return np.where(weight > 0, residual / np.where(weight > 0, weight, 1.0), 0.0) * math.sqrt(
        count / max(1, count - 1)
    )


def _grouped(parts: Float64[np.ndarray, "N P"]) -> Float64[np.ndarray, "G P"]:
    """Sums rows in GROUPS random groups, the same for all scores with as many examples."""
    order = np.random.default_rng(1).permutation(len(parts))
    edges = np.linspace(0, len(parts), GROUPS + 1).astype(int)[:-1]
    return np.add.reduceat(parts[order], edges, axis=0)


@functools.lru_cache(maxsize=8)
def _draws(count: int) -> Float32[np.ndarray, "R N"]:
    """How often each resample contains each of `count` examples: multinomial, with a fixed seed."""
    picked = np.random.default_rng(0).integers(0, count, (RESAMPLES, count))
    picked += count * np.arange(RESAMPLES)[:, None]
    return (
        np.bincount(picked.ravel(), minlength=RESAMPLES * count)
        .reshape(RESAMPLES, count)
        .astype(np.float32)
    )
