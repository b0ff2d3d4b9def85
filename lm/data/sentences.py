"""Spans of complete sentences."""

from collections.abc import Sequence

import numpy as np

from lm.data.store import Store

SentenceSpan = tuple[
    int, int, int
]  # document, first token, token after the last; counted in the document


def spans(store: Store, room: int, across: bool) -> list[SentenceSpan]:
    """Cuts each document into spans of complete sentences.

    Args:
      store: the documents.
      room: maximum number of tokens of a span; a longer sentence is cut.
      across: whether each sentence becomes its own span, for rows that cross documents.
    """
    offsets, borders = np.asarray(store.sentence_offsets), np.asarray(store.document_sentences)
    result: list[SentenceSpan] = []
    for document in range(len(store)):
        ends = (
            offsets[borders[document] : borders[document + 1] + 1] - offsets[borders[document]]
        ).tolist()
        start = 0
        for before, end in zip(ends, ends[1:], strict=False):
            if before > start and (across or end - start > room):
                result.append((document, start, before))
                start = before
            while end - start > room:
                result.append((document, start, start + room))
                start += room
        if ends[-1] > start:
            result.append((document, start, ends[-1]))
    return result


def fill(pieces: Sequence[SentenceSpan], length: int) -> list[list[SentenceSpan]]:
    """Fills rows of `length` positions with spans, in order.

    A row begins with a special token and has another one after each of its documents. Neighboring
    spans of a document are joined.

    Args:
      pieces: spans in the order of the store.
      length: positions of a row.

    Returns:
      The spans of each row.
    """
    rows: list[list[SentenceSpan]] = []
    used = length
    for document, start, stop in pieces:
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
