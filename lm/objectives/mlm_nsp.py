"""BERT's objective: masked tokens and next-sentence prediction on the same pairs.

Devlin et al. 2019. The two losses are added.
"""

from lm.objectives import _pairs

Config = _pairs.MaskedConfig


class Objective(_pairs.MaskedPairObjective):
    """MLM and next-sentence prediction."""

    terms = {"mlm": 1.0, "nsp": 1.0}
    name, relation = "nsp", "next"
