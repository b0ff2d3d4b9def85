"""Classification of a pair of texts, by fine-tuning and by a linear probe.

The pairs are published examples; or, without a path, pieces of the corpus. In the latter case
the label is whether two pieces come from one document. All pieces have the same number of tokens,
and each second piece of a pair of two documents is the second piece of another pair. So neither the
length nor one of the two pieces alone reveals the label.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer
from scipy import sparse

from lm.core.plugins import NotApplicable
from lm.core.protocols import Batch, Model
from lm.data.corpus import Corpus
from lm.data.store import Store
from lm.nn.layers import DropoutKeys
from lm.stats.scores import Score
from lm.tasks import _bags, _labelled
from lm.tasks._labelled import Item, LabelledTask, Parts
from lm.tasks._labelled_rows import SPECIALS
from lm.training.program import Program

SAME, OTHER = "same", "other"


@dataclasses.dataclass(frozen=True)
class Config(_labelled.Options):
    """Options of lm/tasks/_labelled.py, and an option for pairs of the corpus.

    Attributes:
      piece: number of tokens of each text of a pair; smaller if `longest` and the data's length
        leave less room.
    """

    piece: int = 28

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.piece < 2:
            raise ValueError(f"piece={self.piece} must be at least 2 tokens")


class Task(LabelledTask):
    """Accuracy and macro F1 of a classifier of pairs of texts."""

    kind = "pair"
    metrics = ("accuracy", "macro_f1", "accuracy_own", "probe_accuracy")
    selection_metric = "accuracy"
    tuned_only = ("macro_f1",)

    def __init__(self, config: Config, corpus: Corpus, split: str, length: int):
        self._piece = config.piece
        super().__init__(config, corpus, split, length)

    def corpus_parts(self) -> Parts:
        config, stores = self.config, self.corpus.stores
        piece = min(self._piece, (self.longest - SPECIALS["pair"]) // 2)
        train, test = stores["train"], stores[self.split]
        held_out = np.arange(len(train)) % 5 == 0
        parts = {
            "train": _pairs(train, np.flatnonzero(~held_out), piece, config.train_most),
            "dev": _pairs(train, np.flatnonzero(held_out), piece, config.dev_most),
            "test": _pairs(test, np.arange(len(test)), piece, config.test_most),
        }
        for part, pairs in parts.items():
            if len(pairs) < 4:
                raise NotApplicable(
                    f"pair_classification needs documents with two pieces of {piece} tokens each,"
                    f" which give only {len(pairs)} pairs for {part}; give more text, a smaller"
                    " piece, or a path to labelled pairs"
                )
        return parts

    def features(
        self, model: Model, batch: Batch, dropout_keys: DropoutKeys | None
    ) -> Float[Array, "B 1 F"]:
        """u, v, |u - v| and u·v of the means u and v of the two texts' last hidden states.

        As in InferSent (Conneau et al. 2017).
        """
        means_B2D = _labelled.unit_means(model, batch, dropout_keys, 2)
        u, v = means_B2D[:, :1], means_B2D[:, 1:]
        return jnp.concatenate([u, v, jnp.abs(u - v), u * v], -1)

    def measure(self, part: str, predicted: Integer[np.ndarray, "M"]) -> dict[str, Score]:
        """Returns accuracy and macro_f1, fractions; see `_labelled.class_scores`."""
        return _labelled.class_scores(self.targets[part], predicted, self.identity)

    def baselines(self, program: Program) -> dict[str, dict[str, Score]]:
        """Logistic regression on bags of tokens, and on their overlap; the most frequent class."""
        bags = [
            sparse.hstack(both).tocsr() for both in zip(self.bags(0), self.bags(1), strict=True)
        ]
        return {
            "bag of words": self.baseline(self.regress(bags)),
            "overlap": self.baseline(self.regress(self._overlaps())),
            "majority": self.baseline(self.majority()),
        }

    def _overlaps(self) -> list[Float[np.ndarray, "N 6"]]:
        """Features of the overlap of each pair, of train, dev and test.

        The features are the number of tokens in both texts as a fraction of the tokens of the
        first text, of the second text and of both together; the cosine weighted by inverse document
        frequency; the log of the ratio of sizes, and its absolute value. Each is standardized on
        the training pairs.
        """
        (first, _, _), (second, _, _) = bags = self.bags(0), self.bags(1)
        seen = np.asarray((first > 0).sum(0) + (second > 0).sum(0)).ravel()
        weight = sparse.diags(np.log((2 * first.shape[0] + 1) / (seen + 1)))
        features = []
        for a, b in zip(*bags, strict=True):
            both = np.asarray((a > 0).multiply(b > 0).sum(1)).ravel()
            size_a, size_b = (np.asarray((side > 0).sum(1)).ravel() for side in (a, b))
            vector_a, vector_b = (side @ weight for side in (a, b))
            cosine = np.asarray(vector_a.multiply(vector_b).sum(1)).ravel() / np.maximum(
                _bags.norms(vector_a) * _bags.norms(vector_b), 1e-9
            )
            longer = np.log((1 + size_a) / (1 + size_b))
            columns = (
                both / size_a,
                both / size_b,
                both / (size_a + size_b - both),
                cosine,
                longer,
                np.abs(longer),
            )
            features.append(np.stack(columns, 1))
        center, spread = features[0].mean(0), features[0].std(0) + 1e-6
        return [(part - center) / spread for part in features]


def _pairs(store: Store, documents: Integer[np.ndarray, "D"], piece: int, most: int) -> list[Item]:
    """Makes pairs, half of them of one document; the same in every run.

    Args:
      store: the documents.
      documents: numbers of the documents to use.
      piece: number of tokens of each text.
      most: maximum number of pairs; 0 means all.
    """
    rng = np.random.default_rng(0)
    # Each document gives at most one pair to a round. Few rounds take pairs from many documents
    # rather than many pairs from a few.
    rounds: list[list[tuple[np.ndarray, np.ndarray]]] = []
    most_rounds = -(-2 * most // max(1, len(documents)))
    count = 0
    for document in rng.permutation(documents):
        pieces = _labelled.sample(_pieces(store, int(document), piece), 0, rng)
        firsts, seconds = pieces[: 2 * most_rounds or None : 2], pieces[1::2]
        for number, pair in enumerate(zip(firsts, seconds, strict=False)):
            if number == len(rounds):
                rounds.append([])
            rounds[number].append(pair)
            count += 1
        if most and count >= most:
            break
    items: list[Item] = []
    for pairs in rounds:
        # Of every four pairs, two stay; the other two exchange their second pieces.
        for a, b, c, d in zip(*(pairs[start::4] for start in range(4)), strict=False):
            four = [(*a, SAME), (*b, SAME), (c[0], d[1], OTHER), (d[0], c[1], OTHER)]
            items += [
                Item([first, second], [label], (first, second)) for first, second, label in four
            ]
    return items[:most] if most else items


def _pieces(store: Store, document: int, piece: int) -> list[np.ndarray]:
    """Spans of `piece` tokens of a document, each from the start of a sentence, without overlap."""
    first, last = store.document_sentences[document], store.document_sentences[document + 1]
    end = int(store.sentence_offsets[last])
    pieces, at = [], 0
    for start in np.asarray(store.sentence_offsets[first:last]).tolist():
        if start >= at and start + piece <= end:
            pieces.append(np.asarray(store.tokens[start : start + piece], np.int64))
            at = start + piece
    return pieces
