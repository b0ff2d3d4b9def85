"""ALBERT's objective: masked tokens and sentence-order prediction on the same pairs.

Lan et al. 2020. The two losses are added.
"""

from lm.objectives import _pairs

Config = _pairs.MaskedConfig


class Objective(_pairs.MaskedPairObjective):
    """MLM and sentence-order prediction."""

    terms = {"mlm": 1.0, "sop": 1.0}
    name, relation = "sop", "order"
