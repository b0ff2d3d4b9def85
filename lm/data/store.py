"""The token store: documents as ids in files, read at random places through memory maps."""

import collections
import concurrent.futures
import contextlib
import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Int64, Integer, UInt

from lm.core.plugins import UserError
from lm.core.protocols import Tokenizer
from lm.data import atomic_directory
from lm.data.documents import Document

_ARRAYS = {
    "document_offsets": np.int64,
    "sentence_offsets": np.int64,
    "document_sentences": np.int64,
    "paragraph_starts": np.bool_,
}
_CHUNK = 2**18  # characters that a thread encodes at once

T = TypeVar("T")
R = TypeVar("R")


class Store:
    """A directory of tokens, opened for reading. N tokens, S sentences, D documents.

    Attributes:
      directory: path of the store.
      tokens: uint16 or uint32 [N].
      document_offsets: int64 [D + 1], starts of documents in `tokens`, then N.
      sentence_offsets: int64 [S + 1], starts of sentences in `tokens`, then N.
      document_sentences: int64 [D + 1], index of the first sentence of each document, then S.
      paragraph_starts: bool [S], whether each sentence begins a paragraph.
      meta: numbers of documents, sentences, tokens, bytes (of text, as `Tokenizer.bytes_per_id`
        counts them) and unknown tokens; and the tokenizer's fingerprint.
      fingerprint: a hash of all files and the tokenizer.
    """

    tokens: UInt[np.ndarray, "N"]
    document_offsets: Int64[np.ndarray, "D+1"]
    sentence_offsets: Int64[np.ndarray, "S+1"]
    document_sentences: Int64[np.ndarray, "D+1"]
    paragraph_starts: Bool[np.ndarray, "S"]

    def __init__(self, directory: str | os.PathLike, check: bool = True):
        """Opens a store that `build` wrote.

        Args:
          directory: path of the store.
          check: whether to compare the checksums of the files.

        Raises:
          UserError: the store is missing or damaged; the message names the file, and the
            directory to delete.
        """
        self.directory = Path(directory)
        self.meta = atomic_directory.read(self.directory, check)
        self.fingerprint: str = self.meta["fingerprint"]
        # Views as plain arrays: slicing np.memmap itself takes several times as long.
        self.tokens = np.memmap(
            self.directory / "tokens.bin", np.dtype(self.meta["dtype"]), "r"
        ).view(np.ndarray)
        (
            self.document_offsets,
            self.sentence_offsets,
            self.document_sentences,
            self.paragraph_starts,
        ) = (
            np.load(self.directory / f"{name}.npy", mmap_mode="r", allow_pickle=False).view(
                np.ndarray
            )
            for name in _ARRAYS
        )

    def __reduce__(self) -> tuple:
        return Store, (self.directory, False)

    def __len__(self) -> int:
        return len(self.document_offsets) - 1

    def document(self, i: int) -> Integer[np.ndarray, "n"]:
        """The tokens of a document."""
        return self.tokens[self.document_offsets[i] : self.document_offsets[i + 1]]

    def sentence(self, i: int) -> Integer[np.ndarray, "n"]:
        """The tokens of a sentence; sentences are numbered through the store."""
        return self.tokens[self.sentence_offsets[i] : self.sentence_offsets[i + 1]]

    @property
    def names(self) -> list[str]:
        """Names of the documents, [D]."""
        return self._documents[0]

    @property
    def labels(self) -> list[str]:
        """Labels of the documents, [D]."""
        return self._documents[1]

    @functools.cached_property
    def _documents(self) -> tuple[list[str], list[str]]:
        with open(self.directory / "documents.jsonl", encoding="utf-8") as lines:
            pairs = [json.loads(line) for line in lines]
        return [name for name, _ in pairs], [label for _, label in pairs]

    def verify(self) -> None:
        """Compares the checksums of all bytes.

        Raises:
          UserError: a file is damaged.
        """
        atomic_directory.read(self.directory, full=True)


def build(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    directory: str | os.PathLike,
    workers: int = 0,
    progress: bool = False,
    total: int | None = None,
) -> Store:
    """Encodes documents into a new store, or opens the one that exists.

    Each sentence is encoded by itself. SentencePiece releases Python's lock while it encodes, so
    threads suffice: nothing is copied between processes, and a parent that runs JAX need not fork.
    Only a few chunks of text are in memory at a time, whatever the size of the corpus.

    Args:
      documents: the documents, in the store's order.
      tokenizer: encodes the documents.
      directory: path of the new store.
      workers: number of threads, which does not affect the result; 0 means one per core.
      progress: whether to show a progress bar on stderr.
      total: number of documents, for the estimate of the remaining time.

    Raises:
      UserError: there is no document, or the disk is full. Nothing is kept then.
    """
    directory = Path(directory)
    with atomic_directory.create(directory) as part:
        if part is not None:
            counts = _write(
                tracked(documents, "encoding documents", progress, total),
                tokenizer,
                part,
                workers or cores(),
            )
            if not counts["documents"]:
                raise UserError(
                    "a token store needs at least one document; the corpus, or this split of it,"
                    " is empty"
                )
            atomic_directory.commit(part, counts | {"tokenizer": tokenizer.fingerprint})
    return Store(directory)


def _write(
    documents: Iterable[Document], tokenizer: Tokenizer, directory: Path, workers: int
) -> dict[str, Any]:
    dtype = np.dtype(np.uint16 if tokenizer.size <= 2**16 else np.uint32)

    def encode(chunk: list[Document]) -> tuple[list[Document], np.ndarray, np.ndarray, int, int]:
        sentences = [
            sentence
            for document in chunk
            for paragraph in document.paragraphs
            for sentence in paragraph
        ]
        ids_N, lengths_S = tokenizer.encode_flat(sentences)
        return (
            chunk,
            ids_N.astype(dtype),
            lengths_S,
            int(tokenizer.bytes_per_id[ids_N].sum()),
            int((ids_N == tokenizer.unk).sum()),
        )

    tokens = sentences = count = text_bytes = unknown = 0
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(workers))
        out = stack.enter_context(open(directory / "tokens.bin", "wb"))
        names = stack.enter_context(open(directory / "documents.jsonl", "w", encoding="utf-8"))
        arrays = {
            name: stack.enter_context(_Column(directory / f"{name}.npy", dtype_))
            for name, dtype_ in _ARRAYS.items()
        }
        for name in ("document_offsets", "sentence_offsets", "document_sentences"):
            arrays[name].append(np.zeros(1, np.int64))
        for chunk, ids_N, lengths_S, chunk_bytes, chunk_unknown in _in_order(
            pool, encode, _chunks(documents), 2 * workers
        ):
            starts = [
                first
                for document in chunk
                for paragraph in document.paragraphs
                for first in (True, *[False] * (len(paragraph) - 1))
            ]
            # In sentences of this chunk.
            ends_D = np.cumsum([sum(map(len, document.paragraphs)) for document in chunk])
            ends_S = np.cumsum(lengths_S)
            out.write(ids_N.data)
            names.writelines(
                json.dumps([document.name, document.label], ensure_ascii=False) + "\n"
                for document in chunk
            )
            arrays["paragraph_starts"].append(np.array(starts, np.bool_))
            arrays["sentence_offsets"].append(tokens + ends_S)
            arrays["document_offsets"].append(tokens + ends_S[ends_D - 1])
            arrays["document_sentences"].append(sentences + ends_D)
            tokens, sentences, count = (
                tokens + len(ids_N),
                sentences + len(lengths_S),
                count + len(chunk),
            )
            text_bytes, unknown = text_bytes + chunk_bytes, unknown + chunk_unknown
    return {
        "dtype": dtype.name,
        "documents": count,
        "sentences": sentences,
        "tokens": tokens,
        "bytes": text_bytes,
        "unknown": unknown,
    }


def _chunks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    chunk: list[Document] = []
    size = 0
    for document in documents:
        chunk.append(document)
        size += sum(len(sentence) for paragraph in document.paragraphs for sentence in paragraph)
        if size >= _CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _in_order(
    pool: concurrent.futures.Executor, function: Callable[[T], R], items: Iterable[T], ahead: int
) -> Iterator[R]:
    """Like `pool.map`, but reads at most `ahead` items more than it has yielded results."""
    running: collections.deque[concurrent.futures.Future[R]] = collections.deque()
    try:
        for item in items:
            running.append(pool.submit(function, item))
            if len(running) > ahead:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()


class _Column:
    """An .npy file of one dimension that grows.

    NumPy leaves space in the header for the length, which is written at the end.
    """

    def __init__(self, path: Path, dtype: Any):
        self._file = open(path, "wb")
        self._dtype = np.dtype(dtype)
        self._length = 0
        self._header()

    def _header(self) -> None:
        form = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._length,),
        }
        np.lib.format.write_array_header_1_0(self._file, form)

    def append(self, values: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(values, self._dtype).data)
        self._length += len(values)

    def __enter__(self) -> "_Column":
        return self

    def __exit__(self, *error: object) -> None:
        with self._file:
            if error[0] is None:
                self._file.seek(0)
                self._header()


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def tracked(items: Iterable[T], what: str, progress: bool, total: int | None = None) -> Iterator[T]:
    """Yields items and shows a bar on stderr with the items per second and the remaining time.

    Args:
      items: the items to yield.
      what: text before the bar.
      progress: whether to show the bar.
      total: number of items, if known.
    """
    if not progress:
        yield from items
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Any) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f}/s" if speed else "")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Speed(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=sys.stderr)) as bar:
        yield from bar.track(items, total=total, description=what)
