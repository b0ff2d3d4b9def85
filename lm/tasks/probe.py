"""A linear probe that predicts a paragraph's part of the corpus from frozen features.

The classes are the labels with the most paragraphs (python_docs: packages; text: files). No
annotation is needed, every objective can be evaluated, each model reads under its own mask, and
the model stays frozen. The features are the mean of a paragraph's last
hidden states. A logistic regression is fitted on paragraphs of the training split and scored on
paragraphs of held-out documents.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer
from scipy import sparse

from lm.core.plugins import NotApplicable
from lm.core.protocols import Batch, Model, Objective, Params
from lm.data import loader, rows
from lm.data.corpus import Corpus
from lm.data.store import Store
from lm.nn import heads
from lm.parallel import sharding
from lm.stats import scores
from lm.stats.scores import Examples, Score, fraction
from lm.tasks import _bags, _reading
from lm.training.program import Program

BATCH = 64
# Inverse regularization, selected on a quarter of the training paragraphs.
STRENGTHS = (0.003, 0.03, 0.3, 3.0)

Texts = tuple[list[np.ndarray], np.ndarray]  # ids of N paragraphs, and their classes [N]


@dataclasses.dataclass(frozen=True)
class Config:
    """The paragraphs to classify.

    Attributes:
      classes: number of labels.
      train: maximum number of training paragraphs of each label.
      test: maximum number of held-out paragraphs of each label.
      shortest: minimum number of tokens of a paragraph.
      longest: maximum number of tokens of a paragraph; longer paragraphs are cut.
    """

    classes: int = 8
    train: int = 400
    test: int = 200
    shortest: int = 16
    longest: int = 62


class Task:
    """Accuracy of a linear classifier of paragraphs on the frozen features of a model.

    Attributes:
      labels: names of the classes.
      train: paragraphs on which the classifier is fitted, with their classes.
      test: paragraphs on which the classifier is evaluated, with their classes.
    """

    metrics = ("balanced_accuracy", "accuracy")
    shared = True
    by_name = False
    bounds: tuple[str, ...] = ()
    notes: Sequence[str] = ()

    def __init__(self, config: Config, corpus: Corpus, split: str, length: int):
        try:
            import sklearn  # noqa: F401
        except ImportError:
            raise NotApplicable("the probe needs scikit-learn: pip install -e '.[tasks]'") from None
        self.config, self.corpus = config, corpus
        self.length = min(length, config.longest + 2)  # with two special tokens
        spans = self._spans("train")
        sizes = sorted(((len(of), label) for label, of in spans.items() if label), reverse=True)
        self.labels = [label for _, label in sizes[: config.classes]]
        if len(self.labels) < 2:
            raise NotApplicable(
                "the probe needs a corpus with at least two labels (packages, files); this one has"
                f" {len(self.labels)}"
            )
        self.train = self._sample(spans, corpus.stores["train"], config.train)
        self.test = self._sample(self._spans(split), corpus.stores[split], config.test)

    @staticmethod
    def suits(objective: Objective) -> bool:
        """Every model has features."""
        return True

    def score(self, program: Program, params: Params) -> dict[str, Score]:
        """Evaluates a model.

        Returns:
          {metric: Score}, fractions from 0 to 1:
            balanced_accuracy: mean recall of the classes.
            accuracy: fraction of paragraphs that are classified correctly.
        """
        compute = program.jit(_features)
        parts = sharding.parts("batch", program.mesh)
        size = -(-BATCH // parts) * parts
        features = []
        for texts, _ in (self.train, self.test):
            batches = []
            for start in range(0, len(texts), size):
                batch = self._lay_out(texts[start : start + size], size, program.objective)
                placed = loader.place(batch, program.batch_sharding, size)
                batches.append(jax.device_get(compute(params, placed)))
            features.append(np.concatenate(batches)[: len(texts)].astype(np.float64))
        train, test = features
        center, spread = train.mean(0), train.std(0) + 1e-6
        return self._classify((train - center) / spread, (test - center) / spread)

    def baselines(self, program: Program) -> dict[str, dict[str, Score]]:
        """Logistic regression on a bag of tokens, and the most frequent class."""
        size = self.corpus.tokenizer.size
        train, test = (_bags.log_counts(texts, size) for texts, _ in (self.train, self.test))
        majority = collections.Counter(self.train[1].tolist()).most_common(1)[0][0]
        return {
            "bag of words": self._classify(train, test),
            "majority": self._scores(np.full(len(self.test[1]), majority)),
        }

    def _classify(
        self, train: np.ndarray | sparse.csr_matrix, test: np.ndarray | sparse.csr_matrix
    ) -> dict[str, Score]:
        """Scores of a logistic regression on features [N, F] of the paragraphs."""
        from sklearn.linear_model import LogisticRegression

        targets = self.train[1]
        held_out = np.arange(len(targets)) % 4 == 0

        def fit(strength: float, index: np.ndarray) -> LogisticRegression:
            return LogisticRegression(C=strength, max_iter=2000, tol=1e-3).fit(
                train[index], targets[index]
            )

        accuracies = [
            fit(strength, ~held_out).score(train[held_out], targets[held_out])
            for strength in STRENGTHS
        ]
        best = fit(STRENGTHS[int(np.argmax(accuracies))], np.arange(len(targets)))
        return self._scores(best.predict(test))

    def _scores(self, predicted: Integer[np.ndarray, "N"]) -> dict[str, Score]:
        texts, targets = self.test
        hits = (predicted == targets).astype(np.float64)
        # The mean of the classes' recalls: each class has the same weight, whatever its size.
        classes, index, sizes = np.unique(targets, return_inverse=True, return_counts=True)
        recalls = np.bincount(index, hits) / sizes
        value = float(recalls.mean())
        identity, ones = scores.identity(*texts, targets), np.ones(len(hits))
        # The influence of each example on the mean if other examples are drawn. So classes keep the
        # same weight whatever their new sizes, and a constant answer has the same score on any test
        # set.
        influence = len(hits) / (sizes[index] * len(classes)) * (hits - recalls[index])
        balanced = Examples(value + influence, ones, identity)
        return {
            "balanced_accuracy": Score(value, len(targets), "share", "higher", balanced),
            "accuracy": fraction(hits.sum(), len(hits), Examples(hits, ones, identity)),
        }

    def _spans(self, split: str) -> dict[str, list[tuple[int, int]]]:
        """Token spans of the paragraphs that are long enough, by label."""
        store = self.corpus.stores[split]
        starts = np.flatnonzero(store.paragraph_starts)
        offsets = np.asarray(store.sentence_offsets)
        begins, ends = offsets[starts], np.append(offsets[starts[1:]], offsets[-1])
        owners = np.searchsorted(store.document_sentences, starts, side="right") - 1
        labels, spans = store.labels, collections.defaultdict[str, list[tuple[int, int]]](list)
        for owner, begin, end in zip(owners.tolist(), begins.tolist(), ends.tolist(), strict=True):
            if end - begin >= self.config.shortest:
                spans[labels[owner]].append((begin, end))
        return spans

    def _sample(
        self, spans: Mapping[str, Sequence[tuple[int, int]]], store: Store, most: int
    ) -> Texts:
        """Up to `most` paragraphs of each class in random order, the same in every run."""
        rng = np.random.default_rng(0)
        texts, targets = [], []
        for index, label in enumerate(self.labels):
            of_label = spans.get(label, [])
            for at in rng.permutation(len(of_label))[:most]:
                begin, end = of_label[at]
                end = min(end, begin + self.length - 2)
                texts.append(np.asarray(store.tokens[begin:end], np.int64))
                targets.append(index)
        order = rng.permutation(len(texts))
        if not len(order):
            raise NotApplicable(
                f"the probe found no paragraph of {self.config.shortest} tokens under its labels"
                f" {', '.join(self.labels)}"
            )
        return [texts[at] for at in order], np.asarray(targets)[order]

    def _lay_out(
        self, texts: Sequence[np.ndarray], size: int, objective: Objective
    ) -> dict[str, np.ndarray]:
        """A batch of `size` rows in the form of the model's training (lm/tasks/_reading.py).

        A decoder reads a text bidirectionally if it was trained to, else from left to right.
        """
        first, _, last = _reading.special_tokens(objective, self.corpus.tokenizer)
        laid_out = [rows.Row(self.length, self.corpus.tokenizer.pad) for _ in range(size)]
        for row, text in zip(laid_out, texts, strict=False):
            row.add(np.array([*first, *text, *last]))
        batch = rows.stack(laid_out)
        if objective.mask == "prefix":
            batch["prefix"] = batch["segments"] * np.int32(_reading.is_bidirectional(objective))
        return batch


def _features(model: Model, batch: Batch) -> Float[Array, "B D"]:
    """The mean of the last hidden states over each row's tokens."""
    return heads.mean(model.features(batch).astype(jnp.float32), batch["segments"] > 0)
