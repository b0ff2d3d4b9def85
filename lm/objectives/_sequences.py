"""What objectives that turn an input into a target have in common: a layout of rows, and a loss on the target's tokens."""

from typing import Any

from lm import prediction
from lm.data import sequences


class SequenceObjective:
    """A subclass makes `layout`, and names its term, plan and examples."""

    masks = ("cross", "prefix")
    composed = False
    standard = True
    name = ""
    config: Any  # its own options, LossOptions among them
    layout: sequences.Layout

    def heads(self, config, scope) -> dict:
        """Nothing beyond the model's vocabulary head."""
        return {}

    def flops(self, config) -> int:
        """Operations of a forward pass of one row."""
        return self.layout.flops(config)

    def loss(self, model, batch, key):
        """Terms and metrics, each name: (sum, weight)."""
        return prediction.loss(self.name, model, batch, key, self.config)

    def by_row(self, model, batch):
        """Nats and hits of each row, each name: (sums [B], weights [B])."""
        return prediction.by_row(self.name, model, batch)
