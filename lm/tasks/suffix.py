"""The second half of held-out texts, given the first: nats a token. Causal models, prefix models and encoder-decoders are asked the same.

A causal model reads the first half from left to right, the others see it whole.
"""

import dataclasses
from collections.abc import Sequence

from lm.core import compatibility
from lm.core.protocols import Objective
from lm.stats import ngrams
from lm.stats.scores import Score
from lm.tasks import _text
from lm.training.validation import Validation


@dataclasses.dataclass(frozen=True)
class Config:
    """tokens: the most held-out tokens to read, given or asked."""

    tokens: int = 131072


class Task:
    """`suits(objective)` says which models it measures; see lm/core/protocols.py."""

    metrics = ("nll", "accuracy")
    shared = False
    by_name = False
    bounds: tuple[str, ...] = ()
    notes: Sequence[str] = ()

    def __init__(self, config: Config, corpus, split: str, length: int):
        self.config, self.corpus, self.split, self.length = config, corpus, split, length

    @staticmethod
    def suits(objective: Objective) -> bool:
        return "suffix" in objective.scores or "causal" in objective.scores

    def score(self, program, params) -> dict[str, Score]:
        """nll, accuracy."""
        model = "encoder_decoder" if program.objective.mask == "cross" else "decoder"
        validation = self._validation(
            program, model, causal="suffix" not in program.objective.scores
        )
        nll, accuracy = _text.Asked.of(validation.full(), "suffix").scored(
            validation.by_row(params), "prefix_lm"
        )
        return {"nll": nll, "accuracy": accuracy}

    def baselines(self, program) -> dict[str, dict[str, Score]]:
        """Unigram and Kneser-Ney bigram models of the training split, on the same tokens."""
        tokenizer = self.corpus.tokenizer
        before, after = _text.neighbours(self.corpus.stores["train"], tokenizer)
        batches = self._validation(program, "decoder", causal=True).full()
        asked, inputs = _text.Asked.of(batches, "suffix"), _text.pick(batches, "tokens")
        unigram, bigram = (
            ngrams.Unigram(after, tokenizer.size),
            ngrams.Bigram(before, after, tokenizer.size),
        )
        return {
            "unigram": {
                "nll": asked.nats(unigram.nll(asked.targets)),
                "accuracy": asked.share(asked.targets == unigram.best()),
            },
            "bigram": {"nll": asked.nats(bigram.nll(inputs, asked.targets))},
        }

    def _validation(self, program, model: str, causal: bool) -> Validation:
        objective = compatibility.make(
            {"name": "prefix_lm", "split": 0.5}, self.corpus.tokenizer, self.length, model
        )
        # Tokens are counted as a decoder's, so that every model is asked as many.
        asked = _text.Changed(
            objective,
            self.length,
            (lambda example: example | {"prefix": 0 * example["prefix"]}) if causal else None,
        )
        return Validation(
            program, asked, self.corpus.stores[self.split], self.split, self.config.tokens, 32
        )
