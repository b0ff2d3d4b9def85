"""Shared by tasks on pairs of segments."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer

from lm.core import compatibility
from lm.core.protocols import Example, Objective, Params
from lm.data import loader
from lm.data.corpus import Corpus
from lm.stats import scores
from lm.stats.scores import Examples, Score, fraction
from lm.training.program import Program
from lm.training.validation import Validation


class PairTask:
    """The accuracy of the model's pair classifier on an objective's held-out pairs.

    A subclass names the objective and adds baselines. The config has `tokens`, the maximum number
    of held-out tokens to read, and `fit`, the number of training pairs that a baseline learns from.
    """

    objective_name = ""
    metrics = ("accuracy",)
    shared = False
    by_name = False
    bounds: tuple[str, ...] = ()
    notes: Sequence[str] = ()

    def __init__(self, config: Any, corpus: Corpus, split: str, length: int):
        self.config, self.corpus, self.split = config, corpus, split
        self.objective = compatibility.make(
            {"name": self.objective_name}, corpus.tokenizer, length, "encoder"
        )

    @staticmethod
    def suits(objective: Objective) -> bool:
        """Whether the model classifies pairs."""
        return "pair" in objective.scores

    def score(self, program: Program, params: Params) -> dict[str, Score]:
        """Evaluates the model's pair classifier.

        Returns:
          {"accuracy": Score}, the fraction of pairs that are classified correctly.
        """
        validation = self._validation(program)
        hits, weights = validation.by_row(params)[f"{self.objective_name}_accuracy"]
        return {"accuracy": _score(hits, weights, _examples(validation.full()))}

    def _validation(self, program: Program) -> Validation:
        store = self.corpus.stores[self.split]
        return Validation(program, self.objective, store, self.split, self.config.tokens, 32)

    def _held_out(self, program: Program) -> list[Example]:
        """The held-out examples, one by one."""
        return _examples(self._validation(program).full())

    def _training(self, count: int) -> list[Example]:
        """Up to `count` examples of the training split, for baselines."""
        store = self.corpus.stores["train"]
        rows = loader.examples(self.objective, store, self.objective.plan(store), seed=0)
        return [rows[index] for index in range(min(count, len(rows)))]


def labels(examples: Sequence[Example]) -> Int64[np.ndarray, "N"]:
    """The label of each example."""
    return np.array([int(example["labels"][0]) for example in examples])


def segments(examples: Sequence[Example]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The tokens of the first and of the second segment of each example."""
    first, second = (
        [
            example["tokens"][(example["segments"] > 0) & (example["types"] == side)]
            for example in examples
        ]
        for side in (0, 1)
    )
    return first, second


def accuracy(
    examples: Sequence[Example], predicted: Integer[np.ndarray, "N"] | Bool[np.ndarray, "N"]
) -> dict[str, Score]:
    """Evaluates one predicted label for each example.

    Args:
      examples: N examples.
      predicted: the predicted label of each example, [N].

    Returns:
      {"accuracy": Score}, the fraction of correct labels.
    """
    hits = (labels(examples) == predicted).astype(np.float64)
    return {"accuracy": _score(hits, np.ones(len(examples)), examples)}


def majority(training: Sequence[Example], examples: Sequence[Example]) -> dict[str, Score]:
    """Evaluates the most frequent label of the training examples.

    Args:
      training: examples that determine the most frequent label.
      examples: examples to evaluate.

    Returns:
      {"accuracy": Score}, the fraction of examples with this label.
    """
    return accuracy(examples, np.full(len(examples), int(labels(training).mean() > 0.5)))


def _examples(batches: Sequence[Mapping[str, np.ndarray]]) -> list[Example]:
    return [
        {name: values[row] for name, values in batch.items()}
        for batch in batches
        for row in range(len(batch["labels"]))
    ]


def _score(
    hits: Float64[np.ndarray, "N"],
    weights: Float64[np.ndarray, "N"],
    examples: Sequence[Example],
) -> Score:
    """The fraction of hits; each pair is an example."""
    identity = scores.identity(
        *(
            np.stack([example[name] for example in examples])
            for name in ("tokens", "types", "labels")
        )
    )
    return fraction(hits.sum(), weights.sum(), Examples(hits, weights, identity))
