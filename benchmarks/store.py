"""How fast a token store is built and read, beside SentencePiece alone on the same text, in the same process.

    python benchmarks/store.py [--workers=2] [--rounds=5]

Wanted: reading at 1 M tokens/s a core or more; building limited by SentencePiece, so a share near 100 % of its speed.
The text is the embedded corpus, which is read on the first run and found in the cache later.
"""

import argparse
import concurrent.futures
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lm.data import corpus, store

WINDOW = 1024


def main() -> None:
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--workers", type=int, default=store.cores())
    flags.add_argument("--rounds", type=int, default=5)
    args = flags.parse_args()
    for kind in ("unigram", "bpe"):
        prepared = corpus.prepare({"source": "python_docs"}, {"kind": kind})
        train = prepared.stores["train"]
        documents = list(prepared.texts("train"))
        print(
            f"\n{kind}, {len(train.tokens):,} tokens, {args.workers} workers, medians of {args.rounds} rounds"
        )
        sides: dict[str, Callable[[], int]] = {
            "SentencePiece alone, 1 thread": lambda p=prepared, d=documents: encode(p, d, 1),
            f"SentencePiece alone, {args.workers} threads": lambda p=prepared, d=documents: encode(
                p, d, args.workers
            ),
            "build, documents in memory": lambda p=prepared, d=documents: build(p, d, args.workers),
            "build, documents from the cached text": lambda p=prepared: build(
                p, p.texts("train"), args.workers
            ),
            f"read random windows of {WINDOW}, 1 thread": lambda s=train: read(s),
            "read random documents, 1 thread": lambda s=train: read_documents(s),
        }
        speeds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(args.rounds):  # in turn: the machine's speed changes over time
            for name, side in sides.items():
                start = time.perf_counter()
                tokens = side()
                speeds[name].append(tokens / (time.perf_counter() - start))
        alone = speeds[f"SentencePiece alone, {args.workers} threads"]
        for name, values in speeds.items():
            share = statistics.median(a / b for a, b in zip(values, alone, strict=True))
            ratio = f"  {share:6.0%} of SentencePiece" if name.startswith("build") else ""
            print(f"  {name:<42} {statistics.median(values) / 1e6:8.2f} M tokens/s{ratio}")
        start = time.perf_counter()
        store.Store(train.directory)
        print(
            f"  open, all checksums compared               {(time.perf_counter() - start) * 1e3:8.1f} ms"
        )


def encode(prepared: corpus.Corpus, documents: list, threads: int) -> int:
    """SentencePiece on lists of sentences, its results thrown away."""
    model = prepared.tokenizer._model
    chunks = [
        [s for document in chunk for paragraph in document.paragraphs for s in paragraph]
        for chunk in store._chunks(documents)
    ]
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda chunk: len(model.encode(chunk, num_threads=1)), chunks))
    return len(prepared.stores["train"].tokens)


def build(prepared: corpus.Corpus, documents, workers: int) -> int:
    with tempfile.TemporaryDirectory() as directory:
        return len(
            store.build(documents, prepared.tokenizer, Path(directory) / "store", workers).tokens
        )


def read(opened: store.Store, count: int = 20_000) -> int:
    """Copies windows at random places into rows of int32, as a batch needs them."""
    starts = np.random.default_rng(0).integers(0, len(opened.tokens) - WINDOW, count).tolist()
    rows = np.empty((64, WINDOW), np.int32)
    for i, start in enumerate(starts):
        rows[i % 64] = opened.tokens[start : start + WINDOW]
    return count * WINDOW


def read_documents(opened: store.Store, count: int = 20_000) -> int:
    return sum(
        len(opened.document(i).astype(np.int32))
        for i in np.random.default_rng(0).integers(0, len(opened), count).tolist()
    )


if __name__ == "__main__":
    main()
