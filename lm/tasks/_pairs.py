"""What tasks on pairs of segments have in common."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lm.core import compatibility
from lm.core.protocols import Objective
from lm.data import loader
from lm.stats import scores
from lm.stats.scores import Examples, Score, fraction
from lm.training.validation import Validation


class PairTask:
    """The accuracy of the model's pair classifier on an objective's held-out pairs; a subclass names the objective and adds baselines."""

    name = ""
    metrics = ("accuracy",)
    shared = False
    by_name = False
    bounds: tuple[str, ...] = ()
    notes: Sequence[str] = ()

    def __init__(self, config, corpus, split: str, length: int):
        self.config, self.corpus, self.split = config, corpus, split
        self.objective = compatibility.make(
            {"name": self.name}, corpus.tokenizer, length, "encoder"
        )

    @staticmethod
    def suits(objective: Objective) -> bool:
        return "pair" in objective.scores

    def score(self, program, params) -> dict[str, Score]:
        """accuracy."""
        validation = self._validation(program)
        hits, weights = validation.by_row(params)[f"{self.name}_accuracy"]
        return {"accuracy": _share(hits, weights, _listed(validation.full()))}

    def _validation(self, program) -> Validation:
        return Validation(
            program,
            self.objective,
            self.corpus.stores[self.split],
            self.split,
            self.config.tokens,
            32,
        )

    def _asked(self, program) -> list[dict[str, Any]]:
        """The held-out examples, one by one."""
        return _listed(self._validation(program).full())

    def _training(self, count: int) -> list[dict[str, Any]]:
        """Examples of the training split, for baselines."""
        store = self.corpus.stores["train"]
        rows = loader.examples(self.objective, store, self.objective.plan(store), seed=0)
        return [rows[index] for index in range(min(count, len(rows)))]


def labels(examples: list[dict[str, Any]]) -> np.ndarray:
    """The answer of each example."""
    return np.array([int(example["labels"][0]) for example in examples])


def sides(examples: list[dict[str, Any]]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The tokens of the first and of the second segment of each example."""
    first, second = (
        [
            example["tokens"][(example["segments"] > 0) & (example["types"] == side)]
            for example in examples
        ]
        for side in (0, 1)
    )
    return first, second


def answered(asked: list[dict[str, Any]], answers: np.ndarray) -> dict[str, Score]:
    """The score of one answer to each example."""
    return {
        "accuracy": _share(
            (labels(asked) == answers).astype(np.float64), np.ones(len(asked)), asked
        )
    }


def majority(fit: list[dict[str, Any]], asked: list[dict[str, Any]]) -> dict[str, Score]:
    """The answer that is the more frequent one in training."""
    return answered(asked, np.full(len(asked), int(labels(fit).mean() > 0.5)))


def _listed(batches: list[dict[str, np.ndarray]]) -> list[dict[str, Any]]:
    return [
        {name: values[row] for name, values in batch.items()}
        for batch in batches
        for row in range(len(batch["labels"]))
    ]


def _share(hits: np.ndarray, weights: np.ndarray, asked: list[dict[str, Any]]) -> Score:
    """The share of hits, by pair [N]."""
    about = scores.identity(
        *(np.stack([example[name] for example in asked]) for name in ("tokens", "types", "labels"))
    )
    return fraction(hits.sum(), weights.sum(), Examples(hits, weights, about))
