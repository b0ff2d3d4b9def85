"""Whole sentences in a row until it is full, across the borders of documents (RoBERTa's FULL-SENTENCES).

Between documents stands an extra [SEP], and by definition the whole row attends to itself: this is the one format in which a token sees
another document. A sentence longer than a row is cut.
"""

import numpy as np

from lm.data import packing, rows, sentences

PAIRS = False


class Format:
    """`row` draws nothing."""

    def __init__(
        self, tokenizer, length: int, question: str = "next", ends: tuple[int, int] | None = None
    ):
        self.tokenizer, self.length = tokenizer, length
        self.first: int
        self.last: int
        self.first, self.last = ends or (tokenizer.cls, tokenizer.sep)

    def plan(self, store) -> packing.Plan:
        """Runs of sentences in the store's order; pieces of one row are joined by [SEP]."""
        return packing.plan(
            sentences.filled(
                sentences.runs(store, self.length - packing.SPECIALS, across=True), self.length
            )
        )

    def row(
        self, store, plan: packing.Plan, index: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """tokens, segments, positions, types: int32 [T]."""
        parts: list[np.ndarray] = [np.array([self.first])]
        for document, start, stop in plan.pieces(index):
            parts += [store.document(document)[start:stop], np.array([self.last])]
        row = rows.Row(self.length, self.tokenizer.pad)
        row.add(np.concatenate(parts).astype(np.int32))
        return row.arrays
