"""Rows for predicting the next token."""

import numpy as np

from lm.data import packing


def row(store, plan: packing.Plan, index: int, length: int, tokenizer) -> dict[str, np.ndarray]:
    """Row `index` of the plan: tokens, targets, segments, positions int32 [T], weights float32 [T].

    A document's first token is predicted from [BOS], its last predicts [EOS]; where a row cuts a document, the next piece starts from the
    token before the cut, so each token is predicted once.
    """
    names = ("tokens", "targets", "segments", "positions")
    example = {name: np.zeros(length, np.int32) for name in names} | {
        "weights": np.zeros(length, np.float32)
    }
    example["tokens"][:] = tokenizer.pad
    at = 0
    for segment, (document, start, stop) in enumerate(plan.pieces(index), 1):
        text = store.document(document)
        count = stop - start
        span = slice(at, at + count + 1)
        example["tokens"][at] = text[start - 1] if start else tokenizer.bos
        example["tokens"][at + 1 : at + count + 1] = text[start:stop]
        example["targets"][at : at + count] = text[start:stop]
        example["weights"][at : at + count] = 1.0
        if stop == len(text):
            example["targets"][at + count] = tokenizer.eos
            example["weights"][at + count] = 1.0
        example["segments"][span] = segment
        example["positions"][span] = np.arange(count + 1)
        at += count + packing.SPECIALS
    return example
