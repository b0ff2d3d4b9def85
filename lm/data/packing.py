"""Documents into rows of fixed length, without losing a token and almost without padding.

Documents are laid into rows in the store's order and cut where a row is full; each piece leaves room for two special
tokens of the objective's choice ([CLS] and [SEP], or the token before it and [EOS]). The plan depends on the store and
the length alone: so objectives that pack see the same text in the same rows, and row i is found without reading others.
"""

import dataclasses

import numpy as np

SPECIALS = 2  # room that each piece leaves for special tokens
SHORTEST = 8  # a document is not cut for fewer tokens than this: the row is padded instead


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which piece of which document lies in which row.

    Attributes:
      document, start, stop: for each piece, tokens [start, stop) of the document.
      first: [rows + 1] row i holds pieces first[i] to first[i + 1].
    """

    document: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    first: np.ndarray

    def __len__(self) -> int:
        return len(self.first) - 1

    def pieces(self, row: int) -> list[tuple[int, int, int]]:
        """(document, start, stop) of the row's pieces."""
        span = slice(self.first[row], self.first[row + 1])
        return list(zip(self.document[span].tolist(), self.start[span].tolist(), self.stop[span].tolist(), strict=True))

    def padding(self, length: int) -> float:
        """Share of positions that hold no token."""
        used = int((self.stop - self.start).sum()) + SPECIALS * len(self.document)
        return 1.0 - used / (len(self) * length)


def pack(lengths: np.ndarray, length: int) -> Plan:
    """Packs documents of the given lengths into rows of `length` positions (next fit, with cutting).

    Args:
      lengths: [D] tokens of each document; empty ones are passed over.
      length: positions a row; at least SPECIALS + SHORTEST.
    """
    if length < SPECIALS + SHORTEST:
        raise ValueError(f"rows of {length} positions are too short to pack; at least {SPECIALS + SHORTEST}")
    document: list[int] = []
    start: list[int] = []
    stop: list[int] = []
    first = [0]
    used = 0
    for index, size in enumerate(np.asarray(lengths).tolist()):
        begin = 0
        while begin < size:
            room = length - used - SPECIALS
            take = min(size - begin, room)
            if take < 1 or (take < SHORTEST and take < size - begin):
                first.append(len(document))
                used = 0
                continue
            document.append(index)
            start.append(begin)
            stop.append(begin + take)
            begin += take
            used += take + SPECIALS
    if len(document) > first[-1]:
        first.append(len(document))
    return Plan(*(np.asarray(part, np.int64) for part in (document, start, stop, first)))
