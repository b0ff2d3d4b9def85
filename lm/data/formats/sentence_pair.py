"""`[CLS] A [SEP] B [SEP]` where A and B are single sentences (RoBERTa's SENTENCE-PAIR).

Such pairs are much shorter than a row. RoBERTa lets the batch grow; here several pairs share a row
of fixed size and do not see each other. A pair longer than the rest of its row is truncated like
long segments. Pairs that would lose over half their tokens are skipped in this epoch. The decision
to skip a pair uses the true next sentence, so it cannot bias labels.
"""

import dataclasses

import numpy as np
from jaxtyping import Int64

from lm.core.protocols import Tokenizer
from lm.data import pairs, rows
from lm.data.store import Store

PAIRS = True
TYPICAL = 64  # positions of a pair, for the number of slots


@dataclasses.dataclass(frozen=True)
class Plan:
    """Pairs in rows.

    Attributes:
      sentence: for each pair, the index of its first sentence in the store.
      document: index of the document of each pair.
      first: row i holds pairs first[i] to first[i + 1] - 1.
      note: description of the documents left out, or "".
    """

    sentence: Int64[np.ndarray, "pairs"]
    document: Int64[np.ndarray, "pairs"]
    first: Int64[np.ndarray, "bounds"]
    note: str

    def __len__(self) -> int:
        return len(self.first) - 1


class Format:
    """Lays out several pairs per row.

    Attributes:
      slots: maximum number of pairs of a row.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        length: int,
        relation: str = "next",
        ends: tuple[int, int] | None = None,
    ):
        """Keeps the options.

        Args:
          tokenizer: encodes the documents.
          length: T, positions of a row.
          relation: one of lm.data.pairs.RELATIONS.
          ends: (id before, id after) a text. A pair uses only the first id, [CLS] by default; [SEP]
            always ends a segment.
        """
        self.tokenizer, self.length, self.relation = tokenizer, length, relation
        self.first = ends[0] if ends else tokenizer.cls
        self.slots = max(1, 4 * length // TYPICAL)

    def plan(self, store: Store) -> Plan:
        """Fills rows with consecutive pairs, with the lengths that they have if B follows A.

        Raises:
          UserError: the corpus has no pairs.
        """
        borders = np.asarray(store.document_sentences)
        last = np.zeros(int(borders[-1]), bool)
        last[borders[1:] - 1] = True
        sentence = np.flatnonzero(~last)
        document = np.searchsorted(borders, sentence, side="right") - 1
        pairs.check(len(np.unique(document)), len(store), self.relation)
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

    def row(
        self, store: Store, plan: Plan, index: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Lays out a row.

        Args:
          store: the documents.
          plan: the return value of `plan`.
          index: number of the row.
          rng: draws the labels, random second sentences and truncations.

        Returns:
          tokens, segments, positions, types: int32 [T]; labels: int32 [slots]; label_weights:
          float32 [slots], 0 for empty slots.
        """
        row = rows.Row(self.length, self.tokenizer.pad, ("types",))
        labels, weights = np.zeros(self.slots, np.int32), np.zeros(self.slots, np.float32)
        for at in range(plan.first[index], plan.first[index + 1]):
            sentence = int(plan.sentence[at])
            pair = pairs.draw_sentences(store, sentence, int(plan.document[at]), rng, self.relation)
            room = row.length - row.used - pairs.SPECIALS
            following = int(store.sentence_offsets[sentence + 2] - store.sentence_offsets[sentence])
            if row.used and (room < 2 or 2 * room < following):
                break
            pair = pairs.Pair(*pairs.truncate(pair.a, pair.b, room, rng), pair.label)
            labels[row.segment], weights[row.segment] = pair.label, 1.0
            pairs.lay_out(row, pair, self.first, self.tokenizer.sep)
        return row.arrays | {"labels": labels, "label_weights": weights}
