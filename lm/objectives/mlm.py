"""Masked language modeling: predicts masked tokens from the text on both sides.

BERT (Devlin et al. 2019). By default rows are packed: each piece of a document is `[CLS] … [SEP]`
and attends only to itself. Masks are drawn anew in each epoch. The vocabulary head runs at the
masked positions only. On a decoder, the whole row is the prefix, so that each token attends to
both sides.

The loss is `_masked.MaskedTokens.loss`: cross-entropy at the masked positions
(lm/nn/token_loss.py).
"""

import dataclasses

from lm.core import plugins
from lm.core.protocols import Tokenizer
from lm.data import pairs
from lm.objectives import _masked


@dataclasses.dataclass(frozen=True)
class Config(_masked.Config):
    """Options of MLM. Extends `_masked.Config` (masking, head, format, loss).

    Attributes:
      question: relation of the segments in formats of pairs, "next" or "order" (lm/data/pairs.py);
        MLM has no loss on this relation.
    """

    question: str = "next"

    def __post_init__(self) -> None:
        super().__post_init__()
        plugins.choice("question", self.question, pairs.RELATIONS)


class Objective(_masked.MaskedObjective):
    """Masked language modeling."""

    masks = ("bidirectional", "prefix")
    terms = {"mlm": 1.0}
    scores = ("masked",)

    def __init__(
        self, config: Config, tokenizer: Tokenizer, length: int, mask: str = "bidirectional"
    ):
        row_format = plugins.find("data.formats", config.format).Format(
            tokenizer, length, config.question
        )
        super().__init__(_masked.MaskedTokens("mlm", config, tokenizer, row_format, length, mask))
