"""Speed of building and reading a token store, compared with SentencePiece alone on the same text.

  python -m benchmarks.store [--workers=2] [--rounds=5]

Targets: reading at 1 M tokens/s per core or more; building limited by SentencePiece, so near 100 %
of its speed. The text is the default corpus, which is read on the first run and cached.
"""

import argparse
import concurrent.futures
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from lm.data import corpus, store
from lm.data.documents import Document
from lm.tokenizers.sentencepiece import Tokenizer

WINDOW = 1024


def main() -> None:
    """Prints a table for each kind of tokenizer."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument(
        "--workers", type=int, default=store.cores(), help="processes that build a store"
    )
    flags.add_argument(
        "--rounds", type=int, default=5, help="measurements of each side, alternating"
    )
    args = flags.parse_args()
    for kind in ("unigram", "bpe"):
        prepared = corpus.prepare({"source": "python_docs"}, {"kind": kind})
        train = prepared.stores["train"]
        documents = list(prepared.texts("train"))
        print(
            f"\n{kind}, {len(train.tokens):,} tokens, {args.workers} workers,"
            f" medians of {args.rounds} rounds"
        )
        sides: dict[str, Callable[[], int]] = {
            "SentencePiece alone, 1 thread": partial(encode, prepared, documents, 1),
            f"SentencePiece alone, {args.workers} threads": partial(
                encode, prepared, documents, args.workers
            ),
            "build, documents in memory": partial(build, prepared, documents, args.workers),
            "build, documents from the cached text": partial(build, prepared, None, args.workers),
            f"read random windows of {WINDOW}, 1 thread": partial(read, train),
            "read random documents, 1 thread": partial(read_documents, train),
        }
        speeds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(args.rounds):  # alternating, since the machine's speed drifts
            for name, side in sides.items():
                start = time.perf_counter()
                tokens = side()
                speeds[name].append(tokens / (time.perf_counter() - start))
        alone = speeds[f"SentencePiece alone, {args.workers} threads"]
        for name, values in speeds.items():
            fraction = statistics.median(a / b for a, b in zip(values, alone, strict=True))
            ratio = f"  {fraction:6.0%} of SentencePiece" if name.startswith("build") else ""
            print(f"  {name:<42} {statistics.median(values) / 1e6:8.2f} M tokens/s{ratio}")
        start = time.perf_counter()
        store.Store(train.directory)
        seconds = time.perf_counter() - start
        print(f"  {'open, verifying all checksums':<42} {seconds * 1e3:8.1f} ms")


def encode(prepared: corpus.Corpus, documents: list[Document], threads: int) -> int:
    """Encodes lists of sentences with SentencePiece and discards the ids."""
    assert isinstance(prepared.tokenizer, Tokenizer)
    model = prepared.tokenizer._model
    chunks = [
        [s for document in chunk for paragraph in document.paragraphs for s in paragraph]
        for chunk in store._chunks(documents)
    ]
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda chunk: len(model.encode(chunk, num_threads=1)), chunks))
    return len(prepared.stores["train"].tokens)


def build(prepared: corpus.Corpus, documents: list[Document] | None, workers: int) -> int:
    """Builds a store in a temporary folder; returns its number of tokens.

    Args:
      prepared: the corpus.
      documents: its documents; None reads them from the cache.
      workers: processes that encode.
    """
    source = prepared.texts("train") if documents is None else documents
    with tempfile.TemporaryDirectory() as directory:
        return len(
            store.build(source, prepared.tokenizer, Path(directory) / "store", workers).tokens
        )


def read(opened: store.Store, count: int = 20_000) -> int:
    """Copies windows at random positions into rows of int32, as a batch needs them."""
    starts = np.random.default_rng(0).integers(0, len(opened.tokens) - WINDOW, count).tolist()
    rows = np.empty((64, WINDOW), np.int32)
    for i, start in enumerate(starts):
        rows[i % 64] = opened.tokens[start : start + WINDOW]
    return count * WINDOW


def read_documents(opened: store.Store, count: int = 20_000) -> int:
    """Reads random documents; returns the number of tokens."""
    return sum(
        len(opened.document(i).astype(np.int32))
        for i in np.random.default_rng(0).integers(0, len(opened), count).tolist()
    )


if __name__ == "__main__":
    main()
