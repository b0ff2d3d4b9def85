"""Classification of a text by fine-tuning and by a linear probe; of the corpus' own paragraphs, or of published examples.

Without a path the question is from which part of the corpus a paragraph comes: the labels with the most paragraphs (python_docs: packages;
text: files). The development set then has documents of its own.
"""

import collections
import dataclasses

import numpy as np

from lm.core.plugins import NotApplicable
from lm.stats.scores import Score
from lm.tasks import _labelled
from lm.tasks._labelled import Item, LabelledTask, Parts


@dataclasses.dataclass(frozen=True)
class Config(_labelled.Options):
    """Files, fine-tuning and amounts (lm/tasks/_labelled.py); and, where the corpus gives the examples: classes, how many labels; shortest,
    tokens of a paragraph."""

    classes: int = 8
    shortest: int = 16

    def __post_init__(self):
        super().__post_init__()
        if self.classes < 2 or self.shortest < 1:
            raise ValueError(
                f"classes={self.classes} must be at least 2, and shortest={self.shortest} at least 1"
            )


class Task(LabelledTask):
    """`suits(objective)` says which models it measures; see lm/core/protocols.py."""

    kind = "text"
    metrics = ("accuracy", "macro_f1", "accuracy_own", "probe_accuracy")
    judged = "accuracy"
    extra = ("macro_f1",)
    config: Config

    def of_corpus(self) -> Parts:
        stores = self.corpus.stores
        documents = {
            "train": lambda number: number % 5 > 0,
            "dev": lambda number: number % 5 == 0,
            "test": lambda number: True,
        }
        found = {
            part: _paragraphs(
                stores[self.split if part == "test" else "train"], keep, self.config.shortest
            )
            for part, keep in documents.items()
        }
        counts = collections.Counter(label for label, _ in found["train"] if label)
        chosen = sorted(label for label, _ in counts.most_common(self.config.classes))
        if len(chosen) < 2:
            raise NotApplicable(
                "classification needs a corpus with at least two labels (packages, files), or a path to labelled examples; this corpus has"
                f" {len(chosen)}"
            )
        rng = np.random.default_rng(0)
        most = {
            "train": self.config.train_most,
            "dev": self.config.dev_most,
            "test": self.config.test_most,
        }
        parts: Parts = {}
        for part, paragraphs in found.items():
            parts[part] = []
            for label in chosen:  # as many of each, where there are
                texts = _labelled.taken(
                    [text for of, text in paragraphs if of == label],
                    -(-most[part] // len(chosen)),
                    rng,
                )
                parts[part] += [Item([text], [label], (text,)) for text in texts]
            if not parts[part]:
                raise NotApplicable(
                    f"classification found no paragraph of {self.config.shortest} tokens under the labels {', '.join(chosen)}"
                )
        return parts

    def features(self, model, batch, dropout_keys):
        """Mean of the last hidden states, special tokens included: [B, 1, D]."""
        return _labelled.text_mean(model, batch, dropout_keys)

    def measure(self, part: str, predicted: np.ndarray) -> dict[str, Score]:
        """accuracy, macro_f1."""
        return _labelled.class_scores(self.answers[part], predicted, self.asked)

    def baselines(self, program) -> dict[str, dict[str, Score]]:
        """Logistic regression on a bag of tokens, and the most frequent class."""
        return {
            "bag of words": self.baseline(self.regress(self.bags(0))),
            "majority": self.baseline(self.majority()),
        }


def _paragraphs(store, keep, shortest: int) -> list[tuple[str, np.ndarray]]:
    """(label, tokens) of the paragraphs that are long enough, of the documents whose number is to be kept."""
    first = np.flatnonzero(store.paragraph_starts)
    begins = np.asarray(store.sentence_offsets)[first]
    ends = np.append(begins[1:], len(store.tokens))
    owners = np.searchsorted(store.document_sentences, first, side="right") - 1
    labels, long = store.labels, ends - begins >= shortest
    return [
        (labels[owner], np.asarray(store.tokens[begin:end], np.int64))
        for owner, begin, end in zip(
            owners[long].tolist(), begins[long].tolist(), ends[long].tolist(), strict=True
        )
        if keep(owner)
    ]
