"""Causal language modelling: predict each token from those before it (GPT-2, Radford et al. 2019).

Rows are packed; no document sees another. A document's first token is predicted from [BOS], its last predicts [EOS];
where a row cuts a document, the next row's piece starts from the token before the cut, so each token is predicted once.
"""

import dataclasses

import numpy as np

from lm.core.protocols import Model
from lm.data import packing
from lm.nn import flops, token_loss
from lm.nn.config import ModelConfig
from lm.nn.cross_entropy import LossOptions
from lm.objectives import _causal


@dataclasses.dataclass(frozen=True)
class Config(LossOptions):
    """packing: "greedy" or "best_fit" (lm/data/packing.py); label smoothing and z-loss."""

    packing: str = "greedy"

    def __post_init__(self):
        LossOptions.__post_init__(self)
        packing.check(self.packing)


class Objective:
    masks = ("causal", "prefix")
    composed = False
    terms = {"clm": 1.0}
    scores = ("causal",)
    standard = True

    def __init__(self, config: Config, tokenizer, length: int, mask: str = "causal"):
        self.config, self.tokenizer, self.length, self.mask = config, tokenizer, length, mask
        self.positions = length

    def plan(self, store) -> packing.Plan:
        """Documents into rows."""
        return packing.pack(np.diff(store.document_offsets), self.length, self.config.packing)

    def example(
        self, store, plan, row: int, rng: np.random.Generator, progress: float
    ) -> dict[str, np.ndarray]:
        """tokens, targets, segments, positions int32 [T], weights float32 [T]; under a prefix mask also `prefix`, which is empty."""
        example = _causal.row(store, plan, row, self.length, self.tokenizer)
        return example | (
            {"prefix": np.zeros(self.length, np.int32)} if self.mask == "prefix" else {}
        )

    def heads(self, config, scope) -> dict:
        """Nothing beyond the model's vocabulary head."""
        return {}

    def flops(self, model: type[Model], config: ModelConfig) -> int:
        """Operations of a forward pass of one row."""
        return model.flops(config, self.length) + flops.head(config, self.length)

    def loss(self, model, batch, dropout_keys):
        """Terms and metrics, each name: (sum, weight)."""
        return token_loss.loss("clm", model, batch, dropout_keys, self.config)

    def by_row(self, model, batch):
        """Nats and hits of each row, each name: (sums [B], weights [B])."""
        return token_loss.by_row("clm", model, batch)
