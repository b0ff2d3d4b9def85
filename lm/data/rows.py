"""Lays out rows: segments one after another in arrays of fixed length."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer

from lm.core.protocols import Tokenizer
from lm.data import packing
from lm.data.store import Store

STREAM = ("tokens", "segments", "positions")
_FLOATS = ("weights",)


class Row:
    """A row of T positions, initially all padding, to which segments are added from left to right.

    No segment sees another. An encoder-decoder reads two rows of the same segments, a row of inputs
    and a row of targets, whose fields differ by a prefix.

    Attributes:
      arrays: field name → array [T], int32 but for `weights`, float32. The fields are `tokens`;
        `segments`, numbered from 1, with 0 for padding; `positions`, counted from 0 in each
        segment; and the further fields.
      length: T.
      used: positions taken so far.
      segment: number of the last segment.
    """

    def __init__(self, length: int, pad: int, fields: Sequence[str] = (), prefix: str = ""):
        """Makes a row of padding.

        Args:
          length: T.
          pad: id of the padding token.
          fields: further fields, 0 in padding: any of types, targets, weights, prefix, …
          prefix: prefix of the names of tokens, segments and positions, such as "input_".
        """
        self.arrays: dict[str, np.ndarray] = {
            **{f"{prefix}{name}": np.zeros(length, np.int32) for name in STREAM},
            **{
                name: np.zeros(length, np.float32 if name in _FLOATS else np.int32)
                for name in fields
            },
        }
        self._tokens, self._segments, self._positions = (
            self.arrays[f"{prefix}{name}"] for name in STREAM
        )
        self._tokens[:] = pad
        self.length, self.used, self.segment = length, 0, 0

    def add(self, tokens: Integer[np.ndarray, "n"], **fields: Any) -> slice:
        """Adds a segment.

        Args:
          tokens: ids.
          fields: values of the further fields: [n], or one value for all positions of the segment.

        Returns:
          The positions of the segment.

        Raises:
          ValueError: the segment is longer than the rest of the row.
        """
        span = slice(self.used, self.used + len(tokens))
        if span.stop > self.length:
            raise ValueError(
                f"a segment of {len(tokens)} tokens does not fit a row of {self.length} positions,"
                f" of which {self.used} are taken"
            )
        self.segment += 1
        self._tokens[span] = tokens
        self._segments[span] = self.segment
        self._positions[span] = np.arange(len(tokens))
        for name, values in fields.items():
            self.arrays[name][span] = values
        self.used = span.stop
        return span

    def skip(self, count: int) -> None:
        """Leaves positions as padding."""
        self.used += count


def of_pieces(
    store: Store,
    plan: packing.Plan,
    index: int,
    length: int,
    tokenizer: Tokenizer,
    ends: tuple[int, int],
) -> dict[str, np.ndarray]:
    """Lays out row `index` of a plan, each piece as a segment.

    Args:
      store: the documents.
      plan: the pieces of each row.
      index: number of the row.
      length: T.
      tokenizer: supplies the id of padding.
      ends: special ids before and after each piece.

    Returns:
      tokens, segments, positions, types: int32 [T].
    """
    row = Row(length, tokenizer.pad, ("types",))
    for document, start, stop in plan.pieces(index):
        row.add(wrap(ends[0], store.document(document)[start:stop], ends[1]))
    return row.arrays


def stack(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """A batch of rows with the same fields: name → [B, T]."""
    return {name: np.stack([row.arrays[name] for row in rows]) for name in rows[0].arrays}


def wrap(first: int, text: Integer[np.ndarray, "n"], last: int) -> Integer[np.ndarray, "n+2"]:
    """Puts special ids around a text.

    Args:
      first: id before the text.
      text: ids of the text, [n].
      last: id after the text.

    Returns:
      int32 [n + 2].
    """
    ids = np.empty(len(text) + 2, np.int32)
    ids[0], ids[-1] = first, last
    ids[1:-1] = text
    return ids


def shift(first: int, text: Integer[np.ndarray, "n"]) -> Integer[np.ndarray, "n"]:
    """Shifts right: decoder inputs for teacher forcing, starting with `first`.

    Args:
      first: the first input, such as [BOS].
      text: ids of the targets, [n].

    Returns:
      `first` and the text without its last token, int32 [n].
    """
    ids = np.empty(len(text), np.int32)
    ids[:1] = first
    ids[1:] = text[:-1]
    return ids
