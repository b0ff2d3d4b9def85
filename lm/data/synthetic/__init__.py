"""Languages whose every probability is known, behind the sources and tasks `recall`, `brackets` and `grammar`.

Chance is numpy's PCG64 read as uniform numbers alone, so that a seed gives the same text on any machine and with any version of numpy.
"""

from collections.abc import Iterable, Iterator

from lm.data.documents import Document, Tally


def collect(name: str, texts: Iterable[list[list[str]]], tally: Tally) -> Iterator[Document]:
    """Documents of a synthetic source from the words of their sentences: as they are drawn.

    Nothing is dropped for being short or for coming twice: that would change the probabilities. A text that comes twice goes to one split
    all the same (`lm.data.documents.split_of`), so held-out documents are never those of the training split.
    """
    for number, sentences in enumerate(texts, start=1):
        document = Document(f"{name}#{number}", (tuple(map(" ".join, sentences)),))
        tally.add(document)
        yield document


def check(seed: int, documents: int) -> None:
    """Refuses impossible numbers.

    Raises:
      ValueError: says which.
    """
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed={seed} should be a whole number from 0 to 2^63 - 1")
    if documents < 1:
        raise ValueError(f"documents={documents} should be at least 1")
