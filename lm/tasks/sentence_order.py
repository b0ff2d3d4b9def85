"""Do two consecutive segments stand in their order, on held-out documents? Accuracy, 50 % by chance (ALBERT, Lan et al. 2020)."""

import dataclasses

import numpy as np

from lm.stats.scores import Score
from lm.tasks import _pairs


@dataclasses.dataclass(frozen=True)
class Config:
    """tokens: the most held-out tokens to read. fit: training pairs from which the baseline learns."""

    tokens: int = 262144
    fit: int = 20000


class Task(_pairs.PairTask):
    """`suits(objective)` says which models it measures; see lm/core/protocols.py."""

    name = "sop"

    def baselines(self, program) -> dict[str, dict[str, Score]]:
        """Naive Bayes on which tokens open and which close, from training pairs; and the more frequent answer."""
        fit, asked = self._training(self.config.fit), self._asked(program)
        label = _pairs.labels(fit)
        size = self.corpus.tokenizer.size
        counts = np.ones(
            (2, size)
        )  # of tokens in what comes first and what comes second in the text
        for side, rows in enumerate(_pairs.sides(fit)):
            for row, swapped in zip(rows, label, strict=True):
                np.add.at(counts[side ^ swapped], row, 1.0)
        evidence = np.log(counts[0] / counts[0].sum()) - np.log(counts[1] / counts[1].sum())
        first, second = _pairs.sides(asked)
        swapped = np.array(
            [evidence[a].sum() < evidence[b].sum() for a, b in zip(first, second, strict=True)]
        )
        return {
            "naive Bayes": _pairs.answered(asked, swapped),
            "majority": _pairs.majority(fit, asked),
        }
