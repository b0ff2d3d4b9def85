"""Pieces of documents, `[CLS] … [SEP]` each, packed into rows: there is hardly any padding."""

import numpy as np

from lm.core.protocols import Tokenizer
from lm.data import packing, rows
from lm.data.store import Store

PAIRS = False


class Format:
    """Cuts documents where a row is full. `row` is deterministic and ignores `rng`."""

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
        """Assigns pieces to rows."""
        return packing.pack(np.diff(store.document_offsets), self.length)

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
        return rows.of_pieces(store, plan, index, self.length, self.tokenizer, self.ends)
