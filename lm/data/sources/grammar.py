"""Sentences of an English-like grammar with long-distance agreement and exact probabilities.

lm/data/synthetic/english.py has the rules; lm/tasks/grammar.py measures the distance to the best
possible loss; `python -m lm.minimal_pairs` writes minimal pairs. Needs tokenizer.kind=word.
"""

import dataclasses
from collections.abc import Iterator

from lm.data import synthetic
from lm.data.documents import Document, Tally
from lm.data.documents import signature as identity
from lm.data.synthetic import english, grammar


@dataclasses.dataclass(frozen=True)
class Config:
    """Parameters of the distribution, the number of documents and their seed.

    Attributes:
      sentences: mean number of sentences of a document.
      seed: seed of the draws.
      documents: number of documents.
    """

    sentences: float = 8.0
    seed: int = 0
    documents: int = 20_000

    def __post_init__(self) -> None:
        grammar.check(self.sentences)
        synthetic.check(self.seed, self.documents)


def documents(config: Config, tally: Tally) -> Iterator[Document]:
    """The documents, a pure function of the config.

    The first n documents do not depend on `documents`.
    """
    return synthetic.collect(
        "grammar",
        grammar.texts(english.make(config.sentences), english.STOP, config.seed, config.documents),
        tally,
    )


def signature(config: Config) -> str:
    """An identity of the options and the code that draws."""
    return identity(
        dataclasses.astuple(config),
        code=(__file__, synthetic.__file__, english.__file__, grammar.__file__),
    )
