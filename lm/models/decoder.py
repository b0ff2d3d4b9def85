"""A Transformer decoder: every token attends to its document up to itself.

Sources: Radford et al. 2019 (GPT-2); Touvron et al. 2023 (Llama).
"""

from lm.nn.config import TransformerConfig
from lm.nn.layers import Scope
from lm.nn.stack import SingleStack


class Model(SingleStack):
    """tokens → hidden states → logits, under a causal or prefix mask."""

    masks = ("causal", "prefix")

    def __init__(self, config: TransformerConfig, scope: Scope) -> None:
        super().__init__(config, scope, bidirectional=False)
