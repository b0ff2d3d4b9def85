"""Next-sentence prediction: does segment B follow segment A? (BERT, Devlin et al. 2019; lm/data/pairs.py has the data)."""

from lm.objectives import _pairs

Config = _pairs.Config


class Objective(_pairs.PairObjective):
    terms = {"nsp": 1.0}
    name, relation = "nsp", "next"
