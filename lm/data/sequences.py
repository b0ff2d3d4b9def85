"""Rows of objectives that turn an input into a target.

An encoder-decoder (mask "cross") reads inputs in one stream of `length` positions and targets in
another. A decoder (mask "prefix") reads input and target one after the other in one stream of
`length` positions, with the input as the prefix. The decoder reads the target shifted right by one
position, starting with [BOS]. Several pieces share a row and do not see each other.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer

from lm.core.protocols import Tokenizer
from lm.data import rows

Piece = tuple[Integer[np.ndarray, "..."], Integer[np.ndarray, "..."]]  # ids of input and target


class Layout:
    """Lays out pieces of an input and a target as rows.

    Attributes:
      mask: "cross" or "prefix".
      length: number of positions of the input stream ("cross") or of the only stream ("prefix").
      stream_lengths: number of positions of each stream.
      positions: total number of positions over all streams.
    """

    def __init__(self, tokenizer: Tokenizer, mask: str, length: int, target_length: int):
        """Sets the lengths of the streams.

        Args:
          tokenizer: source of the ids of [BOS] and padding.
          mask: "cross" or "prefix".
          length: number of positions of the input stream, or of the only stream.
          target_length: positions of the target stream under "cross".
        """
        self.tokenizer, self.mask, self.length = tokenizer, mask, length
        self.stream_lengths = (length, target_length) if mask == "cross" else (length,)
        self.positions = sum(self.stream_lengths)

    def needs(
        self, inputs: Integer[np.ndarray, "n"], targets: Integer[np.ndarray, "n"]
    ) -> tuple[Integer[np.ndarray, "n"], ...]:
        """The number of positions that pieces take in each stream.

        Args:
          inputs: number of input tokens of each of n pieces.
          targets: number of target tokens of each of n pieces.
        """
        return (inputs, targets) if self.mask == "cross" else (inputs + targets,)

    def row(self, pieces: Sequence[Piece]) -> dict[str, np.ndarray]:
        """Lays out pieces as one row.

        Args:
          pieces: (input, target) ids of each piece.

        Returns:
          The fields of lm/nn/token_loss.py, [T] each.

        Raises:
          ValueError: the pieces do not fit a row; pieces planned with `needs` always fit.
        """
        bos, pad = self.tokenizer.bos, self.tokenizer.pad
        if self.mask == "cross":
            source = rows.Row(self.length, pad, prefix="input_")
            row = rows.Row(self.stream_lengths[-1], pad, ("targets", "weights"))
            for inputs, targets in pieces:
                source.add(inputs)
                row.add(rows.shift(bos, targets), targets=targets, weights=1.0)
            return row.arrays | source.arrays
        row = rows.Row(self.length, pad, ("targets", "weights", "prefix"))
        for inputs, targets in pieces:
            span = row.add(np.concatenate([inputs, rows.shift(bos, targets)]))
            split = span.start + len(inputs)
            row.arrays["prefix"][span.start : split] = 1
            row.arrays["targets"][split : span.stop] = targets
            row.arrays["weights"][split : span.stop] = 1.0
        return row.arrays
