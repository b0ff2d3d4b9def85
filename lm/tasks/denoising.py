"""The tokens behind T5's sentinels on held-out text (Raffel et al. 2020).

The density is 0.15 and the mean span 3, the same for every model. Sentinels and [EOS] are not
counted: their positions are fixed.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from lm.core import compatibility
from lm.core.protocols import Example, Objective, Params
from lm.data import packing
from lm.data.corpus import Corpus
from lm.stats import ngrams
from lm.stats.scores import Score
from lm.tasks import _text
from lm.tokenizers.sentencepiece import MODES
from lm.training.program import Program
from lm.training.validation import Validation


@dataclasses.dataclass(frozen=True)
class Config:
    """Amount of held-out text.

    Attributes:
      tokens: maximum number of held-out tokens to read.
    """

    tokens: int = 262144


class Task:
    """Span corruption: cross-entropy and accuracy of the dropped tokens."""

    metrics = ("ce", "accuracy")
    shared = False
    by_name = False
    bounds: tuple[str, ...] = ()
    notes: Sequence[str] = ()

    def __init__(self, config: Config, corpus: Corpus, split: str, length: int):
        self.config, self.corpus, self.split, self.length = config, corpus, split, length

    @staticmethod
    def suits(objective: Objective) -> bool:
        """Whether the model was trained to fill in spans behind sentinels."""
        return "denoising" in objective.scores

    def score(self, program: Program, params: Params) -> dict[str, Score]:
        """Evaluates a model.

        Returns:
          {metric: Score}:
            ce: cross-entropy of the dropped tokens, nats per token.
            accuracy: fraction of the dropped tokens that have the highest logit.
        """
        objective = program.objective
        model = "encoder_decoder" if objective.mask == "cross" else "decoder"
        members = list(objective.members.values()) if objective.composed else [objective]
        mode = [member.mode_token for member in members if "denoising" in member.scores][-1]
        validation = self._validation(program, model, mode)
        ce, accuracy = _text.Targets.from_batches(validation.full(), "denoising").model_scores(
            validation.by_row(params), "span_corruption"
        )
        return {"ce": ce, "accuracy": accuracy}

    def baselines(self, program: Program) -> dict[str, dict[str, Score]]:
        """Unigrams of the training split."""
        unigram = ngrams.Unigram(
            np.asarray(self.corpus.stores["train"].tokens, np.int64), self.corpus.tokenizer.size
        )
        targets = _text.Targets.from_batches(
            self._validation(program, "decoder", "").full(), "denoising"
        )
        return {
            "unigram": {
                "ce": targets.nats(unigram.nll(targets.ids)),
                "accuracy": targets.accuracy(targets.ids == unigram.best()),
            }
        }

    def _validation(self, program: Program, model: str, mode: str) -> Validation:
        """Held-out rows.

        Args:
          program: the model's program.
          model: "decoder" or "encoder_decoder", which determines the layout of input and target.
          mode: the mode token before each input, or "".
        """

        def objective(model: str, mode: str) -> Objective:
            section = {"name": "span_corruption", "mode_token": mode}
            return compatibility.make(section, self.corpus.tokenizer, self.length, model)

        store, is_text = self.corpus.stores[self.split], self.corpus.tokenizer.bytes_per_id > 0
        # Rows that fit every model, with a mode token or without, so that all models are evaluated
        # on the same spans of the same texts.
        one: Any = objective("decoder", MODES[0])
        two: Any = objective("encoder_decoder", MODES[0])
        lengths = (one.layout.stream_lengths[0], two.layout.stream_lengths[1])
        plan = packing.pack(
            np.diff(store.document_offsets), lengths, needs=(one.needs[0], two.needs[1])
        ).without(2, "texts of one token")

        def without_sentinels(example: Example) -> Example:
            return example | {"weights": example["weights"] * is_text[example["targets"]]}

        changed = _text.ObjectiveWithModifiedExamples(
            objective(model, mode), self.length, without_sentinels
        )
        return Validation(program, changed, store, self.split, self.config.tokens, 32, plan)
