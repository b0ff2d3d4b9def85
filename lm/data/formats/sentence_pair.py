"""`[CLS] A [SEP] B [SEP]` with a single sentence each (RoBERTa's SENTENCE-PAIR).

Such pairs are much shorter than a row. RoBERTa lets the batch grow; here several pairs share a row of fixed size and do not see each other.
A pair that is longer than what is left of its row is shortened as long segments are. Where less than half of it would be left if B
followed, it is left out of this epoch's row: what B is drawn has no say in that, or labels would not be half and half.
"""

import dataclasses

import numpy as np

from lm.data import pairs, rows

PAIRS = True
TYPICAL = 64  # positions of a pair, for the number of slots


@dataclasses.dataclass(frozen=True)
class Plan:
    """Pairs by their first sentence. sentence, document: [pairs]. first, note: as in lm.data.packing.Plan."""

    sentence: np.ndarray
    document: np.ndarray
    first: np.ndarray
    note: str

    def __len__(self) -> int:
        return len(self.first) - 1


class Format:
    """Up to `slots` pairs a row; `question` says what is wrong with half of them."""

    def __init__(
        self, tokenizer, length: int, question: str = "next", ends: tuple[int, int] | None = None
    ):
        self.tokenizer, self.length, self.question = tokenizer, length, question
        self.first = ends[0] if ends else tokenizer.cls
        self.slots = max(1, 4 * length // TYPICAL)

    def plan(self, store) -> Plan:
        """Consecutive pairs into rows, by the lengths that they have when B follows.

        Raises:
          UserError: the corpus has no pairs.
        """
        borders = np.asarray(store.document_sentences)
        last = np.zeros(int(borders[-1]), bool)
        last[borders[1:] - 1] = True
        sentence = np.flatnonzero(~last)
        document = np.searchsorted(borders, sentence, side="right") - 1
        pairs.check(len(np.unique(document)), len(store), self.question)
        offsets = np.asarray(store.sentence_offsets)
        sizes = (offsets[sentence + 2] - offsets[sentence] + pairs.SPECIALS).tolist()
        first, used, count = [0], 0, 0
        for index, size in enumerate(sizes):
            size = min(size, self.length)
            if index and (used + size > self.length or count == self.slots):
                first.append(index)
                used = count = 0
            used, count = used + size, count + 1
        alone = len(store) - len(np.unique(document))
        note = f"left out: {alone:,} documents of one sentence" if alone else ""
        return Plan(sentence, document, np.array([*first, len(sentence)]), note)

    def row(self, store, plan: Plan, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """tokens, segments, positions, types: int32 [T]; labels int32, label_weights float32 [slots]."""
        row = rows.Row(self.length, self.tokenizer.pad)
        labels, weights = np.zeros(self.slots, np.int32), np.zeros(self.slots, np.float32)
        for at in range(plan.first[index], plan.first[index + 1]):
            pair = pairs.draw_sentences(
                store, int(plan.sentence[at]), int(plan.document[at]), rng, self.question
            )
            room = row.length - row.used - pairs.SPECIALS
            following = int(
                store.sentence_offsets[plan.sentence[at] + 2]
                - store.sentence_offsets[plan.sentence[at]]
            )
            if row.used and (room < 2 or 2 * room < following):
                break
            pair = pairs.Pair(*pairs.truncate(pair.a, pair.b, room, rng), pair.label)
            labels[row.segment], weights[row.segment] = pair.label, 1.0
            pairs.lay_out(row, pair, self.first, self.tokenizer.sep)
        return row.arrays | {"labels": labels, "label_weights": weights}
