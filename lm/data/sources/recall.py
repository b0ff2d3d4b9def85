"""Associative recall, MQAR (Arora et al. 2023): key-value pairs, then queries for some of them.

A document is one sequence of 2 · (pairs + slots) symbols. For rows that hold it uncut, data.length
is at least two more, for [BOS] and [EOS]. lm/data/synthetic/recall.py defines the distribution;
lm/tasks/recall.py measures it. Needs tokenizer.kind=word.
"""

import dataclasses
from collections.abc import Iterator

from lm.data import synthetic
from lm.data.documents import Document, Tally
from lm.data.documents import signature as identity
from lm.data.synthetic import recall


@dataclasses.dataclass(frozen=True)
class Config(recall.Options):
    """`recall.Options`, the number of documents and their seed.

    Attributes:
      seed: seed of the draws.
      documents: number of documents.
    """

    seed: int = 0
    documents: int = 30_000

    def __post_init__(self) -> None:
        super().__post_init__()
        synthetic.check(self.seed, self.documents)


def documents(config: Config, tally: Tally) -> Iterator[Document]:
    """The documents, a pure function of the config.

    The first n documents do not depend on `documents`.
    """
    texts = recall.draw(config, config.seed, config.documents)
    return synthetic.collect("recall", ([text] for text in texts), tally)


def signature(config: Config) -> str:
    """An identity of the options and the code that draws."""
    return identity(
        dataclasses.astuple(config), code=(__file__, synthetic.__file__, recall.__file__)
    )
