"""Pairs of segments `[CLS] A [SEP] B [SEP]` and the question that they pose.

    next     does B follow A, or does it come from another document? (NSP: BERT, Devlin et al. 2019)
    order    do A and B, which are consecutive, stand in their order? (SOP: ALBERT, Lan et al. 2020); no other document ever

As in the original data code, a chunk of consecutive sentences fills a row; A ends at a uniform sentence of it; one
example in ten is shorter; pairs are truncated at the longer side, at either end. Unlike it, the label is drawn first:
the original turns every one-sentence chunk into a random pair, so that more than half of its pairs are random and the
length of A tells the label (and ALBERT's code, which has the same branch, asks NSP among its SOP). Here chunks of one sentence are left
out and counted.
"""

import dataclasses

import numpy as np

from lm.core.plugins import UserError
from lm.data import rows

SHORT_SHARE = 0.1  # of examples with a smaller target length
SPECIALS = 3
IS_NEXT, NOT_NEXT = 0, 1  # labels, numbered as in BERT
IN_ORDER, SWAPPED = 0, 1  # and as in ALBERT
QUESTIONS = ("next", "order")


@dataclasses.dataclass(frozen=True)
class Chunks:
    """Runs of consecutive sentences, each at least two and about one row long.

    Attributes:
      document: [C] the chunk's document. start, stop: [C] its sentences, numbered through the store.
      dropped: chunks of one sentence, which cannot hold a pair.
      note: the same, for people; "" if none.
    """

    document: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    dropped: int

    def __len__(self) -> int:
        return len(self.document)

    @property
    def note(self) -> str:
        return f"left out: {self.dropped:,} chunks of one sentence" if self.dropped else ""


def chunk(store, length: int, question: str = "next") -> Chunks:
    """Cuts the store's documents into chunks for rows of `length` positions.

    For "next" a chunk ends with the sentence that fills the row, as in BERT's code. For "order" it ends before a sentence that would go
    beyond it: such a sentence is longer than most, so if it always came last, which segment is the longer would tell the answer.

    Raises:
      UserError: no chunk of two sentences; for "next", not in two documents.
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
            if question == "order" and size > room and sentence - first >= 2:
                document.append(index)
                start.append(first)
                stop.append(sentence)
                first, size = sentence, ends[sentence + 1 - begin] - ends[sentence - begin]
            full = size >= room and (question == "next" or sentence > first)
            if full or sentence + 1 == end:
                if sentence + 1 - first >= 2:
                    document.append(index)
                    start.append(first)
                    stop.append(sentence + 1)
                else:
                    dropped += 1
                first = sentence + 1
    check(len(set(document)), len(store), question)
    return Chunks(
        np.asarray(document, np.int64),
        np.asarray(start, np.int64),
        np.asarray(stop, np.int64),
        dropped,
    )


def check(usable: int, documents: int, question: str) -> None:
    """Refuses a corpus in which too few documents hold a pair."""
    needed = {"next": 2, "order": 1}[question]
    if usable < needed:
        kind = {
            "next": "next-sentence pairs need two documents",
            "order": "sentence-order pairs need a document",
        }[question]
        raise UserError(
            f"{kind} with at least two sentences{' each' * (needed > 1)}, but the corpus has {usable}"
            f" ({documents} documents); give more text, or another objective"
        )


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two segments of token ids, and the answer: 0 where they stand as in the text."""

    a: np.ndarray
    b: np.ndarray
    label: int


def draw(
    store, chunks: Chunks, index: int, length: int, rng: np.random.Generator, question: str = "next"
) -> Pair:
    """The pair made from chunk `index`: half of them with label 0."""
    room = length - SPECIALS
    label = int(rng.random() < 0.5)
    target = int(rng.integers(2, room + 1)) if rng.random() < SHORT_SHARE else room
    offsets = store.sentence_offsets
    first, last = int(chunks.start[index]), int(chunks.stop[index])
    ends = np.asarray(offsets[first : last + 1])
    filled = int(
        np.searchsorted(ends[1:] - ends[0], target, side="left" if question == "next" else "right")
    )
    # At least two sentences: the fewest that fill the target, and for the order the most that fit it (as `chunk` says).
    count = min(last - first, max(2, filled + (question == "next")))
    split = int(rng.integers(1, count))
    a = store.tokens[ends[0] : ends[split]]
    if question == "order" or label == IS_NEXT:
        b = store.tokens[ends[split] : ends[count]]
    else:
        begin, end = _elsewhere(store, int(chunks.document[index]), rng)
        # Whole sentences until B fills what A leaves, as for B that follows.
        ends_b = np.asarray(offsets[begin : end + 1])
        enough = min(
            end - begin, int(np.searchsorted(ends_b[1:] - ends_b[0], max(1, target - len(a)))) + 1
        )
        b = store.tokens[ends_b[0] : ends_b[enough]]
    a, b = _arranged(np.asarray(a), np.asarray(b), label, question)
    return Pair(*truncate(a, b, target, rng), label)


def draw_sentences(
    store, sentence: int, document: int, rng: np.random.Generator, question: str = "next"
) -> Pair:
    """A pair of single sentences: `sentence` of `document`, and the one that follows it or, for "next", any of another document."""
    label = int(rng.random() < 0.5)
    other = sentence + 1
    if question == "next" and label == NOT_NEXT:
        other = _elsewhere(store, document, rng)[0]
    offsets = store.sentence_offsets
    a, b = (
        np.asarray(store.tokens[offsets[each] : offsets[each + 1]]) for each in (sentence, other)
    )
    return Pair(*_arranged(a, b, label, question), label)


def _elsewhere(store, document: int, rng: np.random.Generator) -> tuple[int, int]:
    """A random sentence of a random other document, and where that document's sentences end."""
    other = int(rng.integers(len(store) - 1))
    other += other >= document
    begin, end = int(store.document_sentences[other]), int(store.document_sentences[other + 1])
    return int(rng.integers(begin, end)), end


def _arranged(
    a: np.ndarray, b: np.ndarray, label: int, question: str
) -> tuple[np.ndarray, np.ndarray]:
    """Swaps where the answer is that they are; before truncation, which treats the first and the second a little differently."""
    return (b, a) if question == "order" and label == SWAPPED else (a, b)


def lay_out(row: rows.Row, pair: Pair, first: int, sep: int) -> None:
    """Lays `[CLS] A [SEP] B [SEP]` into the row, with `first` for [CLS]; types are 0 for A and its [SEP], 1 for B and its own."""
    a = len(pair.a) + 2
    span = row.add(np.concatenate([rows.wrap(first, pair.a, sep), pair.b, [sep]]))
    row.arrays["types"][span.start + a : span.stop] = 1


def truncate(
    a: np.ndarray, b: np.ndarray, room: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Shortens the longer of the two until both fit; each token goes from the front or the back with equal chance."""
    over = len(a) + len(b) - room
    if over <= 0:
        return a, b
    # Levels the longer one first, then takes from both in turn, from b first (ties shorten b).
    gap = len(a) - len(b)
    level = min(over, abs(gap))
    cut_a, cut_b = (level, 0) if gap > 0 else (0, level)
    rest = over - level
    cut_a, cut_b = cut_a + rest // 2, cut_b + rest - rest // 2
    return _cut(a, cut_a, rng), _cut(b, cut_b, rng)


def _cut(tokens: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    front = int(rng.binomial(count, 0.5)) if count else 0
    return tokens[front : len(tokens) - (count - front)]
