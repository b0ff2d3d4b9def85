"""Does segment B follow segment A, on held-out documents? Accuracy, 50 % by chance."""

import dataclasses

import numpy as np
from scipy import sparse

from lm.stats.scores import Score
from lm.tasks import _pairs


@dataclasses.dataclass(frozen=True)
class Config:
    """tokens: the most held-out tokens to read. fit: training pairs from which the baseline takes its threshold."""

    tokens: int = 262144
    fit: int = 4000


class Task(_pairs.PairTask):
    """`suits(objective)` says which models it measures; see lm/core/protocols.py."""

    name = "nsp"

    def baselines(self, program) -> dict[str, dict[str, Score]]:
        """A threshold on the TF-IDF cosine of the two segments, set on training pairs; and the more frequent answer."""
        fit, asked, weight = (
            self._training(self.config.fit),
            self._asked(program),
            self._inverse_frequency(),
        )
        cosine, label = self._cosines(fit, weight), _pairs.labels(fit)
        best = max(np.unique(cosine), key=lambda threshold: ((cosine < threshold) == label).mean())
        overlap = _pairs.answered(asked, self._cosines(asked, weight) < best)
        return {"TF-IDF overlap": overlap, "majority": _pairs.majority(fit, asked)}

    def _inverse_frequency(self) -> np.ndarray:
        """log(documents / documents with the token), 0 for special tokens: [V]."""
        store, tokenizer = self.corpus.stores["train"], self.corpus.tokenizer
        owner = np.repeat(np.arange(len(store)), np.diff(store.document_offsets))
        seen = np.unique(owner * np.int64(tokenizer.size) + store.tokens) % tokenizer.size
        frequency = np.log((len(store) + 1.0) / (np.bincount(seen, minlength=tokenizer.size) + 1.0))
        return np.where(tokenizer.bytes_per_id > 0, frequency, 0.0)

    def _cosines(self, examples: list[dict], weight: np.ndarray) -> np.ndarray:
        """TF-IDF cosine of the segments of each pair."""
        tables = []
        for rows in _pairs.sides(examples):
            owner = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
            table = sparse.coo_matrix(
                (np.ones(len(owner)), (owner, np.concatenate(rows))), (len(rows), len(weight))
            ).tocsr()
            table = table.multiply(weight[None]).tocsr()
            norm = np.sqrt(np.asarray(table.multiply(table).sum(1)).ravel())
            tables.append(sparse.diags(1.0 / np.maximum(norm, 1e-9)) @ table)
        return np.asarray(tables[0].multiply(tables[1]).sum(1)).ravel()
