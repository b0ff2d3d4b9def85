"""Pairs of segments `[CLS] A [SEP] B [SEP]`, in one of two relations.

    next     B follows A, or comes from another document (NSP: BERT, Devlin et al. 2019)
    order    A and B are consecutive, in their order or swapped (SOP: ALBERT, Lan et al. 2020)

As in the original data code, a chunk of consecutive sentences fills a row; A ends at a uniformly
drawn sentence of the chunk; one example in ten is shorter; truncation removes tokens from either
end of the longer segment.

Unlike in the original, the label is drawn first. The original code turns every chunk of one
sentence into a random pair, so that more than half of its pairs are random, and the length of A
reveals the label. (ALBERT's code has the same branch, and so mixes NSP into its SOP.) Here chunks
of one sentence are dropped and counted.
"""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Int64, Integer

from lm.core.plugins import UserError
from lm.data import rows
from lm.data.store import Store

SHORT_FRACTION = 0.1  # of examples with a smaller target length
SPECIALS = 3
IS_NEXT, NOT_NEXT = 0, 1  # labels as in BERT
IN_ORDER, SWAPPED = 0, 1  # labels as in ALBERT
RELATIONS = ("next", "order")


@dataclasses.dataclass(frozen=True)
class Chunks:
    """Spans of at least two consecutive sentences, each about as long as a row.

    Attributes:
      document: index of the document of each chunk.
      start, stop: range [start, stop) of each chunk's sentences, numbered through the store.
      dropped: number of chunks of one sentence, which cannot hold a pair.
    """

    document: Int64[np.ndarray, "C"]
    start: Int64[np.ndarray, "C"]
    stop: Int64[np.ndarray, "C"]
    dropped: int

    def __len__(self) -> int:
        return len(self.document)

    @property
    def note(self) -> str:
        """A description of the chunks left out, or ""."""
        return f"left out: {self.dropped:,} chunks of one sentence" if self.dropped else ""


def chunk(store: Store, length: int, relation: str = "next") -> Chunks:
    """Cuts documents into chunks for rows of `length` positions.

    For "next" a chunk ends with the sentence that fills the row, as in BERT's code. For "order" it
    ends before a sentence that exceeds the row. Such a sentence is longer than most: if it always
    came last, the lengths of the segments would reveal their order.

    Args:
      store: the documents.
      length: positions of a row.
      relation: one of RELATIONS.

    Raises:
      UserError: no document has a chunk of two sentences; for "next", fewer than two documents do.
    """
    room = length - SPECIALS
    borders, offsets = np.asarray(store.document_sentences), np.asarray(store.sentence_offsets)
    document, start, stop, dropped = [], [], [], 0
    for index in range(len(store)):
        begin, end = int(borders[index]), int(borders[index + 1])
        ends = offsets[begin : end + 1].tolist()
        first = begin
        for sentence in range(begin, end):
            size = ends[sentence + 1 - begin] - ends[first - begin]
            if relation == "order" and size > room and sentence - first >= 2:
                document.append(index)
                start.append(first)
                stop.append(sentence)
                first, size = sentence, ends[sentence + 1 - begin] - ends[sentence - begin]
            full = size >= room and (relation == "next" or sentence > first)
            if full or sentence + 1 == end:
                if sentence + 1 - first >= 2:
                    document.append(index)
                    start.append(first)
                    stop.append(sentence + 1)
                else:
                    dropped += 1
                first = sentence + 1
    check(len(set(document)), len(store), relation)
    return Chunks(
        np.asarray(document, np.int64),
        np.asarray(start, np.int64),
        np.asarray(stop, np.int64),
        dropped,
    )


def check(usable: int, documents: int, relation: str) -> None:
    """Checks that enough documents hold a pair.

    Args:
      usable: number of documents with at least two sentences.
      documents: number of all documents.
      relation: one of RELATIONS.

    Raises:
      UserError: `usable` is below 2 for "next", or below 1 for "order".
    """
    needed = {"next": 2, "order": 1}[relation]
    if usable < needed:
        kind = {
            "next": "next-sentence pairs need two documents",
            "order": "sentence-order pairs need a document",
        }[relation]
        raise UserError(
            f"{kind} with at least two sentences{' each' * (needed > 1)}, but the corpus has"
            f" {usable} ({documents} documents); give more text, or another objective"
        )


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two segments of ids, and a label: 0 if the segments are as in the text."""

    a: Integer[np.ndarray, "A"]
    b: Integer[np.ndarray, "B"]
    label: int


def draw(
    store: Store,
    chunks: Chunks,
    index: int,
    length: int,
    rng: np.random.Generator,
    relation: str = "next",
) -> Pair:
    """Makes a pair from chunk `index`; half of all pairs have label 0.

    Args:
      store: the documents.
      chunks: the return value of `chunk`.
      index: number of the chunk.
      length: positions of a row.
      rng: the only source of randomness.
      relation: one of RELATIONS.
    """
    room = length - SPECIALS
    label = int(rng.random() < 0.5)
    target = int(rng.integers(2, room + 1)) if rng.random() < SHORT_FRACTION else room
    offsets = store.sentence_offsets
    first, last = int(chunks.start[index]), int(chunks.stop[index])
    ends = np.asarray(offsets[first : last + 1])
    side: Literal["left", "right"] = "left" if relation == "next" else "right"
    filled = int(np.searchsorted(ends[1:] - ends[0], target, side=side))
    # At least two sentences: for "next" the smallest number that fills the target, for "order" the
    # largest number that fits it (see `chunk`).
    count = min(last - first, max(2, filled + (relation == "next")))
    split = int(rng.integers(1, count))
    a = store.tokens[ends[0] : ends[split]]
    if relation == "order" or label == IS_NEXT:
        b = store.tokens[ends[split] : ends[count]]
    else:
        begin, end = _elsewhere(store, int(chunks.document[index]), rng)
        # Complete sentences until B fills what A leaves, as for a B that follows A.
        ends_b = np.asarray(offsets[begin : end + 1])
        enough = min(
            end - begin, int(np.searchsorted(ends_b[1:] - ends_b[0], max(1, target - len(a)))) + 1
        )
        b = store.tokens[ends_b[0] : ends_b[enough]]
    a, b = _arranged(np.asarray(a), np.asarray(b), label, relation)
    return Pair(*truncate(a, b, target, rng), label)


def draw_sentences(
    store: Store, sentence: int, document: int, rng: np.random.Generator, relation: str = "next"
) -> Pair:
    """Makes a pair of single sentences; half of all pairs have label 0.

    Args:
      store: the documents.
      sentence: index in the store of the first sentence. The second sentence follows the first or,
        for "next", may come from another document.
      document: number of the first sentence's document.
      rng: the only source of randomness.
      relation: one of RELATIONS.
    """
    label = int(rng.random() < 0.5)
    other = sentence + 1
    if relation == "next" and label == NOT_NEXT:
        other = _elsewhere(store, document, rng)[0]
    offsets = store.sentence_offsets
    a, b = (np.asarray(store.tokens[offsets[i] : offsets[i + 1]]) for i in (sentence, other))
    return Pair(*_arranged(a, b, label, relation), label)


def _elsewhere(store: Store, document: int, rng: np.random.Generator) -> tuple[int, int]:
    """A random sentence of another random document, and the end of that document's sentences."""
    other = int(rng.integers(len(store) - 1))
    other += other >= document
    begin, end = int(store.document_sentences[other]), int(store.document_sentences[other + 1])
    return int(rng.integers(begin, end)), end


def _arranged(
    a: np.ndarray, b: np.ndarray, label: int, relation: str
) -> tuple[np.ndarray, np.ndarray]:
    """Swaps segments if the label is SWAPPED.

    Before truncation, which treats the first and the second a little differently.
    """
    return (b, a) if relation == "order" and label == SWAPPED else (a, b)


def lay_out(row: rows.Row, pair: Pair, first: int, sep: int) -> None:
    """Adds `[CLS] A [SEP] B [SEP]` to a row; types are 0 through the first [SEP], then 1.

    Args:
      row: the row; it has the field `types`.
      pair: the two segments.
      first: id of [CLS], or of the token in its place.
      sep: id of [SEP].
    """
    types = np.zeros(len(pair.a) + len(pair.b) + SPECIALS, np.int32)
    types[len(pair.a) + 2 :] = 1
    row.add(np.concatenate([rows.wrap(first, pair.a, sep), pair.b, [sep]]), types=types)


def truncate(
    a: Integer[np.ndarray, "A"],
    b: Integer[np.ndarray, "B"],
    room: int,
    rng: np.random.Generator,
) -> tuple[Integer[np.ndarray, "..."], Integer[np.ndarray, "..."]]:
    """Shortens the longer of two segments until both fit `room` tokens.

    Each token is cut from the front or the back with probability 1/2.

    Args:
      a: ids of the first segment.
      b: ids of the second segment.
      room: maximum total number of tokens of the two segments.
      rng: the only source of randomness.
    """
    over = len(a) + len(b) - room
    if over <= 0:
        return a, b
    # Level the longer one first, then cut both in turn, b first (ties shorten b).
    gap = len(a) - len(b)
    level = min(over, abs(gap))
    cut_a, cut_b = (level, 0) if gap > 0 else (0, level)
    rest = over - level
    cut_a, cut_b = cut_a + rest // 2, cut_b + rest - rest // 2
    return _cut(a, cut_a, rng), _cut(b, cut_b, rng)


def _cut(tokens: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    front = int(rng.binomial(count, 0.5)) if count else 0
    return tokens[front : len(tokens) - (count - front)]
