"""Unigram and bigram models over token ids: what a loss is worth is read against them."""

import numpy as np
import scipy.sparse

DISCOUNT = 0.75


class Unigram:
    """Relative frequencies with one added to each count.

    Args:
      tokens: training targets. size: V.
    """

    def __init__(self, tokens: np.ndarray, size: int):
        counts = np.bincount(tokens, minlength=size) + 1.0
        self.probability = counts / counts.sum()

    def nll(self, targets: np.ndarray) -> np.ndarray:
        """-log p of each target, in nats."""
        return -np.log(self.probability[targets])

    def best(self) -> int:
        """The most frequent id."""
        return int(self.probability.argmax())


class Bigram:
    """Interpolated Kneser-Ney bigrams (Kneser and Ney 1995; Chen and Goodman 1999, eq. 24 with one discount).

    p(w | v) = max(c(v, w) - d, 0) / c(v) + d · N(v, ·) / c(v) · p(w), where p(w) is the share of bigram types that end in w, one added
    to each. After an unseen v only p(w) is left.

    Args:
      before, after: training pairs of neighbours. size: V.
    """

    def __init__(self, before: np.ndarray, after: np.ndarray, size: int):
        counts = scipy.sparse.coo_matrix(
            (np.ones(len(before)), (before, after)), (size, size)
        ).tocsr()
        counts.sum_duplicates()
        total = np.asarray(counts.sum(1)).ravel()
        types = np.diff(counts.indptr)
        endings = np.bincount(counts.indices, minlength=size) + 1.0
        self.lower = endings / endings.sum()
        self.backoff = np.where(total > 0, DISCOUNT * types / np.maximum(total, 1), 1.0)
        counts.data = (counts.data - DISCOUNT) / np.repeat(np.maximum(total, 1), types)
        self.upper = counts
        self._columns: scipy.sparse.csc_matrix | None = None

    def nll(self, before: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """-log p(target | before) of each pair, in nats."""
        upper = np.asarray(self.upper[before, targets]).ravel()
        return -np.log(upper + self.backoff[before] * self.lower[targets])

    def after(self, before: int) -> np.ndarray:
        """p(w | before) of every w: [V]."""
        probability = self.backoff[before] * self.lower
        row = slice(self.upper.indptr[before], self.upper.indptr[before + 1])
        probability[self.upper.indices[row]] += self.upper.data[row]
        return probability

    def between(self, left: int, right: int) -> np.ndarray:
        """log p(w | left, right) of every w between two neighbours, taken as ∝ p(w | left) · p(right | w): [V] in nats."""
        if self._columns is None:
            self._columns = self.upper.tocsc()
        forward, onward = self.after(left), self.backoff * self.lower[right]
        column = slice(self._columns.indptr[right], self._columns.indptr[right + 1])
        onward[self._columns.indices[column]] += self._columns.data[column]
        joint = forward * onward
        return np.log(joint / joint.sum())
