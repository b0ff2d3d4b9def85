"""Packs documents into rows of fixed length, without losing a token.

A plan assigns pieces of documents to rows. It depends on the store and the lengths alone, so that
objectives with equal packing see the same text in the same rows, and row i can be read without the
other rows. A row may have several streams (input and output of an encoder-decoder). A piece of n
tokens takes `needs[stream][n]` positions of each stream, special tokens included.

    greedy     in the store's order; a document is cut where a row is full: hardly any padding
    best_fit   only documents longer than a row are cut; each piece goes to the row where it leaves
               the least room (Ding et al. 2024, "Fewer truncations improve language modeling"):
               fewer cuts, a little more padding, and rows of unrelated documents
"""

import bisect
import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, Integer

# Special tokens of a piece of plain text: [CLS] and [SEP], or the token before it and [EOS].
SPECIALS = 2
SHORTEST = 8  # documents are not cut into pieces of fewer tokens: the row is padded instead
METHODS = ("greedy", "best_fit")


@dataclasses.dataclass(frozen=True)
class Plan:
    """Pieces of documents in rows.

    Attributes:
      document: index of the document of each piece.
      start, stop: token range [start, stop) of each piece within its document.
      first: row i holds pieces first[i] to first[i + 1] - 1.
      note: description of the pieces left out, or "".
    """

    document: Int64[np.ndarray, "pieces"]
    start: Int64[np.ndarray, "pieces"]
    stop: Int64[np.ndarray, "pieces"]
    first: Int64[np.ndarray, "bounds"]
    note: str = ""

    def __len__(self) -> int:
        return len(self.first) - 1

    def pieces(self, row: int) -> list[tuple[int, int, int]]:
        """(document, start, stop) of each piece of a row."""
        span = slice(self.first[row], self.first[row + 1])
        return list(
            zip(
                self.document[span].tolist(),
                self.start[span].tolist(),
                self.stop[span].tolist(),
                strict=True,
            )
        )

    def without(self, least: int, what: str) -> "Plan":
        """Drops pieces shorter than `least`.

        Args:
          least: minimum number of tokens of a piece.
          what: name of the dropped pieces in the note.

        Returns:
          A plan without the rows that become empty; this plan if no piece is shorter.
        """
        keep = self.stop - self.start >= least
        if keep.all():
            return self
        owner = np.repeat(np.arange(len(self)), np.diff(self.first))[keep]
        counts = np.bincount(owner, minlength=len(self))
        first = np.cumsum(np.append(0, counts[counts > 0]))
        note = f"left out: {int((~keep).sum()):,} {what}"
        return Plan(self.document[keep], self.start[keep], self.stop[keep], first, note)

    def padding(self, length: int) -> float:
        """Fraction of positions without a token, in rows of `length` and pieces with SPECIALS."""
        used = int((self.stop - self.start).sum()) + SPECIALS * len(self.document)
        return 1.0 - used / (len(self) * length)


def check(method: str) -> None:
    """Checks the name of a packing method.

    Raises:
      ValueError: `method` is not one of METHODS, which the message lists.
    """
    if method not in METHODS:
        raise ValueError(f"packing={method!r} is not one of {', '.join(METHODS)}")


def plain(length: int) -> tuple[Int64[np.ndarray, "sizes"], ...]:
    """`needs` of plain text in rows of one stream: n + SPECIALS for n from 0 to `length`."""
    return (np.arange(length + 1) + SPECIALS,)


def pack(
    lengths: Integer[np.ndarray, "D"],
    stream_lengths: int | Sequence[int],
    method: str = "greedy",
    needs: Sequence[Integer[np.ndarray, "sizes"]] | None = None,
) -> Plan:
    """Packs documents into rows.

    Args:
      lengths: number of tokens of each document; empty documents are skipped.
      stream_lengths: number of positions of each stream of a row.
      method: one of METHODS.
      needs: for each stream, a nondecreasing table in which `table[n]` is the number of positions
        of a piece of n tokens; the table of `plain` by default. No piece has more tokens than the
        table covers.

    Raises:
      ValueError: no piece of SHORTEST tokens fits a row, or the method is unknown.
    """
    stream_lengths = (stream_lengths,) if isinstance(stream_lengths, int) else tuple(stream_lengths)
    needs = plain(max(stream_lengths)) if needs is None else needs
    # fits[stream][room] is the number of tokens of the longest piece that fits.
    fits = [
        (np.searchsorted(need, np.arange(room + 1), side="right") - 1).tolist()
        for need, room in zip(needs, stream_lengths, strict=True)
    ]
    longest = min(fit[-1] for fit in fits)
    if longest < SHORTEST:
        raise ValueError(
            f"rows of {' + '.join(map(str, stream_lengths))} positions are too short: not even"
            f" {SHORTEST} tokens fit one"
        )
    sizes = np.asarray(lengths).tolist()
    check(method)
    if method == "greedy":
        return _greedy(sizes, stream_lengths, fits, [need.tolist() for need in needs])
    pieces = [
        (index, begin, min(size, begin + longest))
        for index, size in enumerate(sizes)
        for begin in range(0, size, longest)
    ]
    taken = np.array([stop - begin for _, begin, stop in pieces], np.int64)
    return plan(
        [
            [pieces[at] for at in row]
            for row in best_fit([need[taken] for need in needs], stream_lengths)
        ]
    )


def plan(rows: Sequence[Sequence[tuple[int, int, int]]]) -> Plan:
    """Makes a plan of rows of (document, start, stop)."""
    pieces = np.array([piece for row in rows for piece in row], np.int64).reshape(-1, 3)
    document, start, stop = pieces.T
    return Plan(document, start, stop, np.cumsum([0, *map(len, rows)]))


def best_fit(
    needs: Sequence[Integer[np.ndarray, "pieces"]], stream_lengths: Sequence[int]
) -> list[list[int]]:
    """Assigns pieces to rows by best fit, the longest first.

    Args:
      needs: for each stream, positions that each piece takes, at most the stream's length.
      stream_lengths: positions of each stream of a row.

    Returns:
      Indices of the pieces of each row, ascending.
    """
    tables = [need.tolist() for need in needs]
    rows: list[list[int]] = []
    left: list[list[int]] = [[] for _ in stream_lengths]  # free positions of each stream, by row
    open_rows: dict[int, list[int]] = {}  # rows by free positions of the first stream
    levels: list[int] = []  # keys of `open_rows` that hold a row, ascending
    for piece in np.argsort(-np.asarray(needs[0]), kind="stable").tolist():
        wanted = [table[piece] for table in tables]
        row, at = -1, bisect.bisect_left(levels, wanted[0])
        while row < 0 and at < len(levels):
            level = open_rows[levels[at]]
            row = next(
                (
                    candidate
                    for candidate in reversed(level)
                    if all(left[s][candidate] >= need for s, need in enumerate(wanted))
                ),
                -1,
            )
            at += 1
        if row < 0:
            row = len(rows)
            rows.append([])
            for stream, room in enumerate(stream_lengths):
                left[stream].append(room)
        else:
            before = left[0][row]
            open_rows[before].remove(row)
            if not open_rows[before]:
                levels.pop(bisect.bisect_left(levels, before))
        rows[row].append(piece)
        for stream, need in enumerate(wanted):
            left[stream][row] -= need
        now = left[0][row]
        if not open_rows.setdefault(now, []):
            bisect.insort(levels, now)
        open_rows[now].append(row)
    return [sorted(row) for row in rows]


def in_order(
    needs: Sequence[Integer[np.ndarray, "pieces"]], stream_lengths: Sequence[int]
) -> list[list[int]]:
    """Fills rows with uncut pieces in their order.

    Args:
      needs: for each stream, positions that each piece takes, at most the stream's length.
      stream_lengths: positions of each stream of a row.

    Returns:
      Indices of the pieces of each row, ascending.
    """
    rows: list[list[int]] = []
    left = [-1] * len(stream_lengths)
    for piece, wanted in enumerate(zip(*(need.tolist() for need in needs), strict=True)):
        if any(room < need for room, need in zip(left, wanted, strict=True)):
            rows.append([])
            left = list(stream_lengths)
        rows[-1].append(piece)
        left = [room - need for room, need in zip(left, wanted, strict=True)]
    return rows


def _greedy(
    sizes: list[int], stream_lengths: tuple[int, ...], fits: list[list[int]], needs: list[list[int]]
) -> Plan:
    rows: list[list[tuple[int, int, int]]] = [[]]
    left = list(stream_lengths)
    for index, size in enumerate(sizes):
        begin = 0
        while begin < size:
            take = min(
                size - begin,
                *(fit[room] if room >= 0 else 0 for fit, room in zip(fits, left, strict=True)),
            )
            if take < 1 or (take < SHORTEST and take < size - begin):
                rows.append([])
                left = list(stream_lengths)
                continue
            rows[-1].append((index, begin, begin + take))
            begin += take
            left = [room - need[take] for room, need in zip(left, needs, strict=True)]
    return plan([row for row in rows if row])
