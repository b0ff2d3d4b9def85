"""Sentence-order prediction: are two consecutive segments in their original order or swapped?

ALBERT (Lan et al. 2020). lm/data/pairs.py makes the pairs.
"""

from lm.objectives import _pairs

Config = _pairs.Config


class Objective(_pairs.PairObjective):
    """Sentence-order prediction."""

    terms = {"sop": 1.0}
    name, relation = "sop", "order"
