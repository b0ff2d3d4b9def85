"""Nested brackets (Dyck-(k, m), Hewitt et al. 2020) on held-out documents of the source `brackets`.

`closing_accuracy` is the fraction of targets that close a bracket at which the correct kind is the
most probable of all closing brackets; guessing gives 1/k. It is also reported by distance to the
opening bracket, as near (1 symbol), middle (2 to 9) and far (10 and more), and for outermost pairs.
`legal_mass`, `excess_nll` and `kl` are those of lm/tasks/_language.py; their best possible values
are 1, 0 and 0.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int

from lm.data.corpus import Corpus
from lm.data.synthetic import brackets
from lm.data.synthetic.grammar import Grammar
from lm.stats.scores import Score, fraction
from lm.tasks import _language
from lm.tasks._synthetic import PerTarget

Config = _language.Config
NEAR, FAR = 1, 10  # number of symbols from an opening bracket to its closing bracket


class Task(_language.LanguageTask):
    """Whether a model closes the last open bracket, by distance (Hewitt et al. 2020).

    Attributes:
      targets_of: closing metric → mask of the targets that the metric counts, bool [B, P].
    """

    metrics = (
        "closing_accuracy",
        "closing_near",
        "closing_middle",
        "closing_far",
        "closing_outermost",
        *_language.LanguageTask.metrics,
    )
    source = "brackets"

    def __init__(self, config: Config, corpus: Corpus, split: str, length: int):
        super().__init__(config, corpus, split, length)
        distance, depth = self._nesting()
        closes = (distance > 0) & (self.weights > 0)
        self.targets_of = {
            "closing_accuracy": closes,
            "closing_near": closes & (distance <= NEAR),
            "closing_middle": closes & (distance > NEAR) & (distance < FAR),
            "closing_far": closes & (distance >= FAR),
            "closing_outermost": closes & (depth == 1),
        }

    def _grammar(self) -> Grammar:
        fields = dataclasses.fields(brackets.Options)
        return brackets.make(
            brackets.Options(**{field.name: self.options[field.name] for field in fields})
        )

    def _closing(self) -> Bool[np.ndarray, "V"]:
        closing_V = np.zeros(self.tokenizer.size, bool)
        is_closing = [word[0] == brackets.CLOSE for word in self.words.words]
        closing_V[self.words.ids[is_closing]] = True
        return closing_V

    def _nesting(self) -> tuple[Int[np.ndarray, "B P"], Int[np.ndarray, "B P"]]:
        """(distance to the opening bracket, depth of the pair) of closing targets, 0 elsewhere."""
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

    def _scores(self, values: PerTarget) -> dict[str, Score]:
        closing = {
            name: _language.score_of(
                fraction, values["closing"] * targets, targets.astype(np.float64), self.identity
            )
            for name, targets in self.targets_of.items()
        }
        return closing | super()._scores(values)
