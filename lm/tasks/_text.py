"""What tasks that ask for tokens have in common."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lm.stats import scores
from lm.stats.scores import Examples, Score, fraction, nats


class Changed:
    """An objective whose examples are changed before they are asked.

    Args:
      positions: tokens that a row counts for. change: of an example; None for none.
    """

    def __init__(self, objective: Any, positions: int, change: Callable[[dict], dict] | None):
        self.objective, self.positions, self.change = objective, positions, change
        self.plan, self.loss, self.by_row = objective.plan, objective.loss, objective.by_row

    def example(self, *args: Any) -> dict[str, np.ndarray]:
        """As the objective's, changed."""
        example = self.objective.example(*args)
        return self.change(example) if self.change else example


def neighbours(store, tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, the token after each) of `[BOS] document [EOS]`, over all documents."""
    stream = np.insert(
        np.asarray(store.tokens, np.int64), store.document_offsets[:-1], tokenizer.bos
    )
    ends = np.asarray(store.document_offsets[1:]) + np.arange(1, len(store) + 1)
    stream = np.insert(stream, ends, tokenizer.eos)
    inside = stream[1:] != tokenizer.bos
    return stream[:-1][inside], stream[1:][inside]


@dataclasses.dataclass(frozen=True)
class Asked:
    """The tokens asked for in held-out rows: row after row, and from left to right within one.

    Attributes:
      targets: their ids [M]. rows: number of each one's row [M]. counts: how many each row asks for [N]. asked: identity of all this.
    """

    targets: np.ndarray
    rows: np.ndarray
    counts: np.ndarray
    asked: str

    @classmethod
    def of(cls, batches: Sequence[dict[str, np.ndarray]], question: str) -> "Asked":
        """From `Validation.whole`.

        The identity is that of the targets by row, and of the question. It does not depend on how a model's input is laid out (special
        tokens, mode tokens, one stream or two), so models of several kinds that are asked the same have the same.
        """
        counts = np.concatenate([(batch["weights"] > 0).sum(-1) for batch in batches])
        targets = pick(batches, "targets")
        return cls(
            targets, np.repeat(np.arange(len(counts)), counts), counts,
            scores.identity(question, targets.astype(np.int64), counts.astype(np.int64)),
        )  # fmt: skip

    def by_row(self, values: np.ndarray) -> np.ndarray:
        """Values by token [M], summed over each row: float64 [N]."""
        return np.bincount(self.rows, values, len(self.counts))

    def examples(self, values: np.ndarray) -> Examples:
        """What stands behind a mean of values by token [M]."""
        return Examples(self.by_row(values), self.counts.astype(np.float64), self.asked)

    def nats(self, nll: np.ndarray) -> Score:
        """The score of nats by token [M]."""
        return nats(float(nll.sum()), len(self.targets), self.examples(nll))

    def share(self, hits: np.ndarray) -> Score:
        """The score of hits by token [M]."""
        return fraction(float(hits.sum()), len(self.targets), self.examples(hits))

    def scored(
        self, found: dict[str, tuple[np.ndarray, np.ndarray]], name: str
    ) -> tuple[Score, Score]:
        """(nats, share of hits) of a model, of `Validation.by_row`."""
        nll, hits = (Examples(*found[key], self.asked) for key in (name, f"{name}_accuracy"))
        return nats(nll.totals.sum(), nll.weights.sum(), nll), fraction(
            hits.totals.sum(), hits.weights.sum(), hits
        )


def pick(batches: Sequence[dict[str, np.ndarray]], name: str) -> np.ndarray:
    """A field of all that is asked, in the order of `Asked`: [M]."""
    return np.concatenate([batch[name][batch["weights"] > 0] for batch in batches])
