"""Masked tokens of held-out documents: cross-entropy and accuracy at one fixed mask.

Whatever rate a model was trained at, it is asked at 15 % with BERT's 80/10/10, the same positions for every model. With mask_share=1 and
random_share=0 the same positions are asked with [MASK] at each of them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from lm.core import compatibility
from lm.core.protocols import Objective
from lm.data import masking
from lm.stats import ngrams
from lm.stats.scores import Score
from lm.tasks import _text
from lm.training.validation import Validation


@dataclasses.dataclass(frozen=True)
class Config:
    """tokens: the most held-out tokens to read, masked or not. rate: share of them that is asked. mask_share, random_share: shares of
    those that become [MASK] and a random id; the rest stays as it is."""

    tokens: int = 131072
    rate: float = 0.15
    mask_share: float = 0.8
    random_share: float = 0.1

    def __post_init__(self):
        masking.Options(**self.hidden)  # refuses impossible shares

    @property
    def hidden(self) -> dict[str, Any]:
        """Options of lm/data/masking.py."""
        return {"rate": self.rate, "mask_share": self.mask_share, "random_share": self.random_share}


class Task:
    """`suits(objective)` says which models it measures; see lm/core/protocols.py."""

    metrics = ("ce", "accuracy")
    shared = False
    by_name = False
    bounds: tuple[str, ...] = ()
    notes: Sequence[str] = ()

    def __init__(self, config: Config, corpus, split: str, length: int):
        self.config, self.corpus, self.split, self.length = config, corpus, split, length

    @staticmethod
    def suits(objective: Objective) -> bool:
        return "masked" in objective.scores or "masked_next" in objective.scores

    def score(self, program, params) -> dict[str, Score]:
        """ce, accuracy."""
        # Of two, the one that the run ended with.
        name = {"masked": "mlm", "masked_next": "mntp"}[
            [score for score in program.objective.scores if score.startswith("masked")][-1]
        ]
        validation = self._validation(program, name)
        ce, accuracy = self._asked(validation).scored(validation.by_row(params), name)
        return {"ce": ce, "accuracy": accuracy}

    def baselines(self, program) -> dict[str, dict[str, Score]]:
        """The training split's unigram, and its bigrams to both neighbours as they stand in the corrupted input."""
        tokenizer, store = self.corpus.tokenizer, self.corpus.stores["train"]
        tokens = np.asarray(store.tokens, np.int64)
        inside = np.ones(len(tokens), bool)
        inside[np.asarray(store.document_offsets[:-1])] = False
        unigram = ngrams.Unigram(tokens, tokenizer.size)
        bigram = ngrams.Bigram(tokens[:-1][inside[1:]], tokens[1:][inside[1:]], tokenizer.size)
        validation = self._validation(program, "mlm")
        asked, left, right = self._asked(validation), [], []
        for batch in validation.full():
            rows, slots = np.nonzero(batch["weights"])
            at = batch["target_positions"][rows, slots]
            left.append(
                batch["tokens"][rows, at - 1]
            )  # position 0 is always special, so never masked
            right.append(batch["tokens"][rows, np.minimum(at + 1, batch["tokens"].shape[1] - 1)])
        sides = zip(np.concatenate(left), np.concatenate(right), asked.targets, strict=True)
        both = np.array([_nll_and_hit(bigram, l, r, t) for l, r, t in sides])
        return {
            "unigram": {
                "ce": asked.nats(unigram.nll(asked.targets)),
                "accuracy": asked.share(asked.targets == unigram.best()),
            },
            "bigram": {"ce": asked.nats(both[:, 0]), "accuracy": asked.share(both[:, 1])},
        }

    def _asked(self, validation: Validation) -> _text.Asked:
        config, question = self.config, f"masked at {self.config.rate:g}"
        if config.hidden != Config(rate=config.rate).hidden:  # other inputs are another question
            question += f", {config.mask_share:g} by [MASK], {config.random_share:g} by random ids"
        return _text.Asked.of(validation.full(), question)

    def _validation(self, program, name: str) -> Validation:
        """Held-out rows as the model knows them: mlm and mntp hide the same tokens of the same rows, between other special tokens."""
        head = "transform" if "masked" in program.shapes["params"].get("heads", {}) else "plain"
        section = {"name": name, "head": head, **self.config.hidden}
        model = (
            program.model_name
            if "masked" in program.objective.scores or "masked_next" in program.objective.scores
            else "encoder"
        )
        objective = compatibility.make(section, self.corpus.tokenizer, self.length, model)
        return Validation(
            program, objective, self.corpus.stores[self.split], self.split, self.config.tokens, 32
        )


def _nll_and_hit(bigram: ngrams.Bigram, left: int, right: int, target: int) -> tuple[float, float]:
    log_probability = bigram.between(int(left), int(right))
    return -log_probability[target], float(log_probability.argmax() == target)
