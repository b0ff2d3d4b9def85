"""Masked next-token prediction: as MLM, but the hidden token k + 1 is predicted at k (LLM2Vec, BehnamGhader et al. 2024; GPT-BERT).

So the vocabulary head means the same as in a causal model, and one model serves both modes. Rows are those of CLM: `[BOS] … [EOS]`.
"""

import dataclasses

from lm.core import plugins
from lm.objectives import _masked


@dataclasses.dataclass(frozen=True)
class Config(_masked.Config):
    """Options of masking, format, head and loss (lm/objectives/_masked.py)."""

    head: str = "plain"

    def __post_init__(self):
        super().__post_init__()
        if plugins.find("data.formats", self.format).PAIRS:
            raise ValueError(
                f"format={self.format!r} has pairs, which mntp does not read; give packed, doc_sentences or full_sentences"
            )


class Objective(_masked.MaskedObjective):
    masks = ("prefix", "bidirectional")
    terms = {"mntp": 1.0}
    scores = ("masked_next",)

    def __init__(self, config: Config, tokenizer, length: int, mask: str = "prefix"):
        self.config, self.tokenizer, self.length, self.mask = config, tokenizer, length, mask
        self.form = plugins.find("data.formats", config.format).Format(
            tokenizer, length, ends=(tokenizer.bos, tokenizer.eos)
        )
        self.masked = _masked.Masked("mntp", config, tokenizer, self.form, length, mask, shift=1)
        self.positions, self.standard = length, config.head == "plain"
