"""Masked next-token prediction: as MLM, but the hidden token k + 1 is predicted at k (LLM2Vec, BehnamGhader et al. 2024; GPT-BERT).

So the vocabulary head means the same as in a causal model, and one model serves both modes. Rows are those of CLM: `[BOS] … [EOS]`.
"""

import dataclasses

import numpy as np

from lm import flops, lookup, prediction
from lm.objectives import _masked


@dataclasses.dataclass(frozen=True)
class Config(_masked.Config):
    """Options of masking, format, head and loss (lm/objectives/_masked.py)."""

    head: str = "plain"

    def __post_init__(self):
        super().__post_init__()
        if lookup.find("data.formats", self.format).PAIRS:
            raise ValueError(f"format={self.format!r} has pairs, which mntp does not read; give packed, doc_sentences or full_sentences")


class Objective:
    masks = ("prefix", "bidirectional")
    composed = False
    terms = {"mntp": 1.0}
    scores = ("masked_next",)

    def __init__(self, config: Config, tokenizer, length: int, mask: str = "prefix"):
        self.config, self.tokenizer, self.length, self.mask = config, tokenizer, length, mask
        self.form = lookup.find("data.formats", config.format).Format(tokenizer, length, ends=(tokenizer.bos, tokenizer.eos))
        self.masked = _masked.Masked("mntp", config, tokenizer, self.form, length, mask, shift=1)
        self.positions, self.standard = length, config.head == "plain"

    def plan(self, store):
        """The format's rows."""
        return self.form.plan(store)

    def example(self, store, plan, row: int, rng: np.random.Generator, progress: float) -> dict[str, np.ndarray]:
        """tokens, segments, positions, types int32 [T], target_positions, targets int32 [P], weights float32 [P]."""
        return self.masked.example(store, plan, row, rng, progress)

    def heads(self, config, scope) -> dict:
        """BERT's masked-language head, or nothing."""
        return self.masked.heads(config, scope)

    def flops(self, config) -> int:
        """Operations of a forward pass of one row."""
        return flops.stack(config, self.length) + self.masked.head_flops(config)

    def loss(self, model, batch, key):
        """Terms and metrics, each name: (sum, weight)."""
        return self.masked.measured(model, prediction.states(model, batch, key), batch)
