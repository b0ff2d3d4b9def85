"""Causal language modeling: predicts each token from the tokens before it.

GPT-2 (Radford et al. 2019). Documents are packed into rows and do not attend to each other. A
document's first token is predicted from [BOS]; its last token predicts [EOS]. Where a row cuts a
document, the next piece starts with the token before the cut, so that each token is predicted once.
"""

import dataclasses

import numpy as np

from lm.core.protocols import Batch, Example, Model, ModelClass, Sums, Tokenizer
from lm.data import packing
from lm.data.store import Store
from lm.nn import flops, token_loss
from lm.nn.config import ModelConfig
from lm.nn.cross_entropy import LossOptions
from lm.nn.layers import DropoutKeys, Scope
from lm.objectives import _causal, _objective


@dataclasses.dataclass(frozen=True)
class Config(LossOptions):
    """Options of CLM. Extends `LossOptions` (label smoothing, z-loss).

    Attributes:
      packing: method of packing documents into rows, "greedy" or "best_fit" (lm/data/packing.py).
    """

    packing: str = "greedy"

    def __post_init__(self) -> None:
        LossOptions.__post_init__(self)
        packing.check(self.packing)


class Objective(_objective.SingleObjective):
    """Causal language modeling."""

    masks = ("causal", "prefix")
    standard = True
    terms = {"clm": 1.0}
    scores = ("causal",)

    def __init__(self, config: Config, tokenizer: Tokenizer, length: int, mask: str = "causal"):
        self.config, self.tokenizer, self.length, self.mask = config, tokenizer, length, mask
        self.positions = self.longest = length

    def plan(self, store: Store) -> packing.Plan:
        """Packs documents into rows."""
        return packing.pack(np.diff(store.document_offsets), self.length, self.config.packing)

    def example(
        self, store: Store, plan: packing.Plan, row: int, rng: np.random.Generator, progress: float
    ) -> Example:
        """Makes the arrays of one row.

        Returns:
          tokens, targets, segments, positions: int32 [T].
          weights: float32 [T].
          prefix: int32 [T], zeros; only under a prefix mask.
        """
        example = _causal.row(store, plan, row, self.length, self.tokenizer)
        if self.mask == "prefix":
            example = example | {"prefix": np.zeros(self.length, np.int32)}
        return example

    def heads(self, config: ModelConfig, scope: Scope) -> dict:
        """Returns no heads: the model's vocabulary head suffices."""
        return {}

    def flops(self, model: ModelClass, config: ModelConfig) -> int:
        """Returns the FLOPs of a forward pass of one row."""
        return model.flops(config, self.length) + flops.head(config, self.length)

    def loss(
        self, model: Model, batch: Batch, dropout_keys: DropoutKeys | None
    ) -> tuple[Sums, Sums]:
        """Returns the loss term and its metrics."""
        return token_loss.loss("clm", model, batch, dropout_keys, self.config)

    def by_row(self, model: Model, batch: Batch) -> Sums:
        """Returns the loss term and its accuracy for each row."""
        return token_loss.by_row("clm", model, batch)
