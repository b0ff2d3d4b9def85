"""Masked tokens of held-out documents: cross-entropy and accuracy at one fixed mask.

Whatever rate a model was trained at, it is asked at 15 % with BERT's 80/10/10, the same positions for every model.
"""

import dataclasses

import numpy as np

from lm import lookup, ngrams
from lm.scores import Score, nats, share
from lm.validation import Validation


@dataclasses.dataclass(frozen=True)
class Config:
    """tokens: the most held-out tokens to read, masked or not. rate: share of them that is asked."""

    tokens: int = 131072
    rate: float = 0.15


class Task:
    """`suits(objective)` says which models it measures; see lm/protocols.py."""

    def __init__(self, config: Config, corpus, split: str, length: int):
        module = lookup.find("objectives", "mlm")
        self.config, self.corpus, self.split = config, corpus, split
        self.objective = module.Objective(module.Config(rate=config.rate), corpus.tokenizer, length)

    def suits(self, objective) -> bool:
        return "masked" in objective.scores

    def score(self, built, params) -> dict[str, Score]:
        """ce, accuracy."""
        sums = self._validation(built).sums(params)
        return {"ce": nats(*sums["mlm"]), "accuracy": share(*sums["mlm_accuracy"])}

    def baselines(self, built) -> dict[str, dict[str, Score]]:
        """The training split's unigram, and its bigrams to both neighbours as they stand in the corrupted input."""
        tokenizer, store = self.corpus.tokenizer, self.corpus.stores["train"]
        tokens = np.asarray(store.tokens, np.int64)
        inside = np.ones(len(tokens), bool)
        inside[np.asarray(store.document_offsets[:-1])] = False
        unigram = ngrams.Unigram(tokens, tokenizer.size)
        bigram = ngrams.Bigram(tokens[:-1][inside[1:]], tokens[1:][inside[1:]], tokenizer.size)
        targets, left, right = [], [], []
        for batch in self._validation(built).whole():
            rows, slots = np.nonzero(batch["masked_weights"])
            at = batch["masked_positions"][rows, slots]
            targets.append(batch["masked_targets"][rows, slots])
            left.append(batch["tokens"][rows, at - 1])  # position 0 is always special, so never masked
            right.append(batch["tokens"][rows, np.minimum(at + 1, batch["tokens"].shape[1] - 1)])
        target = np.concatenate(targets)
        both = np.array(
            [_nll_and_hit(bigram, l, r, t) for l, r, t in zip(np.concatenate(left), np.concatenate(right), target, strict=True)]
        )
        count = len(target)
        return {
            "unigram": {
                "ce": nats(float(unigram.nll(target).sum()), count),
                "accuracy": share(int((target == unigram.best()).sum()), count),
            },
            "bigram": {"ce": nats(float(both[:, 0].sum()), count), "accuracy": share(float(both[:, 1].sum()), count)},
        }

    def _validation(self, built) -> Validation:
        return Validation(built, self.objective, self.corpus.stores[self.split], self.split, self.config.tokens, 32)


def _nll_and_hit(bigram: ngrams.Bigram, left: int, right: int, target: int) -> tuple[float, float]:
    log_probability = bigram.between(int(left), int(right))
    return -log_probability[target], float(log_probability.argmax() == target)
