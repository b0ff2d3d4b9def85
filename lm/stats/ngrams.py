"""Unigram and bigram models over token ids: baselines for a language model's loss."""

import numpy as np
import scipy.sparse
from jaxtyping import Float, Integer

DISCOUNT = 0.75


class Unigram:
    """Relative frequencies with one added to each count.

    Args:
      tokens: ids of the training targets, [N].
      size: size of the vocabulary, V.
    """

    def __init__(self, tokens: Integer[np.ndarray, "N"], size: int) -> None:
        counts = np.bincount(tokens, minlength=size) + 1.0
        self.probability = counts / counts.sum()

    def nll(self, targets: Integer[np.ndarray, "*S"]) -> Float[np.ndarray, "*S"]:
        """Returns -log p of each target, in nats."""
        return -np.log(self.probability[targets])

    def best(self) -> int:
        """Returns the most frequent id."""
        return int(self.probability.argmax())


class Bigram:
    """Interpolated Kneser-Ney bigrams.

    Kneser and Ney 1995; Chen and Goodman 1999, equation 24 with one discount:

    p(w | v) = max(c(v, w) - d, 0) / c(v) + d · N(v, ·) / c(v) · p(w), where p(w) is the fraction of
    bigram types that end in w, with one added to each count. After an unseen v, only p(w) is left.

    Args:
      before: id of the first token of each training pair, [N].
      after: id of the second token of each training pair, [N].
      size: size of the vocabulary, V.
    """

    def __init__(
        self, before: Integer[np.ndarray, "N"], after: Integer[np.ndarray, "N"], size: int
    ) -> None:
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

    def nll(
        self, before: Integer[np.ndarray, "N"], targets: Integer[np.ndarray, "N"]
    ) -> Float[np.ndarray, "N"]:
        """Returns -log p(target | before) of each pair, in nats.

        Args:
          before: id of the token before each target, [N].
          targets: ids of the predicted tokens, [N].
        """
        upper = np.asarray(self.upper[before, targets]).ravel()
        return -np.log(upper + self.backoff[before] * self.lower[targets])

    def after(self, before: int) -> Float[np.ndarray, "V"]:
        """Returns p(w | before) of every w."""
        probability = self.backoff[before] * self.lower
        row = slice(self.upper.indptr[before], self.upper.indptr[before + 1])
        probability[self.upper.indices[row]] += self.upper.data[row]
        return probability

    def between(self, left: int, right: int) -> Float[np.ndarray, "V"]:
        """Returns log p(w | left, right) of every w between two neighbours, in nats.

        p(w | left, right) is proportional to p(w | left) · p(right | w).

        Args:
          left: id of the token before the predicted token.
          right: id of the token after the predicted token.

        Returns:
          Log-probabilities in nats, [V].
        """
        if self._columns is None:
            self._columns = self.upper.tocsc()
        forward, onward = self.after(left), self.backoff * self.lower[right]
        column = slice(self._columns.indptr[right], self._columns.indptr[right + 1])
        onward[self._columns.indices[column]] += self._columns.data[column]
        joint = forward * onward
        return np.log(joint / joint.sum())
