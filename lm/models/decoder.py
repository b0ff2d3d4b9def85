"""A Transformer decoder: every token sees its document up to itself (GPT-2, Radford et al. 2019; Llama, Touvron et al. 2023)."""

from lm.nn.config import TransformerConfig
from lm.nn.layers import Scope
from lm.nn.stack import SingleStack


class Model(SingleStack):
    """tokens → hidden states → scores over the vocabulary, under a causal mask."""

    masks = ("causal", "prefix")

    def __init__(self, config: TransformerConfig, scope: Scope):
        super().__init__(config, scope, bidirectional=False)
