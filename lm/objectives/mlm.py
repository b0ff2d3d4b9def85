"""Masked language modelling: predict the hidden tokens of a document from all others (BERT, Devlin et al. 2019).

Rows are packed; each piece of a document is `[CLS] … [SEP]` and sees itself only. Masks are drawn afresh in each epoch.
The vocabulary head runs at the masked positions only.
"""

import dataclasses

import grain
import jax.numpy as jnp
import numpy as np

from lm import heads
from lm.data import masking, packing


@dataclasses.dataclass(frozen=True)
class Config:
    """Rate of masking; shares of chosen tokens that become [MASK] and a random id; most predictions a row (0: no limit);
    head "transform" (BERT's) or "plain" (the vocabulary matrix alone)."""

    rate: float = 0.15
    mask_share: float = 0.8
    random_share: float = 0.1
    max_predictions: int = 0
    head: str = "transform"

    def __post_init__(self):
        masking.check(self.rate, self.mask_share, self.random_share, self.max_predictions)
        if self.head not in ("transform", "plain"):
            raise ValueError(f"head={self.head!r} is not one of transform, plain")


class Objective:
    models = ("encoder",)
    terms = ("mlm",)
    scores = ("masked",)

    def __init__(self, config: Config, tokenizer, length: int):
        self.config, self.tokenizer, self.length = config, tokenizer, length

    def dataset(self, store, seed: int) -> grain.MapDataset:
        """One epoch of examples: tokens, segments, positions int32 [T], masked_positions, masked_targets int32 [P],
        masked_weights float32 [P]."""
        plan = packing.pack(np.diff(store.document_offsets), self.length)
        rows = grain.MapDataset.range(len(plan)).seed(seed).shuffle()
        return rows.random_map(lambda row, rng: self.example(store, plan, row, rng))

    def example(self, store, plan: packing.Plan, row: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Row `row` of the plan, with the masks that `rng` draws."""
        example = {name: np.zeros(self.length, np.int32) for name in ("tokens", "segments", "positions")}
        at = 0
        for segment, (document, start, stop) in enumerate(plan.pieces(row), 1):
            count = stop - start + packing.SPECIALS
            example["tokens"][at] = self.tokenizer.cls
            example["tokens"][at + 1 : at + count - 1] = store.document(document)[start:stop]
            example["tokens"][at + count - 1] = self.tokenizer.sep
            example["segments"][at : at + count] = segment
            example["positions"][at : at + count] = np.arange(count)
            at += count
        config = self.config
        return masking.corrupt(
            example, self.tokenizer, rng, rate=config.rate, max_predictions=config.max_predictions,
            mask_share=config.mask_share, random_share=config.random_share,
        )  # fmt: skip

    def heads(self, config, scope) -> dict:
        """BERT's masked-language head, or nothing."""
        return {"masked": heads.MaskedHead(config, scope / "masked")} if self.config.head == "transform" else {}

    def head_positions(self) -> int:
        """Positions a row at which the vocabulary head runs."""
        return masking.budget(self.length, self.config.rate, self.config.max_predictions)

    def loss(self, model, batch, key):
        """Terms and metrics, each name: (sum, weight)."""
        hidden_BTD = model.hidden(batch["tokens"], segments_BT=batch["segments"], positions_BT=batch["positions"], key=key)
        gathered_BPD = jnp.take_along_axis(hidden_BTD, batch["masked_positions"][..., None], axis=1)
        logits_BPV = model.heads["masked"](model, gathered_BPD) if "masked" in model.heads else model.logits(gathered_BPD)
        nll, hits = heads.classify(logits_BPV, batch["masked_targets"], batch["masked_weights"])
        return {"mlm": nll}, {"mlm_accuracy": hits}
