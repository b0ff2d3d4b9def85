"""`[CLS] A [SEP] B [SEP]` with segments of several sentences that together fill a row.

This is BERT's format of pairs, called SEGMENT-PAIR by RoBERTa.
"""

import numpy as np

from lm.core.protocols import Tokenizer
from lm.data import pairs, rows
from lm.data.store import Store

PAIRS = True


class Format:
    """Lays out one pair per row.

    Attributes:
      slots: number of labels of a row.
    """

    slots = 1

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

    def plan(self, store: Store) -> pairs.Chunks:
        """Cuts documents into spans of sentences, each of which becomes a pair.

        Raises:
          UserError: the corpus has no pairs.
        """
        return pairs.chunk(store, self.length, self.relation)

    def row(
        self, store: Store, plan: pairs.Chunks, index: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Lays out a row.

        Args:
          store: the documents.
          plan: the return value of `plan`.
          index: number of the row.
          rng: draws the label, the lengths and a random second segment.

        Returns:
          tokens, segments, positions, types: int32 [T]; labels: int32 [1]; label_weights:
          float32 [1].
        """
        pair = pairs.draw(store, plan, index, self.length, rng, self.relation)
        row = rows.Row(self.length, self.tokenizer.pad, ("types",))
        pairs.lay_out(row, pair, self.first, self.tokenizer.sep)
        return row.arrays | {
            "labels": np.array([pair.label], np.int32),
            "label_weights": np.ones(1, np.float32),
        }
