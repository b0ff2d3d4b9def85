"""The words behind T5's sentinels on held-out text: cross-entropy and accuracy at density 0.15 and mean span 3, alike for every model.

Sentinels and [EOS] are not counted: they stand where they must.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from lm.core import compatibility
from lm.core.protocols import Objective
from lm.data import packing
from lm.stats import ngrams
from lm.stats.scores import Score
from lm.tasks import _text
from lm.tokenizers.sentencepiece import MODES
from lm.training.validation import Validation


@dataclasses.dataclass(frozen=True)
class Config:
    """tokens: the most held-out tokens to read."""

    tokens: int = 262144


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
        return "denoising" in objective.scores

    def score(self, program, params) -> dict[str, Score]:
        """ce, accuracy."""
        model = "encoder_decoder" if program.objective.mask == "cross" else "decoder"
        members = (
            program.objective.members.values()
            if program.objective.composed
            else [program.objective]
        )
        asked = [member.config for member in members if "denoising" in member.scores][-1]
        mode = (
            MODES[0] if getattr(asked, "mode_tokens", False) else getattr(asked, "mode_token", "")
        )
        validation = self._validation(program, model, mode)
        ce, accuracy = _text.Asked.of(validation.full(), "denoising").scored(
            validation.by_row(params), "span_corruption"
        )
        return {"ce": ce, "accuracy": accuracy}

    def baselines(self, program) -> dict[str, dict[str, Score]]:
        """The training split's unigram."""
        unigram = ngrams.Unigram(
            np.asarray(self.corpus.stores["train"].tokens, np.int64), self.corpus.tokenizer.size
        )
        asked = _text.Asked.of(self._validation(program, "decoder", "").full(), "denoising")
        return {
            "unigram": {
                "ce": asked.nats(unigram.nll(asked.targets)),
                "accuracy": asked.share(asked.targets == unigram.best()),
            }
        }

    def _validation(self, program, model: str, mode: str) -> Validation:
        def make(model, mode):
            return compatibility.make(
                {"name": "span_corruption", "mode_token": mode},
                self.corpus.tokenizer,
                self.length,
                model,
            )

        store, is_text = self.corpus.stores[self.split], self.corpus.tokenizer.bytes_per_id > 0
        # Rows that fit every model, with a mode token or without: so the same spans of the same texts are asked.
        one, two = (make(each, MODES[0]) for each in ("decoder", "encoder_decoder"))
        rooms = (one.layout.rooms[0], two.layout.rooms[1])
        plan = packing.pack(
            np.diff(store.document_offsets), rooms, needs=(one.needs[0], two.needs[1])
        ).without(2, "texts of one token")
        asked = _text.Changed(
            make(model, mode),
            self.length,
            lambda example: example | {"weights": example["weights"] * is_text[example["targets"]]},
        )
        return Validation(program, asked, store, self.split, self.config.tokens, 32, plan)
