"""Masked tokens of held-out documents: cross-entropy and accuracy at fixed masked positions.

Every model is evaluated at a rate of 15 % with BERT's 80/10/10 scheme, at the same positions,
whatever rate it was trained with. With mask_share=1 and random_share=0, all of these positions
become [MASK].
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from lm.core import compatibility
from lm.core.protocols import Objective, Params
from lm.data import masking
from lm.data.corpus import Corpus
from lm.stats import ngrams
from lm.stats.scores import Score
from lm.tasks import _text
from lm.training.program import Program
from lm.training.validation import Validation


@dataclasses.dataclass(frozen=True)
class Config:
    """Amount of held-out text, and options of masking.

    Attributes:
      tokens: maximum number of held-out tokens to read, masked or not.
      rate: fraction of tokens that are predicted.
      mask_share: fraction of predicted tokens that become [MASK].
      random_share: fraction of predicted tokens that become a random id; the rest stay as is.
    """

    tokens: int = 131072
    rate: float = 0.15
    mask_share: float = 0.8
    random_share: float = 0.1

    def __post_init__(self) -> None:
        masking.Options(**self.masking)  # raises ValueError on impossible fractions

    @property
    def masking(self) -> dict[str, Any]:
        """Options of lm/data/masking.py."""
        return {"rate": self.rate, "mask_share": self.mask_share, "random_share": self.random_share}


class Task:
    """Masked language modeling: cross-entropy and accuracy of masked tokens."""

    metrics = ("ce", "accuracy")
    shared = False
    by_name = False
    bounds: tuple[str, ...] = ()
    notes: Sequence[str] = ()

    def __init__(self, config: Config, corpus: Corpus, split: str, length: int):
        self.config, self.corpus, self.split, self.length = config, corpus, split, length

    @staticmethod
    def suits(objective: Objective) -> bool:
        """Whether the model predicts masked tokens."""
        return "masked" in objective.scores or "masked_next" in objective.scores

    def score(self, program: Program, params: Params) -> dict[str, Score]:
        """Evaluates a model.

        Returns:
          {metric: Score}:
            ce: cross-entropy of the masked tokens, nats per token.
            accuracy: fraction of the masked tokens that have the highest logit.
        """
        # If several objectives predict masked tokens, the last one in the config is used.
        name = {"masked": "mlm", "masked_next": "mntp"}[
            [score for score in program.objective.scores if score.startswith("masked")][-1]
        ]
        validation = self._validation(program, name)
        ce, accuracy = self._targets(validation).model_scores(validation.by_row(params), name)
        return {"ce": ce, "accuracy": accuracy}

    def baselines(self, program: Program) -> dict[str, dict[str, Score]]:
        """Unigrams of the training split, and bigrams with both neighbors in the masked input."""
        tokenizer, store = self.corpus.tokenizer, self.corpus.stores["train"]
        tokens = np.asarray(store.tokens, np.int64)
        inside = np.ones(len(tokens), bool)
        inside[np.asarray(store.document_offsets[:-1])] = False
        unigram = ngrams.Unigram(tokens, tokenizer.size)
        bigram = ngrams.Bigram(tokens[:-1][inside[1:]], tokens[1:][inside[1:]], tokenizer.size)
        validation = self._validation(program, "mlm")
        targets, left, right = self._targets(validation), [], []
        for batch in validation.full():
            rows, slots = np.nonzero(batch["weights"])
            at, last = batch["target_positions"][rows, slots], batch["tokens"].shape[1] - 1
            left.append(batch["tokens"][rows, at - 1])  # position 0 is special, so never masked
            right.append(batch["tokens"][rows, np.minimum(at + 1, last)])
        triples = zip(np.concatenate(left), np.concatenate(right), targets.ids, strict=True)
        nll_and_hit = np.array([_nll_and_hit(bigram, *map(int, triple)) for triple in triples])
        return {
            "unigram": {
                "ce": targets.nats(unigram.nll(targets.ids)),
                "accuracy": targets.accuracy(targets.ids == unigram.best()),
            },
            "bigram": {
                "ce": targets.nats(nll_and_hit[:, 0]),
                "accuracy": targets.accuracy(nll_and_hit[:, 1]),
            },
        }

    def _targets(self, validation: Validation) -> _text.Targets:
        config, name = self.config, f"masked at {self.config.rate:g}"
        if config.masking != Config(rate=config.rate).masking:  # other inputs, so not paired
            name += f", {config.mask_share:g} by [MASK], {config.random_share:g} by random ids"
        return _text.Targets.from_batches(validation.full(), name)

    def _validation(self, program: Program, name: str) -> Validation:
        """Held-out rows in the form of the model's training.

        `mlm` and `mntp` mask the same tokens of the same rows, between other special tokens.
        """
        head = "transform" if "masked" in program.shapes["params"].get("heads", {}) else "plain"
        section = {"name": name, "head": head, **self.config.masking}
        model = program.model_name if self.suits(program.objective) else "encoder"
        objective = compatibility.make(section, self.corpus.tokenizer, self.length, model)
        store = self.corpus.stores[self.split]
        return Validation(program, objective, store, self.split, self.config.tokens, 32)


def _nll_and_hit(bigram: ngrams.Bigram, left: int, right: int, target: int) -> tuple[float, float]:
    log_probability_V = bigram.between(left, right)
    return -log_probability_V[target], float(log_probability_V.argmax() == target)
