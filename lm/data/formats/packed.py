"""Pieces of documents, `[CLS] … [SEP]` each, packed into rows: there is hardly any padding."""

import numpy as np

from lm.core.protocols import Tokenizer
from lm.data import packing, rows
from lm.data.store import Store

PAIRS = False


class Format:
    """Cuts documents where a row is full. `row` draws nothing."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        length: int,
        relation: str = "next",
        ends: tuple[int, int] | None = None,
    ):
        self.tokenizer, self.length = tokenizer, length
        self.ends = ends or (tokenizer.cls, tokenizer.sep)

    def plan(self, store: Store) -> packing.Plan:
        """Assigns pieces to rows."""
        return packing.pack(np.diff(store.document_offsets), self.length)

    def row(
        self, store: Store, plan: packing.Plan, index: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """tokens, segments, positions, types: int32 [T]."""
        return rows.of_pieces(store, plan, index, self.length, self.tokenizer, self.ends)
