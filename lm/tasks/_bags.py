"""Texts as bags of words: sparse counts of their tokens, for baselines."""

from collections.abc import Sequence

import numpy as np
from scipy import sparse


def counts(texts: Sequence[np.ndarray], size: int) -> sparse.csr_matrix:
    """The count of each token in each text.

    Args:
      texts: the ids of N texts.
      size: V, the size of the vocabulary.

    Returns:
      Counts, float64 [N, V].
    """
    rows = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    return sparse.coo_matrix(
        (np.ones(len(rows)), (rows, np.concatenate(texts))), (len(texts), size)
    ).tocsr()


def log_counts(texts: Sequence[np.ndarray], size: int) -> sparse.csr_matrix:
    """log(1 + count) of each token in each text, [N, V].

    Args:
      texts: ids of each text.
      size: size of the vocabulary, V.
    """
    bags = counts(texts, size)
    bags.data = np.log1p(bags.data)
    return bags


def norms(rows: sparse.csr_matrix) -> np.ndarray:
    """The Euclidean norm of each row, [N]."""
    return np.sqrt(np.asarray(rows.multiply(rows).sum(1)).ravel())
