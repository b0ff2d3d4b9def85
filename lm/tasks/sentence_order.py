"""Sentence order on held-out documents (ALBERT, Lan et al. 2020): are two segments swapped?"""

import dataclasses

import numpy as np

from lm.stats.scores import Score
from lm.tasks import _pairs
from lm.training.program import Program


@dataclasses.dataclass(frozen=True)
class Config:
    """Amount of text.

    Attributes:
      tokens: maximum number of held-out tokens to read.
      fit: number of training pairs that the baseline learns from.
    """

    tokens: int = 262144
    fit: int = 20000


class Task(_pairs.PairTask):
    """Accuracy of distinguishing segments in order from swapped segments; 50 % by guessing."""

    objective_name = "sop"

    def baselines(self, program: Program) -> dict[str, dict[str, Score]]:
        """Naive Bayes on the tokens of earlier and later segments; the most frequent label."""
        training, held_out = self._training(self.config.fit), self._held_out(program)
        labels = _pairs.labels(training)
        size = self.corpus.tokenizer.size
        counts = np.ones((2, size))  # of tokens in the earlier and in the later segment of a text
        for side, texts in enumerate(_pairs.segments(training)):
            for text, swapped in zip(texts, labels, strict=True):
                np.add.at(counts[side ^ swapped], text, 1.0)
        evidence_V = np.log(counts[0] / counts[0].sum()) - np.log(counts[1] / counts[1].sum())
        predicted = np.array(
            [
                evidence_V[first].sum() < evidence_V[second].sum()
                for first, second in zip(*_pairs.segments(held_out), strict=True)
            ]
        )
        return {
            "naive Bayes": _pairs.accuracy(held_out, predicted),
            "majority": _pairs.majority(training, held_out),
        }
