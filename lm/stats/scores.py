"""A measured number with what it takes to read it."""

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path

if typing.TYPE_CHECKING:
    import numpy as np


@dataclasses.dataclass(frozen=True)
class Examples:
    """What stands behind a score, example by example: its value is totals.sum() / weights.sum().

    Attributes:
      totals, weights: float64 [N]. Examples are what one would draw again: rows of text, sentences, pairs; not the tokens within one.
      asked: identity of the examples. Two models with the same `asked` were asked the same, in the same order, so their scores are paired.
    """

    totals: "np.ndarray"
    weights: "np.ndarray"
    asked: str


@dataclasses.dataclass(frozen=True)
class Score:
    """A value, what it was measured on, and its direction.

    Attributes:
      value: the number. count: examples or tokens behind it. unit: "nats/token", "bits/byte", "share" …
      better: "lower" or "higher". examples: what stands behind it; None where it is no ratio of sums.
    """

    value: float
    count: int
    unit: str
    better: str
    examples: Examples | None = None


def share(hits: float, count: float, examples: Examples | None = None) -> Score:
    """A share of hits: higher is better."""
    return Score(hits / count if count else float("nan"), int(count), "share", "higher", examples)


def nats(total: float, count: float, examples: Examples | None = None) -> Score:
    """A mean negative log-likelihood in nats: lower is better."""
    return Score(
        total / count if count else float("nan"), int(count), "nats/token", "lower", examples
    )


def identity(*asked: object) -> str:
    """A short hash of arrays, texts and numbers, for `Examples.asked`."""
    import hashlib

    import numpy as np

    digest = hashlib.sha256()
    for each in asked:
        if isinstance(each, np.ndarray):
            digest.update(
                f"{each.dtype}{each.shape}".encode() + np.ascontiguousarray(each).tobytes()
            )
        else:
            digest.update(repr(each).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def write_examples(path: Path, examples: Mapping[str, Examples]) -> None:
    """Writes examples by name as one .npz, atomically."""
    import os

    import numpy as np

    arrays = {
        f"{name}/{part}": np.asarray(getattr(each, part))
        for name, each in examples.items()
        for part in ("totals", "weights", "asked")
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    os.replace(temporary, path)


def read_examples(path: Path) -> dict[str, Examples]:
    """What `write_examples` wrote."""
    import numpy as np

    with np.load(path, allow_pickle=False) as arrays:
        names = dict.fromkeys(name.rsplit("/", 1)[0] for name in arrays.files)
        return {
            name: Examples(
                arrays[f"{name}/totals"], arrays[f"{name}/weights"], str(arrays[f"{name}/asked"])
            )
            for name in names
        }
