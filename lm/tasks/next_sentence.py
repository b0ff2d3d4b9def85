"""Does segment B follow segment A, on held-out documents? Accuracy, 50 % by chance."""

import dataclasses

import numpy as np
from scipy import sparse

from lm import lookup
from lm.scores import Score, share
from lm.validation import Validation


@dataclasses.dataclass(frozen=True)
class Config:
    """tokens: the most held-out tokens to read. fit: training pairs from which the baseline takes its threshold."""

    tokens: int = 262144
    fit: int = 4000


class Task:
    """`suits(objective)` says which models it measures; see lm/protocols.py."""

    def __init__(self, config: Config, corpus, split: str, length: int):
        module = lookup.find("objectives", "nsp")
        self.config, self.corpus, self.split = config, corpus, split
        self.objective = module.Objective(module.Config(), corpus.tokenizer, length)

    def suits(self, objective) -> bool:
        return "next_sentence" in objective.scores

    def score(self, built, params) -> dict[str, Score]:
        """accuracy."""
        return {"accuracy": share(*self._validation(built).sums(params)["nsp_accuracy"])}

    def baselines(self, built) -> dict[str, dict[str, Score]]:
        """A threshold on the TF-IDF cosine of the two segments, set on training pairs; and the more frequent answer."""
        examples = self.objective.dataset(self.corpus.stores["train"], seed=0)
        fit = [examples[index] for index in range(min(self.config.fit, len(examples)))]
        weight = self._inverse_frequency()
        cosine, label = self._cosines(fit, weight)
        asked = [
            {name: values[row] for name, values in batch.items()}
            for batch in self._validation(built).whole()
            for row in range(len(batch["label"]))
        ]
        cosine_asked, label_asked = self._cosines(asked, weight)
        best = max(np.unique(cosine), key=lambda threshold: ((cosine < threshold) == label).mean())
        hits = ((cosine_asked < best) == label_asked).sum()
        frequent = int(label.mean() > 0.5)
        return {
            "TF-IDF overlap": {"accuracy": share(int(hits), len(label_asked))},
            "majority": {"accuracy": share(int((label_asked == frequent).sum()), len(label_asked))},
        }

    def _validation(self, built) -> Validation:
        return Validation(built, self.objective, self.corpus.stores[self.split], self.split, self.config.tokens, 32)

    def _inverse_frequency(self) -> np.ndarray:
        """log(documents / documents with the token), 0 for special tokens: [V]."""
        store, tokenizer = self.corpus.stores["train"], self.corpus.tokenizer
        owner = np.repeat(np.arange(len(store)), np.diff(store.document_offsets))
        seen = np.unique(owner * np.int64(tokenizer.size) + store.tokens) % tokenizer.size
        frequency = np.log((len(store) + 1.0) / (np.bincount(seen, minlength=tokenizer.size) + 1.0))
        return np.where(tokenizer.bytes_per_id > 0, frequency, 0.0)

    def _cosines(self, examples: list[dict], weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """TF-IDF cosine of the segments of each pair, and its label."""
        sides = []
        for side in (0, 1):
            rows = [example["tokens"][(example["segments"] > 0) & (example["types"] == side)] for example in examples]
            owner = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
            table = sparse.coo_matrix((np.ones(len(owner)), (owner, np.concatenate(rows))), (len(rows), len(weight))).tocsr()
            table = table.multiply(weight[None]).tocsr()
            norm = np.sqrt(np.asarray(table.multiply(table).sum(1)).ravel())
            sides.append(sparse.diags(1.0 / np.maximum(norm, 1e-9)) @ table)
        return np.asarray(sides[0].multiply(sides[1]).sum(1)).ravel(), np.array([int(example["label"]) for example in examples])
