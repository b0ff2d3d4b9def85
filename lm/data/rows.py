"""Rows of one sequence, put together piece by piece."""

import numpy as np

NAMES = ("tokens", "segments", "positions", "types")


class Row:
    """An empty row of `length` positions, which is padding until something is laid there.

    Attributes:
      arrays: tokens, segments (numbered from 1; 0 is padding), positions (from 0 in each segment), types: int32 [length].
      used: positions taken. segment: of the last piece.
    """

    def __init__(self, length: int, pad: int):
        self.arrays = {name: np.zeros(length, np.int32) for name in NAMES}
        self.arrays["tokens"][:] = pad
        self.length, self.used, self.segment = length, 0, 0

    def add(self, ids: np.ndarray) -> slice:
        """Lays a piece as a new segment, and says where."""
        span = slice(self.used, self.used + len(ids))
        self.segment += 1
        self.arrays["tokens"][span] = ids
        self.arrays["segments"][span] = self.segment
        self.arrays["positions"][span] = np.arange(len(ids))
        self.used += len(ids)
        return span


def wrap(first: int, text: np.ndarray, last: int) -> np.ndarray:
    """`first` text `last`, int32."""
    ids = np.empty(len(text) + 2, np.int32)
    ids[0], ids[-1] = first, last
    ids[1:-1] = text
    return ids
