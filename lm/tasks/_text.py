"""Shared by tasks that score the tokens of held-out rows."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64, Integer, Real

from lm.core.protocols import Example, Objective, Tokenizer
from lm.data.store import Store
from lm.stats import scores
from lm.stats.scores import Examples, Score, fraction, nats


class ObjectiveWithModifiedExamples:
    """An objective whose examples are modified before they are evaluated.

    The class implements `Objective` and leaves everything but the examples unchanged.
    """

    def __init__(
        self,
        objective: Objective,
        positions: int,
        change: Callable[[Example], Example] | None,
    ):
        """Wraps an objective.

        Args:
          objective: the original objective.
          positions: number of tokens that a row counts as.
          change: modifies an example; None leaves examples unchanged.
        """
        self.positions = positions
        self._original, self._change = objective, change
        self.masks, self.mask, self.length = objective.masks, objective.mask, objective.length
        self.composed, self.members = objective.composed, objective.members
        self.fractions, self.standard = objective.fractions, objective.standard
        self.terms, self.scores, self.config = objective.terms, objective.scores, objective.config
        self.longest, self.mode_token = objective.longest, objective.mode_token
        self.has_masked_head = objective.has_masked_head
        self.plan, self.heads, self.flops = objective.plan, objective.heads, objective.flops
        self.loss, self.by_row = objective.loss, objective.by_row

    def example(
        self, store: Store, plan: Any, row: int, rng: np.random.Generator, progress: float
    ) -> Example:
        """The modified example of the original objective."""
        example = self._original.example(store, plan, row, rng, progress)
        return self._change(example) if self._change else example


def neighbors(
    store: Store, tokenizer: Tokenizer
) -> tuple[Int64[np.ndarray, "N"], Int64[np.ndarray, "N"]]:
    """(each token, the next token) of `[BOS] document [EOS]`, over all documents.

    Args:
      store: the documents.
      tokenizer: the vocabulary.
    """
    stream = np.insert(
        np.asarray(store.tokens, np.int64), store.document_offsets[:-1], tokenizer.bos
    )
    ends = np.asarray(store.document_offsets[1:]) + np.arange(1, len(store) + 1)
    stream = np.insert(stream, ends, tokenizer.eos)
    inside = stream[1:] != tokenizer.bos
    return stream[:-1][inside], stream[1:][inside]


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text.

    Args:
      tokenizer: the vocabulary.
      texts: the texts.
    """
    ids_N, lengths = tokenizer.encode_flat(texts)
    ends = np.cumsum(lengths)
    return [
        ids_N[end - length : end].tolist()
        for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)
    ]


@dataclasses.dataclass(frozen=True)
class Targets:
    """The target tokens of held-out rows, row by row, and from left to right within each.

    Attributes:
      ids: ids of the targets.
      rows: row of each target.
      counts: the number of targets of each row.
      identity: hash of the targets, for `Examples.identity`.
    """

    ids: Integer[np.ndarray, "M"]
    rows: Integer[np.ndarray, "M"]
    counts: Integer[np.ndarray, "N"]
    identity: str

    @classmethod
    def from_batches(cls, batches: Sequence[Mapping[str, np.ndarray]], task: str) -> "Targets":
        """Collects the targets of `Validation.full`.

        The identity is a hash of the targets by row and of the task. It does not depend on the
        layout of a model's input (special tokens, mode tokens, one stream or two), so models of
        several kinds that are evaluated on the same targets share one identity.

        Args:
          batches: batches with targets and weights.
          task: name of the evaluation, for the identity.
        """
        counts = np.concatenate([(batch["weights"] > 0).sum(-1) for batch in batches])
        ids = at_targets(batches, "targets")
        return cls(
            ids,
            np.repeat(np.arange(len(counts)), counts),
            counts,
            scores.identity(task, ids.astype(np.int64), counts.astype(np.int64)),
        )

    def by_row(
        self, values: Real[np.ndarray, "M"] | Bool[np.ndarray, "M"]
    ) -> Float[np.ndarray, "N"]:
        """Values by target, summed over each row."""
        return np.bincount(self.rows, values, len(self.counts))

    def examples(self, values: Real[np.ndarray, "M"] | Bool[np.ndarray, "M"]) -> Examples:
        """The rows as examples of a mean of values by target."""
        return Examples(self.by_row(values), self.counts.astype(np.float64), self.identity)

    def nats(self, nll: Float[np.ndarray, "M"]) -> Score:
        """The score of a baseline's -log p of each target, in nats."""
        return nats(float(nll.sum()), len(self.ids), self.examples(nll))

    def accuracy(self, hits: Real[np.ndarray, "M"] | Bool[np.ndarray, "M"]) -> Score:
        """The score of a baseline that predicts the targets where `hits` is 1."""
        return fraction(float(hits.sum()), len(self.ids), self.examples(hits))

    def model_scores(
        self, by_row: Mapping[str, tuple[np.ndarray, np.ndarray]], term: str
    ) -> tuple[Score, Score]:
        """(nats, accuracy) of a model.

        Args:
          by_row: the return value of `Validation.by_row`.
          term: name of the loss term.
        """
        nll = Examples(*by_row[term], self.identity)
        hits = Examples(*by_row[f"{term}_accuracy"], self.identity)
        return (
            nats(nll.totals.sum(), nll.weights.sum(), nll),
            fraction(hits.totals.sum(), hits.weights.sum(), hits),
        )


def at_targets(batches: Sequence[Mapping[str, np.ndarray]], field: str) -> Integer[np.ndarray, "M"]:
    """A field of the batches at the targets, in the order of `Targets`.

    Args:
      batches: batches with `weights`, above 0 at targets.
      field: name of the field.
    """
    return np.concatenate([batch[field][batch["weights"] > 0] for batch in batches])
