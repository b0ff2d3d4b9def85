"""Likelihood of held-out documents from left to right: nats a token, perplexity, bits a byte.

Whatever a model was trained on, the tokens asked are those of the objective `clm`: each once, [EOS] included.
"""

import dataclasses
import math
from collections.abc import Sequence

from lm.core import compatibility
from lm.core.protocols import Objective
from lm.stats import ngrams
from lm.stats.scores import Examples, Score
from lm.tasks import _text
from lm.training.validation import Validation


@dataclasses.dataclass(frozen=True)
class Config:
    """tokens: the most held-out tokens to read."""

    tokens: int = 131072


class Task:
    """`suits(objective)` says which models it measures; see lm/core/protocols.py."""

    metrics = ("nll", "perplexity", "bits_per_byte", "accuracy")
    shared = False
    by_name = False
    bounds: tuple[str, ...] = ()
    notes: Sequence[str] = ()

    def __init__(self, config: Config, corpus, split: str, length: int):
        self.config, self.corpus, self.split = config, corpus, split
        self.objective = compatibility.make({"name": "clm"}, corpus.tokenizer, length, "decoder")

    @staticmethod
    def suits(objective: Objective) -> bool:
        return "causal" in objective.scores

    def score(self, program, params) -> dict[str, Score]:
        """nll, perplexity, bits_per_byte, accuracy."""
        validation = self._validation(program)
        asked = self._asked(validation)
        nll, accuracy = asked.scored(validation.by_row(params), "clm")
        return self._scores(nll, asked) | {"accuracy": accuracy}

    def baselines(self, program) -> dict[str, dict[str, Score]]:
        """Unigram and Kneser-Ney bigram models of the training split, on the same tokens."""
        tokenizer = self.corpus.tokenizer
        before, after = _text.neighbours(self.corpus.stores["train"], tokenizer)
        validation = self._validation(program)
        asked, inputs = self._asked(validation), _text.pick(validation.full(), "tokens")
        found = {
            "unigram": ngrams.Unigram(after, tokenizer.size).nll(asked.targets),
            "bigram": ngrams.Bigram(before, after, tokenizer.size).nll(inputs, asked.targets),
        }
        return {name: self._scores(asked.nats(nll), asked) for name, nll in found.items()}

    def _validation(self, program) -> Validation:
        return Validation(
            program,
            self.objective,
            self.corpus.stores[self.split],
            self.split,
            self.config.tokens,
            32,
        )

    def _asked(self, validation: Validation) -> _text.Asked:
        return _text.Asked.of(validation.full(), "causal")

    def _scores(self, nll: Score, asked: _text.Asked) -> dict[str, Score]:
        bytes_by_row = asked.by_row(self.corpus.tokenizer.bytes_per_id[asked.targets])
        size = int(bytes_by_row.sum())
        assert nll.examples is not None
        bits = Examples(nll.examples.totals / math.log(2), bytes_by_row, asked.asked)
        return {
            "nll": nll,
            # No ratio of sums, so nothing by example.
            "perplexity": Score(math.exp(min(nll.value, 700.0)), nll.count, "perplexity", "lower"),
            "bits_per_byte": Score(
                float(bits.totals.sum() / size), size, "bits/byte", "lower", bits
            ),
        }
