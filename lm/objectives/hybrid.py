"""GPT-BERT's hybrid: each sequence is trained causally or by masked next-token prediction.

Charpentier and Samuel 2024. The two modes differ in the attention mask and in the masked tokens.
Rows, positions and the vocabulary head are the same, because a masked token at k + 1 is predicted
at k. All sequences have equal weight: a sequence's loss is the mean over its targets. By default
spans of 1 to 3 tokens are masked. The masking rate falls from 30 to 15 % over training.
"""

import dataclasses

import numpy as np

from lm.core.protocols import Batch, Example, Model, ModelClass, Sums, Tokenizer
from lm.data import masking, packing
from lm.data.store import Store
from lm.nn import cross_entropy, flops, token_loss
from lm.nn.config import ModelConfig
from lm.nn.cross_entropy import LossOptions
from lm.nn.layers import DropoutKeys, Scope
from lm.objectives import _causal, _objective


@dataclasses.dataclass(frozen=True)
class Config(masking.Options, LossOptions):
    """Options of the hybrid objective.

    Extends `masking.Options` (lm/data/masking.py) and `LossOptions` (label smoothing, z-loss).

    Attributes:
      causal: weight of causal sequences; their fraction is causal / (causal + masked).
      masked: weight of masked sequences; see `causal`.
      packing: method of packing documents into rows, "greedy" or "best_fit" (lm/data/packing.py).
    """

    rate: float = 0.3
    final_rate: float = 0.15
    unit: str = "token_span"
    span_p: float = 0.0
    span_most: int = 3
    causal: float = 1.0
    masked: float = 1.0
    packing: str = "greedy"

    def __post_init__(self) -> None:
        masking.Options.__post_init__(self)
        LossOptions.__post_init__(self)
        packing.check(self.packing)
        if min(self.causal, self.masked) < 0 or not self.causal + self.masked > 0:
            raise ValueError(
                f"causal={self.causal} and masked={self.masked} are weights: they must not be"
                " negative, and not both 0"
            )


class Objective(_objective.SingleObjective):
    """Causal and masked next-token prediction in one model."""

    masks = ("prefix",)
    standard = True
    terms = {"hybrid": 1.0}

    def __init__(self, config: Config, tokenizer: Tokenizer, length: int, mask: str = "prefix"):
        self.config, self.tokenizer, self.length, self.mask = config, tokenizer, length, mask
        self.positions = self.longest = length
        # A mode of weight 0 is not trained, and therefore not evaluated.
        self.scores = ("causal",) * (config.causal > 0) + ("masked_next",) * (config.masked > 0)

    def plan(self, store: Store) -> packing.Plan:
        """Packs documents into rows, as in clm."""
        return packing.pack(np.diff(store.document_offsets), self.length, self.config.packing)

    def example(
        self, store: Store, plan: packing.Plan, row: int, rng: np.random.Generator, progress: float
    ) -> Example:
        """Makes the arrays of one row.

        Returns:
          tokens, segments, positions, prefix, targets: int32 [T].
          weights: float32 [T], with sum 1.
          is_masked: int32 [], 1 for masked sequences, 0 for causal sequences.
          count: int32 [], the number of targets.
        """
        config = self.config
        is_masked = rng.random() >= config.causal / (config.causal + config.masked)
        example = _causal.row(store, plan, row, self.length, self.tokenizer)
        prefix = np.zeros(self.length, np.int32)
        if is_masked:
            # No position precedes the first token of a piece, so it is not masked.
            corrupted = masking.corrupt(
                example, self.tokenizer, rng, config, progress, example["positions"] > 0
            )
            used = corrupted["weights"] > 0
            at = corrupted["target_positions"][used] - 1
            targets, weights = np.zeros(self.length, np.int32), np.zeros(self.length, np.float32)
            targets[at], weights[at] = corrupted["targets"][used], 1.0
            example |= {"tokens": corrupted["tokens"], "targets": targets, "weights": weights}
            prefix = (example["segments"] > 0).astype(np.int32)
        count = example["weights"].sum()
        example["weights"] /= max(count, 1.0)
        return example | {
            "prefix": prefix,
            "is_masked": np.array(is_masked, np.int32),
            "count": np.array(count, np.int32),
        }

    def heads(self, config: ModelConfig, scope: Scope) -> dict:
        """Returns no heads: the model's vocabulary head suffices."""
        return {}

    def flops(self, model: ModelClass, config: ModelConfig) -> int:
        """Returns the FLOPs of a forward pass of one row.

        In both modes the vocabulary head runs at every position.
        """
        return model.flops(config, self.length) + flops.head(config, self.length)

    def loss(
        self, model: Model, batch: Batch, dropout_keys: DropoutKeys | None
    ) -> tuple[Sums, Sums]:
        """Returns the loss term, and metrics: targets, and nats and accuracy of each mode."""
        sums = token_loss.sums(model, model.states(batch, dropout_keys), batch, self.config)
        weight_B = batch["weights"].sum(-1)
        metrics = {"targets": (batch["count"].sum().astype(weight_B.dtype), weight_B.sum())}
        for name, (values_B, weights_B) in _by_mode(sums, batch).items():
            metrics[name] = (values_B.sum(), weights_B.sum())
        return {"hybrid": (sums.loss, weight_B.sum())}, metrics

    def by_row(self, model: Model, batch: Batch) -> Sums:
        """Returns the loss term, and nats and accuracy of each mode, for each row."""
        sums = token_loss.sums(model, model.states(batch, None), batch, cross_entropy.PLAIN)
        return {"hybrid": (sums.nll, batch["weights"].sum(-1))} | _by_mode(sums, batch)


def _by_mode(sums: cross_entropy.Sums, batch: Batch) -> Sums:
    """Nats and accuracy of each row, 0 with weight 0 under the names of the other mode."""
    weight_B = batch["weights"].sum(-1)
    masked_B = batch["is_masked"].astype(weight_B.dtype)
    by_mode = {}
    for mode, is_mode_B in (("causal", 1.0 - masked_B), ("masked", masked_B)):
        by_mode[f"{mode}_nll"] = (sums.nll * is_mode_B, weight_B * is_mode_B)
        by_mode[f"{mode}_accuracy"] = (sums.hits * is_mode_B, weight_B * is_mode_B)
    return by_mode
