"""Sentence-order prediction: do two consecutive segments stand in their order? (ALBERT, Lan et al. 2020; lm/data/pairs.py has the data)."""

from lm.objectives import _pairs

Config = _pairs.Config


class Objective(_pairs.PairObjective):
    terms = {"sop": 1.0}
    name, relation = "sop", "order"
