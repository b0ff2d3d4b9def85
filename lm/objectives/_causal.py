"""Rows for predicting the next token."""

import numpy as np

from lm.core.protocols import Tokenizer
from lm.data import packing, rows
from lm.data.store import Store


def row(
    store: Store, plan: packing.Plan, index: int, length: int, tokenizer: Tokenizer
) -> dict[str, np.ndarray]:
    """Lays out row `index` of the plan.

    A document's first token is predicted from [BOS]; its last token predicts [EOS]. Where a row
    cuts a document, the next piece starts with the token before the cut, so that each token is
    predicted once.

    Args:
      store: the tokenized documents.
      plan: plan with the pieces of each row.
      index: index of the row.
      length: T, number of positions of the row.
      tokenizer: tokenizer of the documents.

    Returns:
      tokens, segments, positions, targets: int32 [T].
      weights: float32 [T].
    """
    row = rows.Row(length, tokenizer.pad, ("targets", "weights"))
    for document, start, stop in plan.pieces(index):
        text = store.document(document)
        targets = np.append(text[start:stop], tokenizer.eos)
        weights = np.ones(len(targets), np.float32)
        tokens = rows.shift(int(text[start - 1]) if start else tokenizer.bos, targets)
        if stop < len(text):  # the next piece continues: nothing is predicted after the last token
            targets[-1] = weights[-1] = 0
        row.add(tokens, targets=targets, weights=weights)
        row.skip(packing.SPECIALS - 1)
    return row.arrays
