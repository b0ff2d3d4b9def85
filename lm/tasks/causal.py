"""Likelihood of held-out documents from left to right: nats a token, perplexity, bits a byte.

Whatever a model was trained on, the tokens asked are those of the objective `clm`: each once, [EOS] included.
"""

import dataclasses
import math

import numpy as np

from lm import ngrams, pairing
from lm.scores import Score, nats, share
from lm.tasks import _text
from lm.validation import Validation


@dataclasses.dataclass(frozen=True)
class Config:
    """tokens: the most held-out tokens to read."""

    tokens: int = 131072


class Task:
    """`suits(objective)` says which models it measures; see lm/protocols.py."""

    metrics = ("nll", "perplexity", "bits_per_byte", "accuracy")
    shared = False

    def __init__(self, config: Config, corpus, split: str, length: int):
        self.config, self.corpus, self.split = config, corpus, split
        self.objective = pairing.make({"name": "clm"}, corpus.tokenizer, length, "decoder")

    def suits(self, objective) -> bool:
        return "causal" in objective.scores

    def score(self, built, params) -> dict[str, Score]:
        """nll, perplexity, bits_per_byte, accuracy."""
        validation = Validation(built, self.objective, self.corpus.stores[self.split], self.split, self.config.tokens, 32)
        sums = validation.sums(params)
        return self._scores(*sums["clm"], self._bytes(validation)) | {"accuracy": share(*sums["clm_accuracy"])}

    def baselines(self, built) -> dict[str, dict[str, Score]]:
        """Unigram and Kneser-Ney bigram models of the training split, on the same tokens."""
        tokenizer = self.corpus.tokenizer
        before, after = _text.neighbours(self.corpus.stores["train"], tokenizer)
        validation = Validation(built, self.objective, self.corpus.stores[self.split], self.split, self.config.tokens, 32)
        batches = validation.whole()
        targets = np.concatenate([batch["targets"][batch["weights"] > 0] for batch in batches])
        inputs = np.concatenate([batch["tokens"][batch["weights"] > 0] for batch in batches])
        size = self._bytes(validation)
        found = {
            "unigram": ngrams.Unigram(after, tokenizer.size).nll(targets),
            "bigram": ngrams.Bigram(before, after, tokenizer.size).nll(inputs, targets),
        }
        return {name: self._scores(float(nll.sum()), len(targets), size) for name, nll in found.items()}

    def _bytes(self, validation: Validation) -> int:
        """Bytes of text behind the targets."""
        table = self.corpus.tokenizer.bytes_per_id
        return int(sum(table[batch["targets"][batch["weights"] > 0]].sum() for batch in validation.whole()))

    def _scores(self, total: float, count: float, size: int) -> dict[str, Score]:
        return {
            "nll": nats(total, count),
            "perplexity": Score(math.exp(min(total / count, 700.0)), int(count), "perplexity", "lower"),
            "bits_per_byte": Score(total / math.log(2) / size, size, "bits/byte", "lower"),
        }
