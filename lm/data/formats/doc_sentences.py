"""Complete sentences of one document, as many as fit (RoBERTa's DOC-SENTENCES).

RoBERTa lets the batch grow where documents end early. Here a row has a fixed size and takes the
ends of several documents, which do not see each other. A sentence longer than a row is cut.
"""

import numpy as np

from lm.core.protocols import Tokenizer
from lm.data import packing, rows, sentences
from lm.data.store import Store

PAIRS = False


class Format:
    """Cuts documents between sentences. `row` is deterministic and ignores `rng`."""

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
        """Packs spans of sentences, each of one document, by best fit."""
        spans = sentences.spans(store, self.length - packing.SPECIALS, across=False)
        sizes = np.array([stop - start for _, start, stop in spans], np.int64)
        packed = packing.best_fit([sizes + packing.SPECIALS], [self.length]) if spans else []
        return packing.plan([[spans[at] for at in row] for row in packed])

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
