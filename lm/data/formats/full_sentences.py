"""Complete sentences until a row is full, across documents (RoBERTa's FULL-SENTENCES).

An extra [SEP] separates documents. By definition the row attends to itself as one segment: this is
the only format in which a token sees another document. A sentence longer than a row is cut.
"""

import numpy as np

from lm.core.protocols import Tokenizer
from lm.data import packing, rows, sentences
from lm.data.store import Store

PAIRS = False


class Format:
    """Joins the pieces of a row with [SEP]. `row` is deterministic and ignores `rng`."""

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
          relation: unused: rows hold no pairs.
          ends: (id before, id after) each piece of text; [CLS] and [SEP] by default.
        """
        self.tokenizer, self.length = tokenizer, length
        self.ends = ends or (tokenizer.cls, tokenizer.sep)

    def plan(self, store: Store) -> packing.Plan:
        """Fills rows with sentences in the store's order."""
        spans = sentences.spans(store, self.length - packing.SPECIALS, across=True)
        return packing.plan(sentences.fill(spans, self.length))

    def row(
        self, store: Store, plan: packing.Plan, index: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Lays out a row.

        Args:
          store: the documents.
          plan: the return value of `plan`.
          index: number of the row.
          rng: unused: the row is deterministic.

        Returns:
          tokens, segments, positions, types: int32 [T].
        """
        first, last = self.ends
        parts = [np.array([first])]
        for document, start, stop in plan.pieces(index):
            parts += [store.document(document)[start:stop], np.array([last])]
        row = rows.Row(self.length, self.tokenizer.pad, ("types",))
        row.add(np.concatenate(parts))
        return row.arrays
