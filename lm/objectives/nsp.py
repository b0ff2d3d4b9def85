"""Next-sentence prediction: does segment B follow segment A or come from another document?

BERT (Devlin et al. 2019). lm/data/pairs.py makes the pairs.
"""

from lm.objectives import _pairs

Config = _pairs.Config


class Objective(_pairs.PairObjective):
    """Next-sentence prediction."""

    terms = {"nsp": 1.0}
    name, relation = "nsp", "next"
