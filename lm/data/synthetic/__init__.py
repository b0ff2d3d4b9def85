"""Languages with exact probabilities, for the sources and tasks `recall`, `brackets`, `grammar`.

All randomness comes from uniform numbers of numpy's PCG64, so that a seed gives the same text on
any machine and with any version of numpy.
"""

from collections.abc import Iterable, Iterator

from lm.data.documents import Document, Tally


def collect(name: str, texts: Iterable[list[list[str]]], tally: Tally) -> Iterator[Document]:
    """Yields the documents of a synthetic source, unchanged.

    Short and repeated documents are not dropped, because that would change the probabilities. Equal
    texts go to the same split (`lm.data.documents.split_of`), so that no held-out document is in
    training.

    Args:
      name: the source's name, for the documents' names.
      texts: the sentences of each document, as lists of words.
      tally: counts the documents.
    """
    for number, sentences in enumerate(texts, start=1):
        document = Document(f"{name}#{number}", (tuple(map(" ".join, sentences)),))
        tally.add(document)
        yield document


def check(seed: int, documents: int) -> None:
    """Checks the seed and the number of documents.

    Args:
      seed: seed of the documents.
      documents: number of documents.

    Raises:
      ValueError: `seed` is not from 0 to 2^63 - 1, or `documents` is below 1.
    """
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed={seed} should be a whole number from 0 to 2^63 - 1")
    if documents < 1:
        raise ValueError(f"documents={documents} should be at least 1")
