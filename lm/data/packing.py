"""Documents into rows of fixed length, without losing a token.

A plan says which piece of which document lies in which row. It depends on the store and the lengths alone: so objectives that pack alike
see the same text in the same rows, and row i is found without reading others. A row may have several streams (an encoder-decoder's input
and output); a piece of n tokens takes `needs[stream][n]` positions of each, special tokens included.

    greedy     in the store's order; a document is cut where a row is full: next to no padding
    best_fit   only documents longer than a row are cut; each piece goes where the least room is left over (Ding et al. 2024, "Fewer
               truncations improve language modeling"): fewer cuts, a little more padding, and rows of unrelated documents
"""

import bisect
import dataclasses
from collections.abc import Sequence

import numpy as np

SPECIALS = 2  # room that a piece of plain text leaves for special tokens: [CLS] and [SEP], or the token before it and [EOS]
SHORTEST = 8  # a document is not cut for fewer tokens than this: the row is padded instead
METHODS = ("greedy", "best_fit")


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which piece of which document lies in which row.

    Attributes:
      document, start, stop: for each piece, tokens [start, stop) of the document.
      first: [rows + 1] row i holds pieces first[i] to first[i + 1].
      note: what was left out, for people; "" if nothing.
    """

    document: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    first: np.ndarray
    note: str = ""

    def __len__(self) -> int:
        return len(self.first) - 1

    def pieces(self, row: int) -> list[tuple[int, int, int]]:
        """(document, start, stop) of the row's pieces."""
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
        """The plan without pieces of fewer than `least` tokens, and what they are in its note."""
        keep = self.stop - self.start >= least
        if keep.all():
            return self
        owner = np.repeat(np.arange(len(self)), np.diff(self.first))[keep]
        counts = np.bincount(owner, minlength=len(self))
        first = np.cumsum(np.append(0, counts[counts > 0]))
        note = f"left out: {int((~keep).sum()):,} {what}"
        return Plan(self.document[keep], self.start[keep], self.stop[keep], first, note)

    def padding(self, length: int) -> float:
        """Share of the positions of rows of `length` that hold no token, where a piece has SPECIALS special tokens."""
        used = int((self.stop - self.start).sum()) + SPECIALS * len(self.document)
        return 1.0 - used / (len(self) * length)


def check(method: str) -> None:
    """Refuses a method that is not there.

    Raises:
      ValueError: says which there are.
    """
    if method not in METHODS:
        raise ValueError(f"packing={method!r} is not one of {', '.join(METHODS)}")


def plain(length: int) -> tuple[np.ndarray, ...]:
    """The needs of plain text in rows of one stream: [0 … length] → n + SPECIALS."""
    return (np.arange(length + 1) + SPECIALS,)


def pack(
    lengths: np.ndarray,
    rooms: int | Sequence[int],
    method: str = "greedy",
    needs: Sequence[np.ndarray] | None = None,
) -> Plan:
    """Packs documents of the given lengths into rows.

    Args:
      lengths: [D] tokens of each document; empty ones are passed over.
      rooms: positions a row, of each stream.
      method: one of METHODS.
      needs: for each stream, positions that a piece of n tokens takes, never fewer for a longer piece; `plain` by default. A piece never
        has more tokens than this table.

    Raises:
      ValueError: no piece of SHORTEST tokens fits a row, or there is no such method.
    """
    rooms = (rooms,) if isinstance(rooms, int) else tuple(rooms)
    needs = plain(max(rooms)) if needs is None else needs
    # fits[stream][room]: the longest piece that fits.
    fits = [
        (np.searchsorted(need, np.arange(room + 1), side="right") - 1).tolist()
        for need, room in zip(needs, rooms, strict=True)
    ]
    whole = min(fit[-1] for fit in fits)
    if whole < SHORTEST:
        raise ValueError(
            f"rows of {' + '.join(map(str, rooms))} positions are too short: not even {SHORTEST} tokens fit one"
        )
    sizes = np.asarray(lengths).tolist()
    check(method)
    if method == "greedy":
        return _greedy(sizes, rooms, fits, [need.tolist() for need in needs])
    pieces = [
        (index, begin, min(size, begin + whole))
        for index, size in enumerate(sizes)
        for begin in range(0, size, whole)
    ]
    taken = np.array([stop - begin for _, begin, stop in pieces], np.int64)
    return plan(
        [[pieces[at] for at in row] for row in best_fit([need[taken] for need in needs], rooms)]
    )


def plan(rows: Sequence[Sequence[tuple[int, int, int]]]) -> Plan:
    """The plan with these rows of (document, start, stop)."""
    pieces = np.array([piece for row in rows for piece in row], np.int64).reshape(-1, 3)
    document, start, stop = pieces.T
    return Plan(document, start, stop, np.cumsum([0, *map(len, rows)]))


def best_fit(needs: Sequence[np.ndarray], rooms: Sequence[int]) -> list[list[int]]:
    """Best fit decreasing: rows of indices of pieces, each row in ascending order.

    Args:
      needs: for each stream, positions that each piece takes; at most the room. rooms: positions a row, of each stream.
    """
    tables = [need.tolist() for need in needs]
    rows: list[list[int]] = []
    left: list[list[int]] = [[] for _ in rooms]  # of each stream, by row
    open_rows: dict[int, list[int]] = {}  # rows by what is left of the first stream
    levels: list[int] = []  # its keys that hold a row, ascending
    for piece in np.argsort(-np.asarray(needs[0]), kind="stable").tolist():
        wanted = [table[piece] for table in tables]
        row, at = -1, bisect.bisect_left(levels, wanted[0])
        while row < 0 and at < len(levels):
            level = open_rows[levels[at]]
            row = next(
                (
                    each
                    for each in reversed(level)
                    if all(left[s][each] >= need for s, need in enumerate(wanted))
                ),
                -1,
            )
            at += 1
        if row < 0:
            row = len(rows)
            rows.append([])
            for stream, room in enumerate(rooms):
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


def in_order(needs: Sequence[np.ndarray], rooms: Sequence[int]) -> list[list[int]]:
    """Whole pieces in their order, a new row where the next does not fit; arguments as for `best_fit`."""
    rows: list[list[int]] = []
    left = [-1] * len(rooms)
    for piece, wanted in enumerate(zip(*(need.tolist() for need in needs), strict=True)):
        if any(room < need for room, need in zip(left, wanted, strict=True)):
            rows.append([])
            left = list(rooms)
        rows[-1].append(piece)
        left = [room - need for room, need in zip(left, wanted, strict=True)]
    return rows


def _greedy(
    sizes: list[int], rooms: tuple[int, ...], fits: list[list[int]], needs: list[list[int]]
) -> Plan:
    rows: list[list[tuple[int, int, int]]] = [[]]
    left = list(rooms)
    for index, size in enumerate(sizes):
        begin = 0
        while begin < size:
            take = min(
                size - begin,
                *(fit[room] if room >= 0 else 0 for fit, room in zip(fits, left, strict=True)),
            )
            if take < 1 or (take < SHORTEST and take < size - begin):
                rows.append([])
                left = list(rooms)
                continue
            rows[-1].append((index, begin, begin + take))
            begin += take
            left = [room - need[take] for room, need in zip(left, needs, strict=True)]
    return plan([row for row in rows if row])
