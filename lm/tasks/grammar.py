"""The distance to the best possible loss, left to right, on held-out documents of the source `grammar`: 0 nats a token is perfect.

`excess_nll` and `kl` estimate it (lm/tasks/_language.py); `legal_mass` is what a model gives to words that can come at all.
"""

from lm.data.synthetic import english
from lm.data.synthetic.grammar import Grammar
from lm.tasks import _language

Config = _language.Config


class Task(_language.LanguageTask):
    """`suits(objective)` says which models it measures; see lm/core/protocols.py."""

    source = "grammar"

    def _grammar(self) -> Grammar:
        return english.make(self.options["sentences"])
