"""GPT-BERT's hybrid: a share of the sequences is learned causally, the rest by masked next-token prediction (Charpentier and Samuel 2024).

The two modes differ in the mask and in what is hidden; rows, positions and the vocabulary head are the same, because a hidden token k + 1
is predicted at k. Each sequence counts alike: its loss is the mean over its targets. By default masks are runs of 1 to 3 tokens, and their
rate falls from 30 to 15 % over the run.
"""

import dataclasses

import numpy as np

from lm.core.protocols import Model
from lm.data import masking, packing
from lm.nn import flops, token_loss
from lm.nn.config import ModelConfig
from lm.nn.cross_entropy import LossOptions
from lm.objectives import _causal


@dataclasses.dataclass(frozen=True)
class Config(masking.Options, LossOptions):
    """causal, masked: parts of the sequences in each mode, as 1 to 7. How tokens are hidden (lm/data/masking.py); packing
    (lm/data/packing.py); label smoothing and z-loss."""

    rate: float = 0.3
    final_rate: float = 0.15
    unit: str = "token_span"
    span_p: float = 0.0
    span_most: int = 3
    causal: float = 1.0
    masked: float = 1.0
    packing: str = "greedy"

    def __post_init__(self):
        masking.Options.__post_init__(self)
        LossOptions.__post_init__(self)
        packing.check(self.packing)
        if min(self.causal, self.masked) < 0 or not self.causal + self.masked > 0:
            raise ValueError(
                f"causal={self.causal} to masked={self.masked} must be parts that are not negative, and not both 0"
            )


class Objective:
    masks = ("prefix",)
    composed = False
    terms = {"hybrid": 1.0}
    standard = True

    def __init__(self, config: Config, tokenizer, length: int, mask: str = "prefix"):
        self.config, self.tokenizer, self.length, self.mask = config, tokenizer, length, mask
        self.positions = length
        # A mode without a part was never trained, so it is not asked.
        self.scores = ("causal",) * (config.causal > 0) + ("masked_next",) * (config.masked > 0)

    def plan(self, store) -> packing.Plan:
        """Documents into rows, as in clm."""
        return packing.pack(np.diff(store.document_offsets), self.length, self.config.packing)

    def example(
        self, store, plan, row: int, rng: np.random.Generator, progress: float
    ) -> dict[str, np.ndarray]:
        """tokens, segments, positions, prefix, targets int32 [T], weights float32 [T] with sum 1; is_masked, count int32 []: the mode and
        the number of targets."""
        config = self.config
        is_masked = rng.random() >= config.causal / (config.causal + config.masked)
        example = _causal.row(store, plan, row, self.length, self.tokenizer)
        prefix = np.zeros(self.length, np.int32)
        if is_masked:
            # The first token of a piece has no place before it: after a cut it is context only.
            found = masking.corrupt(
                example, self.tokenizer, rng, config, progress, example["positions"] > 0
            )
            real = found["weights"] > 0
            before = found["target_positions"][real] - 1
            example["tokens"] = found["tokens"]
            example["targets"], example["weights"] = (
                np.zeros(self.length, np.int32),
                np.zeros(self.length, np.float32),
            )
            example["targets"][before], example["weights"][before] = found["targets"][real], 1.0
            prefix = (example["segments"] > 0).astype(np.int32)
        count = example["weights"].sum()
        example["weights"] /= max(count, 1.0)
        return example | {
            "prefix": prefix,
            "is_masked": np.array(is_masked, np.int32),
            "count": np.array(count, np.int32),
        }

    def heads(self, config, scope) -> dict:
        """Nothing beyond the model's vocabulary head."""
        return {}

    def flops(self, model: type[Model], config: ModelConfig) -> int:
        """Operations of a forward pass of one row; the head runs at every position, for either mode."""
        return model.flops(config, self.length) + flops.head(config, self.length)

    def loss(self, model, batch, dropout_keys):
        """Terms and metrics, each name: (sum, weight); "targets" counts them."""
        found = token_loss.sums(model, model.states(batch, dropout_keys), batch, self.config)
        weight_B, masked_B = (
            batch["weights"].sum(1),
            batch["is_masked"].astype(batch["weights"].dtype),
        )
        metrics = {"targets": (batch["count"].sum().astype(weight_B.dtype), weight_B.sum())}
        for mode, mine_B in (("causal", 1.0 - masked_B), ("masked", masked_B)):
            metrics[f"{mode}_nll"] = ((found.nll * mine_B).sum(), (weight_B * mine_B).sum())
            metrics[f"{mode}_accuracy"] = ((found.hits * mine_B).sum(), (weight_B * mine_B).sum())
        return {"hybrid": (found.loss, weight_B.sum())}, metrics
