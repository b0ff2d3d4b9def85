"""A Transformer encoder: every token sees its whole document (BERT, Devlin et al. 2019)."""

from lm.layers import Scope
from lm.stack import SingleStack
from lm.transformer import TransformerConfig


class Model(SingleStack):
    """tokens → hidden states → scores over the vocabulary, under a bidirectional mask."""

    masks = ("bidirectional",)

    def __init__(self, config: TransformerConfig, scope: Scope):
        super().__init__(config, scope, bidirectional=True)
