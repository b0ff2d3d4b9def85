"""Classification of a text, by fine-tuning and by a linear probe.

The texts are published examples; or, without a path, paragraphs of the corpus, which are classified
by the part of the corpus that they come from. The classes are then the labels with the most
paragraphs (python_docs: packages; text: files), and the development set has separate documents.
"""

import collections
import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Array, Float, Integer

from lm.core.plugins import NotApplicable
from lm.core.protocols import Batch, Model
from lm.data.corpus import Corpus
from lm.data.store import Store
from lm.nn.layers import DropoutKeys
from lm.stats.scores import Score
from lm.tasks import _labelled
from lm.tasks._labelled import Item, LabelledTask, Parts
from lm.training.program import Program


@dataclasses.dataclass(frozen=True)
class Config(_labelled.Options):
    """Options of lm/tasks/_labelled.py, and options for texts of the corpus.

    Attributes:
      classes: number of labels.
      shortest: minimum number of tokens of a paragraph.
    """

    classes: int = 8
    shortest: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes < 2 or self.shortest < 1:
            raise ValueError(
                f"classes={self.classes} must be at least 2, and shortest={self.shortest} at least"
                " 1"
            )


class Task(LabelledTask):
    """Accuracy and macro F1 of a classifier of texts."""

    kind = "text"
    metrics = ("accuracy", "macro_f1", "accuracy_own", "probe_accuracy")
    selection_metric = "accuracy"
    tuned_only = ("macro_f1",)

    def __init__(self, config: Config, corpus: Corpus, split: str, length: int):
        self._classes, self._shortest = config.classes, config.shortest
        super().__init__(config, corpus, split, length)

    def corpus_parts(self) -> Parts:
        stores, config = self.corpus.stores, self.config
        # Which documents of the split belong to a part.
        splits: dict[str, tuple[Store, Callable[[int], bool]]] = {
            "train": (stores["train"], lambda document: document % 5 > 0),
            "dev": (stores["train"], lambda document: document % 5 == 0),
            "test": (stores[self.split], lambda document: True),
        }
        paragraphs = {
            part: _paragraphs(store, keep, self._shortest) for part, (store, keep) in splits.items()
        }
        counts = collections.Counter(label for label, _ in paragraphs["train"] if label)
        labels = sorted(label for label, _ in counts.most_common(self._classes))
        if len(labels) < 2:
            raise NotApplicable(
                "classification needs a corpus with at least two labels (packages, files), or a"
                f" path to labelled examples; this corpus has {len(labels)}"
            )
        rng = np.random.default_rng(0)
        most = {"train": config.train_most, "dev": config.dev_most, "test": config.test_most}
        parts: Parts = {}
        for part, texts in paragraphs.items():
            parts[part] = []
            for label in labels:  # an equal number of texts for each label, if there are enough
                sampled = _labelled.sample(
                    [text for of, text in texts if of == label], -(-most[part] // len(labels)), rng
                )
                parts[part] += [Item([text], [label], (text,)) for text in sampled]
            if not parts[part]:
                raise NotApplicable(
                    f"classification needs paragraphs of {self._shortest} tokens under the labels"
                    f" {', '.join(labels)}, and there are none for {part}"
                )
        return parts

    def features(
        self, model: Model, batch: Batch, dropout_keys: DropoutKeys | None
    ) -> Float[Array, "B 1 D"]:
        """The mean of the last hidden states, special tokens included."""
        return _labelled.text_mean(model, batch, dropout_keys)

    def measure(self, part: str, predicted: Integer[np.ndarray, "M"]) -> dict[str, Score]:
        """Returns accuracy and macro_f1, fractions; see `_labelled.class_scores`."""
        return _labelled.class_scores(self.targets[part], predicted, self.identity)

    def baselines(self, program: Program) -> dict[str, dict[str, Score]]:
        """Logistic regression on a bag of tokens, and the most frequent class."""
        return {
            "bag of words": self.baseline(self.regress(self.bags(0))),
            "majority": self.baseline(self.majority()),
        }


def _paragraphs(
    store: Store, keep: Callable[[int], bool], shortest: int
) -> list[tuple[str, np.ndarray]]:
    """(label, tokens) of the paragraphs that are long enough.

    Args:
      store: the documents.
      keep: function from the number of a document to whether the document is used.
      shortest: minimum number of tokens of a paragraph.
    """
    first = np.flatnonzero(store.paragraph_starts)
    begins = np.asarray(store.sentence_offsets)[first]
    ends = np.append(begins[1:], len(store.tokens))
    owners = np.searchsorted(store.document_sentences, first, side="right") - 1
    labels, is_long = store.labels, ends - begins >= shortest
    return [
        (labels[owner], np.asarray(store.tokens[begin:end], np.int64))
        for owner, begin, end in zip(
            owners[is_long].tolist(), begins[is_long].tolist(), ends[is_long].tolist(), strict=True
        )
        if keep(owner)
    ]
