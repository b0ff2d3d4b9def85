"""Nested brackets of several kinds to a bounded depth, with an exact entropy: Dyck-(k, m).

lm/data/synthetic/brackets.py defines the distribution (Hewitt et al. 2020); lm/tasks/brackets.py
measures it. Needs tokenizer.kind=word.
"""

import dataclasses
from collections.abc import Iterator

from lm.data import synthetic
from lm.data.documents import Document, Tally
from lm.data.documents import signature as identity
from lm.data.synthetic import brackets, grammar


@dataclasses.dataclass(frozen=True)
class Config(brackets.Options):
    """`brackets.Options`, the number of documents and their seed.

    Attributes:
      seed: seed of the draws.
      documents: number of documents.
    """

    seed: int = 0
    documents: int = 20_000

    def __post_init__(self) -> None:
        super().__post_init__()
        synthetic.check(self.seed, self.documents)


def documents(config: Config, tally: Tally) -> Iterator[Document]:
    """The documents, a pure function of the config.

    The first n documents do not depend on `documents`.
    """
    return synthetic.collect(
        "brackets",
        grammar.texts(brackets.make(config), brackets.STOP, config.seed, config.documents),
        tally,
    )


def signature(config: Config) -> str:
    """An identity of the options and the code that draws."""
    return identity(
        dataclasses.astuple(config),
        code=(__file__, synthetic.__file__, brackets.__file__, grammar.__file__),
    )
