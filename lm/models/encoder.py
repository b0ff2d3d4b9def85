"""A Transformer encoder: every token attends to its whole document.

Source: Devlin et al. 2019 (BERT).
"""

from lm.nn.config import TransformerConfig
from lm.nn.layers import Scope
from lm.nn.stack import SingleStack


class Model(SingleStack):
    """tokens → hidden states → logits, under a bidirectional mask."""

    masks = ("bidirectional",)

    def __init__(self, config: TransformerConfig, scope: Scope) -> None:
        super().__init__(config, scope, bidirectional=True)
