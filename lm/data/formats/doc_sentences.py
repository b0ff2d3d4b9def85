"""Whole sentences of one document, as many as fit (RoBERTa's DOC-SENTENCES).

RoBERTa lets the batch grow where documents end early. Here a row of fixed size takes the ends of several documents instead, which do not
see each other. A sentence longer than a row is cut.
"""

import numpy as np

from lm.data import packing, rows, sentences

PAIRS = False


class Format:
    """Pieces end where sentences end. `row` draws nothing."""

    def __init__(
        self, tokenizer, length: int, question: str = "next", ends: tuple[int, int] | None = None
    ):
        self.tokenizer, self.length = tokenizer, length
        self.first: int
        self.last: int
        self.first, self.last = ends or (tokenizer.cls, tokenizer.sep)

    def plan(self, store) -> packing.Plan:
        """Runs of sentences, each of one document, packed by best fit."""
        runs = sentences.runs(store, self.length - packing.SPECIALS, across=False)
        sizes = np.array([stop - start for _, start, stop in runs], np.int64)
        filled = packing.best_fit([sizes + packing.SPECIALS], [self.length]) if runs else []
        return packing.plan([[runs[at] for at in row] for row in filled])

    def row(
        self, store, plan: packing.Plan, index: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """tokens, segments, positions, types: int32 [T]."""
        row = rows.Row(self.length, self.tokenizer.pad)
        for document, start, stop in plan.pieces(index):
            row.add(rows.wrap(self.first, store.document(document)[start:stop], self.last))
        return row.arrays
