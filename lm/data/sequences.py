"""Rows for objectives that turn an input into a target.

An encoder-decoder (mask "cross") reads inputs in one stream of `length` positions and targets in another; a decoder (mask "prefix") reads
input and target one after the other, `length` positions together, with the input as the prefix. The decoder's input is the target moved by
one, [BOS] first. Several pieces share a row and do not see each other.
"""

from collections.abc import Sequence

import numpy as np

Piece = tuple[np.ndarray, np.ndarray]  # input ids, target ids


class Layout:
    """Where inputs and targets lie.

    Args:
      mask: "cross" or "prefix". length: positions of the input stream, or of the row. target_length: of the target stream.

    Attributes:
      rooms: positions of each stream. positions: all together.
    """

    def __init__(self, tokenizer, mask: str, length: int, target_length: int):
        self.tokenizer, self.mask, self.length = tokenizer, mask, length
        self.rooms = (length, target_length) if mask == "cross" else (length,)
        self.positions = sum(self.rooms)

    def needs(self, inputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, ...]:
        """Positions of each stream that pieces with so many tokens take."""
        return (inputs, targets) if self.mask == "cross" else (inputs + targets,)

    def row(self, pieces: Sequence[Piece]) -> dict[str, np.ndarray]:
        """The fields of lm/nn/token_loss.py.

        Raises:
          ValueError: the pieces do not fit; a plan made with `needs` never gives such a row.
        """
        size = self.rooms[-1]
        taken = self.needs(
            *(np.array([sum(map(len, side)) for side in zip(*pieces, strict=True)]).reshape(2, 1))
        )
        if any(int(need[0]) > room for need, room in zip(taken, self.rooms, strict=True)):
            raise ValueError(
                f"pieces of {[int(need[0]) for need in taken]} positions do not fit streams of {self.rooms}"
            )
        row = {
            name: np.zeros(size, np.int32)
            for name in ("tokens", "segments", "positions", "targets")
        }
        row["tokens"][:] = self.tokenizer.pad
        row["weights"] = np.zeros(size, np.float32)
        if self.mask == "cross":
            source = {
                f"input_{name}": np.zeros(self.length, np.int32)
                for name in ("tokens", "segments", "positions")
            }
            source["input_tokens"][:] = self.tokenizer.pad
        else:
            row["prefix"] = np.zeros(size, np.int32)
            source = {}
        at = at_input = 0
        for segment, (inputs, targets) in enumerate(pieces, 1):
            before = len(inputs)
            if self.mask == "cross":
                span = slice(at_input, at_input + before)
                source["input_tokens"][span] = inputs
                source["input_segments"][span] = segment
                source["input_positions"][span] = np.arange(before)
                at_input += before
                before = 0
            else:
                row["tokens"][at : at + before] = inputs
                row["prefix"][at : at + before] = 1
            begin, end = at + before, at + before + len(targets)
            row["tokens"][begin] = self.tokenizer.bos
            row["tokens"][begin + 1 : end] = targets[:-1]
            row["targets"][begin:end] = targets
            row["weights"][begin:end] = 1.0
            row["segments"][at:end] = segment
            row["positions"][at:end] = np.arange(end - at)
            at = end
        return row | source
