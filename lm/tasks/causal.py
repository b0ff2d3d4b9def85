"""Likelihood of held-out documents from left to right: nats per token, perplexity, bits per byte.

For every model, whatever its objective, the targets are those of the objective `clm`: each token
once, and [EOS].
"""

import dataclasses
import math
from collections.abc import Sequence

from lm.core import compatibility
from lm.core.protocols import Objective, Params
from lm.data.corpus import Corpus
from lm.stats import ngrams
from lm.stats.scores import Examples, Score
from lm.tasks import _text
from lm.training.program import Program
from lm.training.validation import Validation


@dataclasses.dataclass(frozen=True)
class Config:
    """Amount of held-out text.

    Attributes:
      tokens: maximum number of held-out tokens to read.
    """

    tokens: int = 131072


class Task:
    """Next-token prediction on documents: nats, perplexity, bits per byte and accuracy."""

    metrics = ("nll", "perplexity", "bits_per_byte", "accuracy")
    shared = False
    by_name = False
    bounds: tuple[str, ...] = ()
    notes: Sequence[str] = ()

    def __init__(self, config: Config, corpus: Corpus, split: str, length: int):
        self.config, self.corpus, self.split = config, corpus, split
        self.objective = compatibility.make({"name": "clm"}, corpus.tokenizer, length, "decoder")

    @staticmethod
    def suits(objective: Objective) -> bool:
        """Whether the model predicts the next token."""
        return "causal" in objective.scores

    def score(self, program: Program, params: Params) -> dict[str, Score]:
        """Evaluates a model.

        Returns:
          {metric: Score}:
            nll: negative log-likelihood, nats per token.
            perplexity: exp(nll).
            bits_per_byte: negative log-likelihood in bits, per byte of UTF-8 text.
            accuracy: fraction of tokens that have the highest logit.
        """
        validation = self._validation(program)
        targets = self._targets(validation)
        nll, accuracy = targets.model_scores(validation.by_row(params), "clm")
        return self._scores(nll, targets) | {"accuracy": accuracy}

    def baselines(self, program: Program) -> dict[str, dict[str, Score]]:
        """Unigram and Kneser-Ney bigram models of the training split, on the same targets."""
        tokenizer = self.corpus.tokenizer
        before, after = _text.neighbors(self.corpus.stores["train"], tokenizer)
        validation = self._validation(program)
        targets = self._targets(validation)
        inputs = _text.at_targets(validation.full(), "tokens")
        nll = {
            "unigram": ngrams.Unigram(after, tokenizer.size).nll(targets.ids),
            "bigram": ngrams.Bigram(before, after, tokenizer.size).nll(inputs, targets.ids),
        }
        return {name: self._scores(targets.nats(values), targets) for name, values in nll.items()}

    def _validation(self, program: Program) -> Validation:
        store = self.corpus.stores[self.split]
        return Validation(program, self.objective, store, self.split, self.config.tokens, 32)

    def _targets(self, validation: Validation) -> _text.Targets:
        return _text.Targets.from_batches(validation.full(), "causal")

    def _scores(self, nll: Score, targets: _text.Targets) -> dict[str, Score]:
        bytes_by_row = targets.by_row(self.corpus.tokenizer.bytes_per_id[targets.ids])
        size = int(bytes_by_row.sum())
        assert nll.examples is not None
        bits = Examples(nll.examples.totals / math.log(2), bytes_by_row, targets.identity)
        return {
            "nll": nll,
            # Perplexity is not a ratio of sums, so it has no per-example values.
            "perplexity": Score(math.exp(min(nll.value, 700.0)), nll.count, "perplexity", "lower"),
            "bits_per_byte": Score(
                float(bits.totals.sum() / size), size, "bits/byte", "lower", bits
            ),
        }
