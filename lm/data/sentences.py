"""Runs of whole sentences."""

import numpy as np

Run = tuple[int, int, int]  # document, first token, token after the last; counted in the document


def runs(store, room: int, across: bool) -> list[Run]:
    """Cuts every document into runs of whole sentences of at most `room` tokens; a sentence longer than that is cut itself.

    Args:
      across: leave each sentence by itself, for rows that go on with the next document.
    """
    offsets, borders = np.asarray(store.sentence_offsets), np.asarray(store.document_sentences)
    found: list[Run] = []
    for document in range(len(store)):
        ends = (
            offsets[borders[document] : borders[document + 1] + 1] - offsets[borders[document]]
        ).tolist()
        start = 0
        for before, end in zip(ends, ends[1:], strict=False):
            if before > start and (across or end - start > room):
                found.append((document, start, before))
                start = before
            while end - start > room:
                found.append((document, start, start + room))
                start += room
        if ends[-1] > start:
            found.append((document, start, ends[-1]))
    return found


def filled(found: list[Run], length: int) -> list[list[Run]]:
    """Rows of `length` positions that take runs in order; a row begins with one special token, and one follows each document in it."""
    rows: list[list[Run]] = []
    used = length
    for document, start, stop in found:
        last = rows[-1][-1] if rows else (-1, 0, 0)
        same = last[0] == document and last[2] == start
        cost = stop - start + (not same)
        if used + cost <= length:
            if same:
                rows[-1][-1] = (document, last[1], stop)
            else:
                rows[-1].append((document, start, stop))
            used += cost
        else:
            rows.append([(document, start, stop)])
            used = 2 + stop - start
    return rows
