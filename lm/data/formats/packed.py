"""Pieces of documents, `[CLS] … [SEP]` each, packed into rows: no piece sees another, and hardly a position is padding."""

import numpy as np

from lm.data import packing, rows

PAIRS = False


class Format:
    """Documents are cut where a row is full. `row` draws nothing."""

    def __init__(
        self, tokenizer, length: int, question: str = "next", ends: tuple[int, int] | None = None
    ):
        self.tokenizer, self.length = tokenizer, length
        self.first: int
        self.last: int
        self.first, self.last = ends or (tokenizer.cls, tokenizer.sep)

    def plan(self, store) -> packing.Plan:
        """Which pieces lie in which row."""
        return packing.pack(np.diff(store.document_offsets), self.length)

    def row(
        self, store, plan: packing.Plan, index: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """tokens, segments, positions, types: int32 [T]."""
        row = rows.Row(self.length, self.tokenizer.pad)
        for document, start, stop in plan.pieces(index):
            row.add(rows.wrap(self.first, store.document(document)[start:stop], self.last))
        return row.arrays
