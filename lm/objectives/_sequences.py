"""What objectives that turn an input into a target have in common: a layout of rows, and a loss on the target's tokens."""

from typing import Any

from lm.core.protocols import Model
from lm.data import sequences
from lm.nn import flops, token_loss
from lm.nn.config import ModelConfig


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

    def flops(self, model: type[Model], config: ModelConfig) -> int:
        """Operations of a forward pass of one row."""
        layout = self.layout
        if layout.mask == "prefix":
            return model.flops(config, layout.length) + flops.head(config, layout.length)
        source, target = layout.rooms[0], layout.rooms[-1]
        return model.flops(config, target, inputs=source) + flops.head(config, target)

    def loss(self, model, batch, dropout_keys):
        """Terms and metrics, each name: (sum, weight)."""
        return token_loss.loss(self.name, model, batch, dropout_keys, self.config)

    def by_row(self, model, batch):
        """Nats and hits of each row, each name: (sums [B], weights [B])."""
        return token_loss.by_row(self.name, model, batch)
