"""A linear probe on frozen features: from which part of the corpus does a paragraph come?

The classes are the eight labels with the most paragraphs (python_docs: packages; text: files). The answer is known by
construction, every objective can be asked, each model reads under its own mask, and nothing of the model is trained: the features are the
mean of the paragraph's last hidden states; a logistic regression is fitted on paragraphs of the training split and scored on paragraphs of
held-out documents.
"""

import collections
import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from lm.core.plugins import NotApplicable
from lm.core.protocols import Objective
from lm.data import loader
from lm.nn import heads
from lm.parallel import mesh as meshes
from lm.stats import scores
from lm.stats.scores import Examples, Score, fraction
from lm.tasks import _reading

BATCH = 64
STRENGTHS = (
    0.003,
    0.03,
    0.3,
    3.0,
)  # inverse regularisation, chosen on a quarter of the training paragraphs


@dataclasses.dataclass(frozen=True)
class Config:
    """classes: how many labels. train, test: paragraphs of each label at most. shortest, longest: tokens of a paragraph: one with fewer
    is passed over, one with more is cut."""

    classes: int = 8
    train: int = 400
    test: int = 200
    shortest: int = 16
    longest: int = 62


class Task:
    """`suits(objective)` says which models it measures; see lm/core/protocols.py."""

    metrics = ("balanced_accuracy", "accuracy")
    shared = True
    by_name = False
    bounds: tuple[str, ...] = ()
    notes: Sequence[str] = ()

    def __init__(self, config: Config, corpus, split: str, length: int):
        try:
            import sklearn  # noqa: F401
        except ImportError:
            raise NotApplicable("the probe needs scikit-learn: pip install 'lm[tasks]'") from None
        self.config, self.corpus, self.split = config, corpus, split
        self.length = min(length, config.longest + 2)  # with two special tokens
        found = self._paragraphs("train")
        enough = [(len(spans), label) for label, spans in found.items() if label]
        self.labels = [label for _, label in sorted(enough, reverse=True)[: config.classes]]
        if len(self.labels) < 2:
            raise NotApplicable(
                f"the probe needs a corpus with at least two labels (packages, files); this one has {len(self.labels)}"
            )
        self.train = self._sample(found, corpus.stores["train"], config.train)
        self.test = self._sample(self._paragraphs(split), corpus.stores[split], config.test)

    @staticmethod
    def suits(objective: Objective) -> bool:
        return True

    def score(self, program, params) -> dict[str, Score]:
        """balanced_accuracy, accuracy."""
        compute = program.jit(_features)
        parts = meshes.parts("batch", program.mesh)
        size = -(-BATCH // parts) * parts
        sides = []
        for texts, _ in (self.train, self.test):
            rows = []
            for start in range(0, len(texts), size):
                batch = self._lay_out(texts[start : start + size], size, program.objective)
                rows.append(
                    jax.device_get(
                        compute(params, loader.place(batch, program.batch_sharding, size))
                    )
                )
            sides.append(np.concatenate(rows)[: len(texts)].astype(np.float64))
        centre, spread = sides[0].mean(0), sides[0].std(0) + 1e-6
        return self._classify(*((side - centre) / spread for side in sides))

    def baselines(self, program) -> dict[str, dict[str, Score]]:
        """The same regression on a bag of tokens, and the most frequent class."""
        bags = []
        for texts, _ in (self.train, self.test):
            owner = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
            ones = np.ones(len(owner))
            bag = sparse.coo_matrix(
                (ones, (owner, np.concatenate(texts))), (len(texts), self.corpus.tokenizer.size)
            ).tocsr()
            bag.data = np.log1p(bag.data)
            bags.append(bag)
        classes = collections.Counter(self.train[1].tolist())
        return {
            "bag of words": self._classify(*bags),
            "majority": self._scores(np.full(len(self.test[1]), classes.most_common(1)[0][0])),
        }

    def _classify(self, train, test) -> dict[str, Score]:
        from sklearn.linear_model import LogisticRegression

        answers = self.train[1]
        held_out = np.arange(len(answers)) % 4 == 0

        def fit(strength, rows):
            return LogisticRegression(C=strength, max_iter=2000, tol=1e-3).fit(
                train[rows], answers[rows]
            )

        hits = [
            fit(strength, ~held_out).score(train[held_out], answers[held_out])
            for strength in STRENGTHS
        ]
        best = fit(STRENGTHS[int(np.argmax(hits))], np.arange(len(answers)))
        return self._scores(best.predict(test))

    def _scores(self, predicted: np.ndarray) -> dict[str, Score]:
        texts, answers = self.test
        hits = (predicted == answers).astype(np.float64)
        # The mean of the classes' recalls: each class weighs the same, however many paragraphs it has.
        classes, index, sizes = np.unique(answers, return_inverse=True, return_counts=True)
        recalls = np.bincount(index, hits) / sizes
        asked, ones, value = (
            scores.identity(*texts, answers),
            np.ones(len(hits)),
            float(recalls.mean()),
        )
        # What each example adds to the mean when other examples are drawn (its influence): classes then weigh the same by their new sizes,
        # so that a constant answer, right in one class, is so on any test set.
        balanced = value + len(hits) / (sizes[index] * len(classes)) * (hits - recalls[index])
        return {
            "balanced_accuracy": Score(
                value, len(answers), "share", "higher", Examples(balanced, ones, asked)
            ),
            "accuracy": fraction(hits.sum(), len(hits), Examples(hits, ones, asked)),
        }

    def _paragraphs(self, split: str) -> dict[str, list[tuple[int, int]]]:
        """Token spans of the paragraphs that are long enough, by label."""
        store = self.corpus.stores[split]
        starts = np.flatnonzero(store.paragraph_starts)
        offsets = np.asarray(store.sentence_offsets)
        spans = np.stack([offsets[starts], np.append(offsets[starts[1:]], offsets[-1])], 1)
        owners = np.searchsorted(store.document_sentences, starts, side="right") - 1
        labels, found = store.labels, collections.defaultdict(list)
        for owner, (begin, end) in zip(owners.tolist(), spans.tolist(), strict=True):
            if end - begin >= self.config.shortest:
                found[labels[owner]].append((begin, end))
        return found

    def _sample(self, found, store, most: int) -> tuple[list[np.ndarray], np.ndarray]:
        """Up to `most` paragraphs of each class, the same in every run, in an order without pattern; and their classes."""
        rng = np.random.default_rng(0)
        texts, answers = [], []
        for index, label in enumerate(self.labels):
            spans = found.get(label, [])
            for at in rng.permutation(len(spans))[:most]:
                begin, end = spans[at]
                texts.append(
                    np.asarray(store.tokens[begin : min(end, begin + self.length - 2)], np.int64)
                )
                answers.append(index)
        order = rng.permutation(len(texts))
        if not len(order):
            raise NotApplicable(
                f"the probe found no paragraph of {self.config.shortest} tokens under its labels {', '.join(self.labels)}"
            )
        return [texts[at] for at in order], np.asarray(answers)[order]

    def _lay_out(self, texts: list[np.ndarray], size: int, objective) -> dict[str, np.ndarray]:
        """A batch as the model knows its input (lm/tasks/_reading.py): a decoder sees all of a text where it was trained so, else what
        stands before."""
        first, _, last = _reading.edges(objective, self.corpus.tokenizer)
        batch = {
            name: np.zeros((size, self.length), np.int32)
            for name in ("tokens", "segments", "positions")
        }
        for row, text in enumerate(texts):
            ids = [*first, *text, *last]
            batch["tokens"][row, : len(ids)] = ids
            batch["segments"][row, : len(ids)] = 1
            batch["positions"][row, : len(ids)] = np.arange(len(ids))
        return batch | (
            {"prefix": batch["segments"] * np.int32(_reading.sees_all(objective))}
            if objective.mask == "prefix"
            else {}
        )


def _features(model, batch):
    """Mean of the last hidden states over each row's tokens: [B, D]."""
    return heads.mean(model.features(batch).astype(jnp.float32), batch["segments"] > 0)
