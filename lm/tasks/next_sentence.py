"""Next-sentence prediction on held-out documents (BERT, Devlin et al. 2019): does B follow A?"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64
from scipy import sparse

from lm.core.protocols import Example
from lm.stats.scores import Score
from lm.tasks import _bags, _pairs
from lm.training.program import Program


@dataclasses.dataclass(frozen=True)
class Config:
    """Amount of text.

    Attributes:
      tokens: maximum number of held-out tokens to read.
      fit: number of training pairs on which the baseline's threshold is set.
    """

    tokens: int = 262144
    fit: int = 4000


class Task(_pairs.PairTask):
    """Accuracy of distinguishing consecutive segments from random pairs; 50 % by guessing."""

    objective_name = "nsp"

    def baselines(self, program: Program) -> dict[str, dict[str, Score]]:
        """A threshold on the TF-IDF cosine, set on training pairs; the most frequent label."""
        training, held_out = self._training(self.config.fit), self._held_out(program)
        weights_V = self._inverse_frequency()
        cosines, labels = self._cosines(training, weights_V), _pairs.labels(training)
        best = max(
            np.unique(cosines), key=lambda threshold: ((cosines < threshold) == labels).mean()
        )
        return {
            "TF-IDF overlap": _pairs.accuracy(held_out, self._cosines(held_out, weights_V) < best),
            "majority": _pairs.majority(training, held_out),
        }

    def _inverse_frequency(self) -> Float64[np.ndarray, "V"]:
        """log(documents / documents with the token); 0 for special tokens."""
        store, tokenizer = self.corpus.stores["train"], self.corpus.tokenizer
        owner = np.repeat(np.arange(len(store)), np.diff(store.document_offsets))
        seen = np.unique(owner * np.int64(tokenizer.size) + store.tokens) % tokenizer.size
        frequency = np.log((len(store) + 1.0) / (np.bincount(seen, minlength=tokenizer.size) + 1.0))
        return np.where(tokenizer.bytes_per_id > 0, frequency, 0.0)

    def _cosines(
        self, examples: Sequence[Example], weights_V: Float64[np.ndarray, "V"]
    ) -> Float64[np.ndarray, "N"]:
        """TF-IDF cosine of the segments of each pair."""
        unit_rows = []
        for texts in _pairs.segments(examples):
            table = _bags.counts(texts, len(weights_V)).multiply(weights_V[None]).tocsr()
            norms = _bags.norms(table)
            unit_rows.append(sparse.diags(1.0 / np.maximum(norms, 1e-9)) @ table)
        return np.asarray(unit_rows[0].multiply(unit_rows[1]).sum(1)).ravel()
