"""What tasks that ask for tokens have in common."""

from collections.abc import Callable
from typing import Any

import numpy as np


class Changed:
    """An objective whose examples are changed before they are asked.

    Args:
      positions: tokens that a row counts for. change: of an example; None for none.
    """

    def __init__(self, objective: Any, positions: int, change: Callable[[dict], dict] | None):
        self.objective, self.positions, self.change = objective, positions, change
        self.plan, self.loss = objective.plan, objective.loss

    def example(self, *args: Any) -> dict[str, np.ndarray]:
        """As the objective's, changed."""
        example = self.objective.example(*args)
        return self.change(example) if self.change else example


def neighbours(store, tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, the token after each) of `[BOS] document [EOS]`, over all documents."""
    stream = np.insert(np.asarray(store.tokens, np.int64), store.document_offsets[:-1], tokenizer.bos)
    ends = np.asarray(store.document_offsets[1:]) + np.arange(1, len(store) + 1)
    stream = np.insert(stream, ends, tokenizer.eos)
    inside = stream[1:] != tokenizer.bos
    return stream[:-1][inside], stream[1:][inside]
