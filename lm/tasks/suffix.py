"""The second half of held-out texts, given the first half: nats per token.

Causal models, prefix models and encoder-decoders are evaluated on the same targets. A causal model
reads the first half from left to right; the others read it bidirectionally.
"""

import dataclasses
from collections.abc import Sequence

from lm.core import compatibility
from lm.core.protocols import Example, Objective, Params
from lm.data.corpus import Corpus
from lm.stats import ngrams
from lm.stats.scores import Score
from lm.tasks import _text
from lm.training.program import Program
from lm.training.validation import Validation


@dataclasses.dataclass(frozen=True)
class Config:
    """Amount of held-out text.

    Attributes:
      tokens: maximum number of held-out tokens to read, both halves together.
    """

    tokens: int = 131072


class Task:
    """Continuation of a text from its middle: nats and accuracy of the second half."""

    metrics = ("nll", "accuracy")
    shared = False
    by_name = False
    bounds: tuple[str, ...] = ()
    notes: Sequence[str] = ()

    def __init__(self, config: Config, corpus: Corpus, split: str, length: int):
        self.config, self.corpus, self.split, self.length = config, corpus, split, length

    @staticmethod
    def suits(objective: Objective) -> bool:
        """Whether the model predicts the next token, or continues prefixes."""
        return "suffix" in objective.scores or "causal" in objective.scores

    def score(self, program: Program, params: Params) -> dict[str, Score]:
        """Evaluates a model.

        Returns:
          {metric: Score}:
            nll: negative log-likelihood of the second half, nats per token.
            accuracy: fraction of tokens of the second half that have the highest logit.
        """
        model = "encoder_decoder" if program.objective.mask == "cross" else "decoder"
        is_causal = "suffix" not in program.objective.scores
        validation = self._validation(program, model, is_causal)
        nll, accuracy = _text.Targets.from_batches(validation.full(), "suffix").model_scores(
            validation.by_row(params), "prefix_lm"
        )
        return {"nll": nll, "accuracy": accuracy}

    def baselines(self, program: Program) -> dict[str, dict[str, Score]]:
        """Unigram and Kneser-Ney bigram models of the training split, on the same targets."""
        tokenizer = self.corpus.tokenizer
        before, after = _text.neighbors(self.corpus.stores["train"], tokenizer)
        batches = self._validation(program, "decoder", is_causal=True).full()
        targets, inputs = (
            _text.Targets.from_batches(batches, "suffix"),
            _text.at_targets(batches, "tokens"),
        )
        unigram = ngrams.Unigram(after, tokenizer.size)
        bigram = ngrams.Bigram(before, after, tokenizer.size)
        return {
            "unigram": {
                "nll": targets.nats(unigram.nll(targets.ids)),
                "accuracy": targets.accuracy(targets.ids == unigram.best()),
            },
            "bigram": {"nll": targets.nats(bigram.nll(inputs, targets.ids))},
        }

    def _validation(self, program: Program, model: str, is_causal: bool) -> Validation:
        """Held-out rows.

        Args:
          program: the model's program.
          model: "decoder" or "encoder_decoder", which determines the layout of the halves.
          is_causal: whether rows have no prefix.
        """
        section = {"name": "prefix_lm", "split": 0.5}
        objective = compatibility.make(section, self.corpus.tokenizer, self.length, model)

        def without_prefix(example: Example) -> Example:
            return example | {"prefix": 0 * example["prefix"]}

        # Tokens are counted as for a decoder, so that every model reads the same number of rows.
        changed = _text.ObjectiveWithModifiedExamples(
            objective, self.length, without_prefix if is_causal else None
        )
        store = self.corpus.stores[self.split]
        return Validation(program, changed, store, self.split, self.config.tokens, 32)
