"""Masked language modelling: predict the hidden tokens of a text from all others (BERT, Devlin et al. 2019).

By default rows are packed; each piece of a document is `[CLS] … [SEP]` and sees itself only. Masks are drawn afresh in each epoch.
The vocabulary head runs at the masked positions only. On a decoder the whole row is a prefix, so that it sees both sides too.
"""

import dataclasses

from lm.core import plugins
from lm.objectives import _masked


@dataclasses.dataclass(frozen=True)
class Config(_masked.Config):
    """Options of masking, format, head and loss (lm/objectives/_masked.py).

    Attributes:
      question: for formats of pairs, where half of them are wrong: "next" or "order". There is no loss on it here.
    """

    question: str = "next"

    def __post_init__(self):
        super().__post_init__()
        plugins.choice("question", self.question, ("next", "order"))


class Objective(_masked.MaskedObjective):
    masks = ("bidirectional", "prefix")
    terms = {"mlm": 1.0}
    scores = ("masked",)

    def __init__(self, config: Config, tokenizer, length: int, mask: str = "bidirectional"):
        self.config, self.tokenizer, self.length, self.mask = config, tokenizer, length, mask
        self.form = plugins.find("data.formats", config.format).Format(
            tokenizer, length, config.question
        )
        self.masked = _masked.Masked("mlm", config, tokenizer, self.form, length, mask)
        self.positions, self.standard = length, config.head == "plain"
