"""Shared by objectives that turn an input into a target: the loss on the target's tokens."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from lm.core.protocols import Batch, Model, ModelClass, Sums, Tokenizer
from lm.data import sequences
from lm.nn import flops, token_loss
from lm.nn.config import ModelConfig
from lm.nn.cross_entropy import LossOptions
from lm.nn.layers import DropoutKeys, Scope
from lm.objectives import _objective


class SequenceObjective(_objective.SingleObjective):
    """Base of objectives that turn an input into a target. A subclass defines `plan` and `example`.

    Attributes:
      name: name of the loss term; set by a subclass.
      config: options of the objective, including those of the loss.
      layout: layout that turns pieces with an input and a target into rows.
    """

    masks = ("cross", "prefix")
    standard = True
    name: str
    config: Any

    def __init__(self, config: LossOptions, tokenizer: Tokenizer, layout: sequences.Layout):
        self.config, self.tokenizer, self.layout = config, tokenizer, layout
        self.length, self.mask = layout.length, layout.mask
        self.positions, self.longest = layout.positions, max(layout.stream_lengths)

    def heads(self, config: ModelConfig, scope: Scope) -> dict:
        """Returns no heads: the model's vocabulary head suffices."""
        return {}

    def flops(self, model: ModelClass, config: ModelConfig) -> int:
        """Returns the FLOPs of a forward pass of one row."""
        layout = self.layout
        if layout.mask == "prefix":
            return model.flops(config, layout.length) + flops.head(config, layout.length)
        source, target = layout.stream_lengths[0], layout.stream_lengths[-1]
        return model.flops(config, target, inputs=source) + flops.head(config, target)

    def loss(
        self, model: Model, batch: Batch, dropout_keys: DropoutKeys | None
    ) -> tuple[Sums, Sums]:
        """Returns the loss term and its metrics."""
        return token_loss.loss(self.name, model, batch, dropout_keys, self.config)

    def by_row(self, model: Model, batch: Batch) -> Sums:
        """Returns the loss term and its accuracy for each row."""
        return token_loss.by_row(self.name, model, batch)


def longest_piece(needs: Sequence[Int[np.ndarray, "n"]], rooms: Sequence[int]) -> int:
    """Returns the number of tokens of the longest piece that fits into a row.

    Args:
      needs: for each stream, an array whose entry n is the number of positions that a piece of n
        tokens takes.
      rooms: number of positions of each stream.
    """
    return min(
        int(np.searchsorted(need, room, side="right")) - 1
        for need, room in zip(needs, rooms, strict=True)
    )
