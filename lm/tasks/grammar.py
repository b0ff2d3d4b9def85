"""Left-to-right prediction of held-out documents of the source `grammar`.

`excess_nll` and `kl` estimate the distance to the best possible loss (lm/tasks/_language.py): 0
nats per token is perfect. `legal_mass` is the probability that a model assigns to words that can
follow.
"""

from lm.data.synthetic import english
from lm.data.synthetic.grammar import Grammar
from lm.tasks import _language

Config = _language.Config


class Task(_language.LanguageTask):
    """The distance of a causal model to the best possible loss, on a grammar of simple English."""

    source = "grammar"

    def _grammar(self) -> Grammar:
        return english.make(self.options["sentences"])
