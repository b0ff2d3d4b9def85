"""Documents, and what sources do with them: collect, count, drop duplicates, split.

Sources pass raw paragraphs to a `Collector`. It cuts them into sentences, drops documents that are
too short or repeated, cuts very long ones, and counts them in a `Tally`. Only synthetic sources
(lm/data/synthetic) bypass it, because their text must stay as drawn.
"""

import ast
import collections
import dataclasses
import functools
import hashlib
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt64

from lm.core.plugins import UserError
from lm.data import text

MIN_WORDS = 10  # shorter documents give nothing to predict from
MAX_WORDS = 50_000  # longer ones are cut: a single one could fill the validation split


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """A unit of text. It belongs to one split as a whole, and attention does not cross its ends.

    Attributes:
      name: a stable identity such as "numpy.linalg.norm" or "x.md#3", without paths of the machine.
      paragraphs: sentences of each paragraph; no paragraph or sentence is empty.
      label: a class for probes to learn ("numpy"), or "".
    """

    name: str
    paragraphs: tuple[tuple[str, ...], ...]
    label: str = ""

    @property
    def text(self) -> str:
        """One sentence per line, and a blank line between paragraphs."""
        return "\n\n".join("\n".join(paragraph) for paragraph in self.paragraphs)


def split_of(document: Document, validation: float, test: float) -> str:
    """The split of a document: "train", "validation" or "test".

    The split depends only on the document's text, so that neither a new order of files nor new
    files move a document to another split.

    Args:
      document: the document.
      validation: fraction of all documents in the validation split.
      test: fraction of all documents in the test split.

    Raises:
      UserError: the fractions are negative or leave nothing to train on.
    """
    if validation < 0 or test < 0 or validation + test >= 1:
        raise UserError(
            f"validation={validation} and test={test} should be fractions of the documents: not"
            " negative, and their sum below 1"
        )
    place = (
        int.from_bytes(hashlib.blake2b(document.text.encode(), digest_size=8).digest(), "big")
        / 2**64
    )
    if place < validation:
        return "validation"
    return "test" if place < validation + test else "train"


@dataclasses.dataclass(slots=True)
class Tally:
    """Counts of what a source kept and dropped.

    Attributes:
      documents, paragraphs, sentences, words: number of each kind of item that was kept.
      bytes: UTF-8 bytes of the sentences, without spaces between them.
      cut: number of additional documents that result from cutting long ones.
      dropped: reason → count; the reason names the items ("paragraphs of under 5 words").
      labels: label → numbers of documents and words kept.
    """

    documents: int = 0
    paragraphs: int = 0
    sentences: int = 0
    words: int = 0
    bytes: int = 0
    cut: int = 0
    dropped: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    labels: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)

    def add(self, document: Document) -> None:
        """Counts a document that is kept."""
        sentences = [sentence for paragraph in document.paragraphs for sentence in paragraph]
        words = sum(map(text.count_words, sentences))
        self.documents += 1
        self.paragraphs += len(document.paragraphs)
        self.sentences += len(sentences)
        self.words += words
        self.bytes += sum(len(sentence.encode()) for sentence in sentences)
        documents, before = self.labels.get(document.label, (0, 0))
        self.labels[document.label] = (documents + 1, before + words)

    def drop(self, reason: str, count: int = 1) -> None:
        """Counts dropped items.

        Args:
          reason: kind of the dropped items, and why they are dropped.
          count: number of dropped items; 0 adds no reason.
        """
        if count:
            self.dropped[reason] += count

    def summary(self) -> dict[str, Any]:
        """The counts as values for JSON."""
        return dataclasses.asdict(self) | {"dropped": dict(self.dropped)}

    def __str__(self) -> str:
        lines = [
            f"{self.documents:,} documents, {self.paragraphs:,} paragraphs,"
            f" {self.sentences:,} sentences, {self.words:,} words, {self.bytes / 1e6:,.2f} MB"
        ]
        if self.cut:
            lines.append(f"  cut: long documents became {self.cut:,} more")
        lines += [f"  dropped: {count:,} {reason}" for reason, count in self.dropped.most_common()]
        return "\n".join(lines)


class Collector:
    """Makes documents of raw paragraphs, and counts what is kept, cut and dropped."""

    def __init__(
        self,
        tally: Tally,
        near: bool = False,
        min_words: int = MIN_WORDS,
        max_words: int = MAX_WORDS,
    ):
        """Starts a collection without documents.

        Args:
          tally: counts of kept and dropped items, updated by `collect`.
          near: whether to drop documents that repeat most of an earlier one too, at 1 kB of
            memory per document. Exact repetitions are always dropped.
          min_words: minimum number of words; shorter documents are dropped.
          max_words: maximum number of words; longer documents are cut into even pieces between
            paragraphs.
        """
        self.tally = tally
        self.min_words = min_words
        self.max_words = max_words
        self._seen: set[int] = set()
        self._near = NearDuplicates() if near else None

    def collect(
        self, name: str, paragraphs: Iterable[str], label: str = "", max_words: int = 0
    ) -> Iterator[Document]:
        """Yields the documents made of raw paragraphs: usually one, or none if it is dropped.

        Args:
          name: name of the document; pieces of a cut document are "name#1", "name#2" …
          paragraphs: raw text.
          label: label of the document.
          max_words: maximum number of words of this document; 0 means the collector's maximum.
        """
        split = [sentences for sentences in map(_readable, paragraphs) if sentences]
        words = sum(_words(paragraph) for paragraph in split)
        if words < self.min_words:
            self.tally.drop(
                "empty documents" if not words else f"documents of under {self.min_words} words"
            )
            return
        pieces = list(_cut(split, words, max_words or self.max_words))
        self.tally.cut += len(pieces) - 1
        for number, piece in enumerate(pieces, start=1):
            document = Document(
                name if len(pieces) == 1 else f"{name}#{number}", tuple(piece), label
            )
            if self._is_new(document):
                self.tally.add(document)
                yield document

    def _is_new(self, document: Document) -> bool:
        fingerprint = normalized_hash(document.text)
        if fingerprint in self._seen:
            self.tally.drop("documents seen before")
            return False
        self._seen.add(fingerprint)
        if self._near is not None and self._near.seen(document.text):
            self.tally.drop("documents that nearly repeat another")
            return False
        return True


class NearDuplicates:
    """Finds texts that have about four fifths of their word triples in common with an earlier one.

    MinHash (Broder 1997) of hashed word triples; candidates by locality-sensitive bands. No hash
    depends on the process.
    """

    ROWS, BANDS, FRACTION = 4, 12, 0.8

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self._multiply_S = generator.integers(
            1, 2**63, self.ROWS * self.BANDS, dtype=np.uint64
        ) | np.uint64(1)
        self._hashes = _Hashes()
        self._bands: dict[tuple[int, bytes], int] = {}
        self._signatures: list[np.ndarray] = []

    def seen(self, content: str) -> bool:
        """Whether an earlier text is nearly the same; otherwise remembers this one."""
        signature_S = self._signature(content)
        keys = [
            (band, part.tobytes())
            for band, part in enumerate(signature_S.reshape(self.BANDS, self.ROWS))
        ]
        for candidate in {self._bands[key] for key in keys if key in self._bands}:
            if np.mean(self._signatures[candidate] == signature_S) >= self.FRACTION:
                return True
        for key in keys:
            self._bands.setdefault(key, len(self._signatures))
        self._signatures.append(signature_S)
        return False

    def _signature(self, content: str) -> UInt64[np.ndarray, "S"]:
        """The smallest value of each random hash function over the triples."""
        words = content.lower().split()
        if len(words) < content.count("\n") + len(content) / 50:
            words = list(content)  # Chinese: characters are the words
        hashes_N = np.array(list(map(self._hashes.__getitem__, words)) or [0], np.uint64)
        if len(hashes_N) >= 3:
            hashes_N = (
                hashes_N[:-2] * np.uint64(3)
                + hashes_N[1:-1] * np.uint64(5)
                + hashes_N[2:] * np.uint64(7)
            )
        mixed_N = hashes_N ^ (hashes_N >> np.uint64(29))
        return (mixed_N[None, :] * self._multiply_S[:, None] >> np.uint64(32)).min(axis=1)


class _Hashes(dict[str, int]):
    """A hash of 64 bits per word, computed once."""

    def __missing__(self, word: str) -> int:
        self[word] = value = int.from_bytes(
            hashlib.blake2b(word.encode(), digest_size=8).digest(), "big"
        )
        return value


_PUNCTUATION = bytes(range(48)) + b":;<=>?@[\\]^_`{|}~\x7f"


def normalized_hash(content: str) -> int:
    """A hash of 64 bits that does not depend on case, spaces and ASCII punctuation."""
    letters = content.lower().encode().translate(None, _PUNCTUATION)
    return int.from_bytes(hashlib.blake2b(letters, digest_size=8).digest(), "big")


def signature(*parts: object, code: Iterable[str] = ()) -> str:
    """An identity of an input: 32 hexadecimal digits.

    It changes with the code that cleans text, but not with comments, docstrings and formatting. It
    also changes between Python versions whose syntax trees differ.

    Args:
      parts: properties of the input, such as paths, sizes and versions, compared by `repr`.
      code: the `__file__` of further modules that the text depends on.
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=16)
    for path in (__file__, text.__file__, *code):
        digest.update(_syntax(Path(path).read_bytes()))
    return digest.hexdigest()


@functools.lru_cache(maxsize=64)
def _syntax(source: bytes) -> bytes:
    """The syntax tree of a module without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                del node.body[0]
    return ast.dump(tree).encode()


def _readable(paragraph: str) -> tuple[str, ...]:
    """The sentences of a paragraph; none if it has no letter or digit ("* * *")."""
    return text.sentences(paragraph) if any(map(str.isalnum, paragraph)) else ()


def _words(paragraph: Iterable[str]) -> int:
    return sum(map(text.count_words, paragraph))


def _cut(
    paragraphs: list[tuple[str, ...]], words: int, limit: int
) -> Iterator[list[tuple[str, ...]]]:
    """Even pieces of at most about `limit` words.

    They are cut between paragraphs, or between sentences of a paragraph that is too long itself.
    """
    if words <= limit:
        yield paragraphs
        return
    target = words / math.ceil(words / limit)
    piece: list[tuple[str, ...]] = []
    done = 0.0  # words in all pieces so far
    ends = target
    for paragraph in paragraphs:
        for part in (
            [paragraph] if _words(paragraph) <= limit else [(sentence,) for sentence in paragraph]
        ):
            size = _words(part)
            if piece and done + size / 2 > ends:
                yield piece
                piece = []
                ends += target
            piece.append(part)
            done += size
    yield piece
