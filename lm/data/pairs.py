"""Sentence pairs `[CLS] A [SEP] B [SEP]`, where B follows A or comes from another document (BERT, Devlin et al. 2019).

As in the original data code, a chunk of consecutive sentences fills a row; A ends at a uniform sentence of it; one
example in ten is shorter; pairs are truncated at the longer side, at either end. Unlike it, the label is drawn first:
the original turns every one-sentence chunk into a random pair, so that more than half of its pairs are random and the
length of A tells the label. Here chunks of one sentence are left out and counted.
"""

import dataclasses

import numpy as np

from lm.lookup import UserError

SHORT_SHARE = 0.1  # of examples with a smaller target length
SPECIALS = 3
IS_NEXT, NOT_NEXT = 0, 1  # labels, numbered as in BERT


@dataclasses.dataclass(frozen=True)
class Chunks:
    """Runs of consecutive sentences, each at least two and about one row long.

    Attributes:
      document: [C] the chunk's document. start, stop: [C] its sentences, numbered through the store.
      dropped: chunks of one sentence, which cannot hold a pair.
    """

    document: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    dropped: int

    def __len__(self) -> int:
        return len(self.document)


def chunk(store, length: int) -> Chunks:
    """Cuts the store's documents into chunks for rows of `length` positions.

    Raises:
      UserError: no two documents, or no chunk of two sentences.
    """
    room = length - SPECIALS
    borders, offsets = np.asarray(store.document_sentences), np.asarray(store.sentence_offsets)
    document, start, stop, dropped = [], [], [], 0
    for index in range(len(store)):
        begin, end = int(borders[index]), int(borders[index + 1])
        ends = offsets[begin : end + 1].tolist()
        first = begin
        for sentence in range(begin, end):
            full = ends[sentence + 1 - begin] - ends[first - begin] >= room
            if full or sentence + 1 == end:
                if sentence + 1 - first >= 2:
                    document.append(index)
                    start.append(first)
                    stop.append(sentence + 1)
                else:
                    dropped += 1
                first = sentence + 1
    if len(set(document)) < 2:
        raise UserError(
            f"next-sentence pairs need two documents with at least two sentences each, but the corpus has {len(set(document))}"
            f" ({len(store)} documents); give more text, or another objective"
        )
    return Chunks(np.asarray(document, np.int64), np.asarray(start, np.int64), np.asarray(stop, np.int64), dropped)


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two segments of token ids, and whether the second follows the first."""

    a: np.ndarray
    b: np.ndarray
    label: int


def draw(store, chunks: Chunks, index: int, length: int, rng: np.random.Generator) -> Pair:
    """The pair made from chunk `index`: half follow each other, half do not."""
    room = length - SPECIALS
    label = int(rng.random() < 0.5)
    target = int(rng.integers(2, room + 1)) if rng.random() < SHORT_SHARE else room
    offsets = store.sentence_offsets
    first, last = int(chunks.start[index]), int(chunks.stop[index])
    # The shortest run of at least two sentences that fills the target.
    ends = np.asarray(offsets[first : last + 1])
    count = min(last - first, max(2, int(np.searchsorted(ends[1:] - ends[0], target)) + 1))
    split = int(rng.integers(1, count))
    a = store.tokens[ends[0] : ends[split]]
    if label == IS_NEXT:
        b = store.tokens[ends[split] : ends[count]]
    else:
        document = int(chunks.document[index])
        other = int(rng.integers(len(store) - 1))
        other += other >= document
        sentences = store.document_sentences
        begin, end = int(sentences[other]), int(sentences[other + 1])
        begin = int(rng.integers(begin, end))
        # Whole sentences until B fills what A leaves, as for B that follows.
        ends_b = np.asarray(offsets[begin : end + 1])
        enough = min(end - begin, int(np.searchsorted(ends_b[1:] - ends_b[0], max(1, target - len(a)))) + 1)
        b = store.tokens[ends_b[0] : ends_b[enough]]
    return Pair(*_truncate(np.asarray(a), np.asarray(b), target, rng), label)


def lay_out(pair: Pair, tokenizer, length: int) -> dict[str, np.ndarray]:
    """The pair as a padded row: tokens, segments (1, and 0 for padding), positions, types (0 for A, 1 for B). Each [length]."""
    a, b = len(pair.a), len(pair.b)
    row = np.full(length, tokenizer.pad, np.int32)
    row[0] = tokenizer.cls
    row[1 : a + 1] = pair.a
    row[a + 1] = tokenizer.sep
    row[a + 2 : a + b + 2] = pair.b
    row[a + b + 2] = tokenizer.sep
    used = a + b + SPECIALS
    at = np.arange(length, dtype=np.int32)
    return {
        "tokens": row,
        "segments": (at < used).astype(np.int32),
        "positions": np.where(at < used, at, 0).astype(np.int32),
        "types": ((at >= a + 2) & (at < used)).astype(np.int32),
    }


def _truncate(a: np.ndarray, b: np.ndarray, room: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
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
