"""Nested brackets (Dyck-(k, m), Hewitt et al. 2020) on held-out documents of the source `brackets`: does a bracket close the last open one?

`closing_accuracy`: where a bracket closes, is its kind the most probable of all closing ones? 1/k by chance. By distance to its opening
bracket: near (1 symbol), middle (2 to 9), far (10 and more); and of the outermost pairs. `legal_mass`, `excess_nll` and `kl` are those of
lm/tasks/_language.py: 1, 0 and 0 are the best possible.
"""

import dataclasses

import numpy as np

from lm.data.synthetic import brackets
from lm.data.synthetic.grammar import Grammar
from lm.stats.scores import Score, fraction
from lm.tasks import _language

Config = _language.Config
NEAR, FAR = 1, 10  # symbols from a bracket to the one that closes it


class Task(_language.LanguageTask):
    """`suits(objective)` says which models it measures; see lm/core/protocols.py."""

    metrics = (
        "closing_accuracy",
        "closing_near",
        "closing_middle",
        "closing_far",
        "closing_outermost",
        *_language.LanguageTask.metrics,
    )
    source = "brackets"

    def __init__(self, config: Config, corpus, split: str, length: int):
        super().__init__(config, corpus, split, length)
        distance, depth = self._nesting()
        closes = (distance > 0) & (self.weights > 0)
        self.asked_by = {
            "closing_accuracy": closes,
            "closing_near": closes & (distance <= NEAR),
            "closing_middle": closes & (distance > NEAR) & (distance < FAR),
            "closing_far": closes & (distance >= FAR),
            "closing_outermost": closes & (depth == 1),
        }

    def _grammar(self) -> Grammar:
        return brackets.make(
            brackets.Options(
                **{
                    field.name: self.options[field.name]
                    for field in dataclasses.fields(brackets.Options)
                }
            )
        )

    def _closing(self) -> np.ndarray:
        closing = np.zeros(self.tokenizer.size, bool)
        closing[
            [
                i
                for i, word in zip(self.words.ids, self.words.words, strict=True)
                if word[0] == brackets.CLOSE
            ]
        ] = True
        return closing

    def _nesting(self) -> tuple[np.ndarray, np.ndarray]:
        """(symbols back to the opening bracket, depth of the pair) where a target closes one, else 0: int [rows, P]."""
        distance, depth = np.zeros_like(self.batch["targets"]), np.zeros_like(self.batch["targets"])
        for row, targets in enumerate(self.batch["targets"]):
            stack: list[int] = []
            for at, word in enumerate(self.words.text(targets[: int(self.weights[row].sum())])):
                if word[0] == brackets.OPEN:
                    stack.append(at)
                elif word[0] == brackets.CLOSE:
                    depth[row, at] = len(stack)
                    distance[row, at] = at - stack.pop()
        return distance, depth

    def _scores(self, found: _language.Found) -> dict[str, Score]:
        closing = {
            name: _language.score_of(
                fraction, found["closing"] * places, places.astype(np.float64), self.asked
            )
            for name, places in self.asked_by.items()
        }
        return closing | super()._scores(found)
