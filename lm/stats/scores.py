"""A measured score, and the per-example values that its interval is computed from."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Real

from lm.core import files


@dataclasses.dataclass(frozen=True)
class Examples:
    """The per-example values of a score, which is totals.sum() / weights.sum().

    An example is the unit that another test set would sample again: a row of text, a sentence or a
    pair, not the tokens within one.

    Attributes:
      totals: the sum of the score within each example.
      weights: the weight of each example, such as its number of tokens.
      identity: fingerprint of the examples. Two models with the same `identity` were evaluated on
        the same examples in the same order, so their scores are paired.
    """

    totals: Real[np.ndarray, "N"]
    weights: Real[np.ndarray, "N"]
    identity: str


@dataclasses.dataclass(frozen=True)
class Score:
    """A value with its unit, direction and sample size.

    Attributes:
      value: the score.
      count: the number of examples or tokens from which the score was computed.
      unit: unit of the value, such as "nats/token", "bits/byte" or "share" (a fraction).
      better: "lower" or "higher".
      examples: the per-example values; None if the score is not a ratio of sums.
    """

    value: float
    count: int
    unit: str
    better: str
    examples: Examples | None = None


def fraction(hits: float, count: float, examples: Examples | None = None) -> Score:
    """Returns hits / count as a score; higher is better.

    Args:
      hits: number of correct answers.
      count: number of examples.
      examples: the per-example values, if known.
    """
    return Score(hits / count if count else float("nan"), int(count), "share", "higher", examples)


def nats(total: float, count: float, examples: Examples | None = None) -> Score:
    """Returns the mean negative log-likelihood in nats per token; lower is better.

    Args:
      total: negative log-likelihood summed over the tokens, in nats.
      count: number of tokens.
      examples: the per-example values, if known.
    """
    return Score(
        total / count if count else float("nan"), int(count), "nats/token", "lower", examples
    )


def identity(*parts: object) -> str:
    """Returns a short fingerprint of arrays, texts and numbers, for `Examples.identity`."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(
                f"{part.dtype}{part.shape}".encode() + np.ascontiguousarray(part).tobytes()
            )
        else:
            digest.update(repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def write_examples(path: Path, examples: Mapping[str, Examples]) -> None:
    """Writes named examples to one .npz file, atomically.

    Args:
      path: the .npz file.
      examples: per-example values by name.
    """
    arrays = {}
    for name, item in examples.items():
        arrays[f"{name}/totals"] = np.asarray(item.totals)
        arrays[f"{name}/weights"] = np.asarray(item.weights)
        arrays[f"{name}/asked"] = np.asarray(item.identity)
    with files.replacing(path, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_examples(path: Path) -> dict[str, Examples]:
    """Reads the named examples in a file of `write_examples`."""
    with np.load(path, allow_pickle=False) as arrays:
        names = dict.fromkeys(name.rsplit("/", 1)[0] for name in arrays.files)
        return {
            name: Examples(
                arrays[f"{name}/totals"], arrays[f"{name}/weights"], str(arrays[f"{name}/asked"])
            )
            for name in names
        }
