"""Classification of a pair of texts by fine-tuning and by a linear probe; of published pairs, or of pairs made from the corpus.

Without a path the question is whether two pieces of text come from one document. All pieces have the same number of tokens, and each second
piece of a wrong pair is the second one of another pair: so neither the length nor one of the two pieces alone tells the answer.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from scipy import sparse

from lm.core.plugins import NotApplicable
from lm.stats.scores import Score
from lm.tasks import _labelled
from lm.tasks._labelled import Item, LabelledTask, Parts

SAME, OTHER = "same", "other"


@dataclasses.dataclass(frozen=True)
class Config(_labelled.Options):
    """Files, fine-tuning and amounts (lm/tasks/_labelled.py); piece: tokens of each text of a pair that is made from the corpus, where
    `longest` and the data's length leave room for it."""

    piece: int = 28

    def __post_init__(self):
        super().__post_init__()
        if self.piece < 2:
            raise ValueError(f"piece={self.piece} must be at least 2 tokens")


class Task(LabelledTask):
    """`suits(objective)` says which models it measures; see lm/core/protocols.py."""

    kind = "pair"
    metrics = ("accuracy", "macro_f1", "accuracy_own", "probe_accuracy")
    judged = "accuracy"
    extra = ("macro_f1",)
    config: Config

    def of_corpus(self) -> Parts:
        config, stores = self.config, self.corpus.stores
        piece = min(config.piece, (self.longest - _labelled.SPECIALS["pair"]) // 2)
        count = len(stores["train"])
        held_out = np.arange(count) % 5 == 0
        sides = {
            "train": (stores["train"], np.flatnonzero(~held_out), config.train_most),
            "dev": (stores["train"], np.flatnonzero(held_out), config.dev_most),
            "test": (stores[self.split], np.arange(len(stores[self.split])), config.test_most),
        }
        parts = {
            part: _pairs(store, documents, piece, most)
            for part, (store, documents, most) in sides.items()
        }
        for part, pairs in parts.items():
            if len(pairs) < 4:
                raise NotApplicable(
                    f"pair_classification needs documents with two pieces of {piece} tokens each, and found {len(pairs)} pairs for {part};"
                    " give more text, a smaller piece, or a path to labelled pairs"
                )
        return parts

    def features(self, model, batch, dropout_keys):
        """The means u and v of the two texts' last hidden states, |u - v| and u·v (Conneau et al. 2017, InferSent): [B, 1, 4 D]."""
        means_B2D = _labelled.unit_means(model, batch, dropout_keys, 2)
        u, v = means_B2D[:, :1], means_B2D[:, 1:]
        return jnp.concatenate([u, v, jnp.abs(u - v), u * v], -1)

    def measure(self, part: str, predicted: np.ndarray) -> dict[str, Score]:
        """accuracy, macro_f1."""
        return _labelled.class_scores(self.answers[part], predicted, self.asked)

    def baselines(self, program) -> dict[str, dict[str, Score]]:
        """Logistic regression on the bags of tokens of both texts, on how much they overlap, and the most frequent class."""
        bags = [
            sparse.hstack(both).tocsr() for both in zip(self.bags(0), self.bags(1), strict=True)
        ]
        return {
            "bag of words": self.baseline(self.regress(bags)),
            "overlap": self.baseline(self.regress(self._overlaps())),
            "majority": self.baseline(self.majority()),
        }

    def _overlaps(self) -> list[np.ndarray]:
        """Of each pair: tokens in both as shares of the first, of the second and of all; cosine by inverse document frequency; which is the
        longer and by how much; in units of the training pairs' deviation."""
        (first, _, _), (second, _, _) = bags = self.bags(0), self.bags(1)
        seen = np.asarray((first > 0).sum(0) + (second > 0).sum(0)).ravel()
        weight = sparse.diags(np.log((2 * first.shape[0] + 1) / (seen + 1)))
        sides = []
        for a, b in zip(*bags, strict=True):
            both = np.asarray((a > 0).multiply(b > 0).sum(1)).ravel()
            sizes = [np.asarray((side > 0).sum(1)).ravel() for side in (a, b)]
            vectors = [side @ weight for side in (a, b)]
            norms = [np.sqrt(np.asarray(side.multiply(side).sum(1)).ravel()) for side in vectors]
            cosine = np.asarray(vectors[0].multiply(vectors[1]).sum(1)).ravel() / np.maximum(
                norms[0] * norms[1], 1e-9
            )
            longer = np.log((1 + sizes[0]) / (1 + sizes[1]))
            sides.append(
                np.stack(
                    [
                        both / sizes[0],
                        both / sizes[1],
                        both / (sizes[0] + sizes[1] - both),
                        cosine,
                        longer,
                        np.abs(longer),
                    ],
                    1,
                )
            )
        centre, spread = sides[0].mean(0), sides[0].std(0) + 1e-6
        return [(side - centre) / spread for side in sides]


def _pairs(store, documents: np.ndarray, piece: int, most: int) -> list[Item]:
    """About `most` pairs (0: all), half of them of one document; the same in every run."""
    rng = np.random.default_rng(0)
    rounds: list[
        list[tuple[np.ndarray, np.ndarray]]
    ] = []  # each document gives at most one pair to a round
    count, each = (
        0,
        -(-2 * most // max(1, len(documents))),
    )  # from many documents rather than many pieces of a few
    for document in rng.permutation(documents):
        pieces = _labelled.taken(_pieces(store, int(document), piece), 0, rng)
        for number, pair in enumerate(
            zip(pieces[: 2 * each or None : 2], pieces[1::2], strict=False)
        ):
            if number == len(rounds):
                rounds.append([])
            rounds[number].append(pair)
            count += 1
        if most and count >= most:
            break
    found: list[Item] = []
    for pairs in rounds:
        # Of every four, two stay; the other two exchange their second pieces.
        for a, b, c, d in zip(*(pairs[start::4] for start in range(4)), strict=False):
            four = [(*a, SAME), (*b, SAME), (c[0], d[1], OTHER), (d[0], c[1], OTHER)]
            found += [
                Item([first, second], [label], (first, second)) for first, second, label in four
            ]
    return found[:most] if most else found


def _pieces(store, document: int, piece: int) -> list[np.ndarray]:
    """Runs of so many tokens of a document, each from the beginning of a sentence on, none over another."""
    first, last = store.document_sentences[document], store.document_sentences[document + 1]
    end = int(store.sentence_offsets[last])
    found, at = [], 0
    for start in np.asarray(store.sentence_offsets[first:last]).tolist():
        if start >= at and start + piece <= end:
            found.append(np.asarray(store.tokens[start : start + piece], np.int64))
            at = start + piece
    return found
