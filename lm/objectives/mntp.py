"""Masked next-token prediction: like MLM, but the masked token k + 1 is predicted at position k.

LLM2Vec (BehnamGhader et al. 2024); GPT-BERT (Charpentier and Samuel 2024). The vocabulary head thus
predicts the next token, as in a causal model, and one model can do both. Rows are laid out as
in CLM: `[BOS] … [EOS]`.
"""

import dataclasses

from lm.core import plugins
from lm.core.protocols import Tokenizer
from lm.objectives import _masked


@dataclasses.dataclass(frozen=True)
class Config(_masked.Config):
    """Options of MNTP. Extends `_masked.Config` (masking, head, format, loss)."""

    head: str = "plain"

    def __post_init__(self) -> None:
        super().__post_init__()
        if plugins.find("data.formats", self.format).PAIRS:
            raise ValueError(
                f"format={self.format!r} has pairs, which mntp does not read;"
                " give packed, doc_sentences or full_sentences"
            )


class Objective(_masked.MaskedObjective):
    """Masked next-token prediction."""

    masks = ("prefix", "bidirectional")
    terms = {"mntp": 1.0}
    scores = ("masked_next",)

    def __init__(self, config: Config, tokenizer: Tokenizer, length: int, mask: str = "prefix"):
        row_format = plugins.find("data.formats", config.format).Format(
            tokenizer, length, ends=(tokenizer.bos, tokenizer.eos)
        )
        super().__init__(
            _masked.MaskedTokens("mntp", config, tokenizer, row_format, length, mask, shift=1)
        )
