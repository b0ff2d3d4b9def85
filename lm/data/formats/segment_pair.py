"""`[CLS] A [SEP] B [SEP]` with segments of several sentences that together fill a row (BERT; RoBERTa's SEGMENT-PAIR)."""

import numpy as np

from lm.data import pairs, rows

PAIRS = True


class Format:
    """One pair a row; `question` says what is wrong with half of the pairs."""

    slots = 1

    def __init__(
        self, tokenizer, length: int, question: str = "next", ends: tuple[int, int] | None = None
    ):
        self.tokenizer, self.length, self.question = tokenizer, length, question
        self.first = ends[0] if ends else tokenizer.cls

    def plan(self, store) -> pairs.Chunks:
        """Runs of sentences that a pair is made of.

        Raises:
          UserError: the corpus has no pairs.
        """
        return pairs.chunk(store, self.length, self.question)

    def row(
        self, store, plan: pairs.Chunks, index: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """tokens, segments, positions, types: int32 [T]; labels int32 [1], label_weights float32 [1]."""
        pair = pairs.draw(store, plan, index, self.length, rng, self.question)
        row = rows.Row(self.length, self.tokenizer.pad)
        pairs.lay_out(row, pair, self.first, self.tokenizer.sep)
        return row.arrays | {
            "labels": np.array([pair.label], np.int32),
            "label_weights": np.ones(1, np.float32),
        }
