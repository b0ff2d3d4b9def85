"""From the `data` and `tokenizer` sections of a config to token stores. Each step is cached.

    source → documents → a JSON lines file per split
    training split → tokenizer
    split and tokenizer → token store

The cache key of the text is the source's signature, which reads no text. The keys of tokenizer and
stores are hashes of the text's content.
"""

import collections
import contextlib
import dataclasses
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lm.core import plugins
from lm.core.plugins import UserError
from lm.core.protocols import Source, Tokenizer, TokenizerKind
from lm.data import atomic_directory, store
from lm.data.documents import Document, Tally, signature, split_of
from lm.tokenizers import config as tokenizers

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Fields of the `data` section common to all sources; a source's `Config` has the others.

    Attributes:
      source: a plug-in of lm/data/sources.
      length: number of tokens in a row; it does not affect the prepared files.
      validation, test: fractions of the documents in each split, selected by a hash of their text.
      cache: directory of text, tokenizers and stores; "" means $LM_CACHE if set, else
        ~/.cache/lm.
      workers: number of encoding threads; 0 means one per core.
    """

    source: str = "python_docs"
    length: int = 128
    validation: float = 0.05
    test: float = 0.05
    cache: str = ""
    workers: int = 0

    def __post_init__(self) -> None:
        for name in ("validation", "test"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(
                    f"{name}={getattr(self, name)} should be a fraction between 0 and 1: results"
                    " are measured on held-out text"
                )
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation={self.validation} and test={self.test} leave nothing to train on; keep"
                " their sum below 1"
            )
        if self.workers < 0:
            raise ValueError(f"workers={self.workers} should be 0 (all cores) or more")

    @property
    def root(self) -> Path:
        """The cache directory."""
        return Path(self.cache or os.environ.get("LM_CACHE") or "~/.cache/lm").expanduser()


FIELDS = frozenset(field.name for field in dataclasses.fields(DataConfig))


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Text that is ready to train on.

    Attributes:
      source: name of the source.
      tokenizer: the tokenizer, either trained on the training split or loaded.
      stores: a token store for each of SPLITS.
      tally: counts of what the source kept and dropped, over all splits.
      fingerprint: a hash of the text, the splits and the tokenizer.
      directory: directory of the text, with one file per split and one document per line.
      options: all options of the source.
    """

    source: str
    tokenizer: Tokenizer
    stores: dict[str, store.Store]
    tally: dict[str, Any]
    fingerprint: str
    directory: Path
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def texts(self, split: str) -> Iterator[Document]:
        """The documents of a split, in the order of its store."""
        return _read(self.directory / f"{split}.jsonl")

    def describe(self) -> str:
        """Sizes of the corpus, its vocabulary and its splits, printed at the start of a run."""
        # JSON has neither counters nor tuples.
        tally = Tally(
            **self.tally
            | {
                "dropped": collections.Counter(self.tally["dropped"]),
                "labels": {label: tuple(pair) for label, pair in self.tally["labels"].items()},
            }
        )
        lines = [
            f"{self.source}: {tally}",
            f"  tokenizer: {self.tokenizer.size:,} ids ({self.tokenizer.fingerprint[:8]})",
        ]
        lines += [f"  {self.tokenizer.note}"] * bool(self.tokenizer.note)
        for split, part in self.stores.items():
            count = part.meta
            unknown = f", {count['unknown']:,} of them unknown" * bool(count["unknown"])
            density = count["bytes"] / count["tokens"]
            lines.append(
                f"  {split}: {count['documents']:,} documents, {count['tokens']:,} tokens{unknown},"
                f" {density:.2f} bytes/token"
            )
        return "\n".join(lines)


def prepare(
    data_section: Mapping[str, Any], tokenizer_section: Mapping[str, Any], progress: bool = True
) -> Corpus:
    """Reads, splits and encodes the text, or opens the results that an earlier call cached.

    Args:
      data_section: `DataConfig`'s fields and the source's options.
      tokenizer_section: `TokenizerConfig`'s fields and the kind's options.
      progress: show progress bars on stderr.

    Raises:
      UserError: an option is unknown or impossible; the corpus or a split is empty; there is too
        little text for the vocabulary; a cached file is damaged; the disk is full.
    """
    common = {key: value for key, value in data_section.items() if key in FIELDS}
    config = plugins.configure(DataConfig, common, "config.data")
    source: Any = plugins.find("data.sources", config.source)
    own = {key: value for key, value in data_section.items() if key not in FIELDS}
    source_config = plugins.configure(source.Config, own, f"config.data (source {config.source})")
    tokenizer_config, kind, options = tokenizers.configure(tokenizer_section)
    loaded = kind.load(tokenizer_config.path, options) if tokenizer_config.path else None

    texts = _texts(config, source, source_config, progress)
    meta = atomic_directory.read(texts)
    digests = {split: meta["files"][f"{split}.jsonl"]["digest"] for split in SPLITS}
    code = tokenizers.code(tokenizer_config.kind)
    if loaded is None:
        key = signature(digests["train"], tokenizer_config.kind, options, code=code)
        directory = config.root / "tokenizers" / key
        tokenizer = _tokenizer(tokenizer_config.kind, kind, options, directory, texts, progress)
    else:
        tokenizer = loaded
    stores = {}
    for split in SPLITS:
        key = signature(digests[split], tokenizer.fingerprint, code=(store.__file__, *code))
        stores[split] = store.build(
            _read(texts / f"{split}.jsonl"),
            tokenizer,
            config.root / "stores" / key,
            config.workers,
            progress,
            meta["documents"][split],
        )
    # A hash of the content alone. A run continues after a change of the code that cleans text,
    # if the text is the same.
    fingerprint = hashlib.blake2b(
        repr((sorted(digests.items()), tokenizer.fingerprint)).encode(), digest_size=16
    ).hexdigest()
    return Corpus(
        config.source,
        tokenizer,
        stores,
        meta["tally"],
        fingerprint,
        texts,
        dataclasses.asdict(source_config),
    )


def _texts(config: DataConfig, source: Source, source_config: Any, progress: bool) -> Path:
    """The directory of the text, a file of JSON lines per split; written unless it exists."""
    key = signature(
        source_config,
        source.signature(source_config),
        config.validation,
        config.test,
        code=(__file__,),
    )
    directory = config.root / "texts" / f"{config.source}-{key}"
    with atomic_directory.create(directory) as part:
        if part is not None:
            if progress and _others(directory):
                print(
                    f"the cache has text of the source {config.source}, but it was read from other"
                    " files, with other options or by another version of lm; reading it again",
                    file=sys.stderr,
                )
            tally = Tally()
            counts = dict.fromkeys(SPLITS, 0)
            with contextlib.ExitStack() as stack:
                files = {
                    split: stack.enter_context(open(part / f"{split}.jsonl", "w", encoding="utf-8"))
                    for split in SPLITS
                }
                for document in store.tracked(
                    source.documents(source_config, tally), f"reading {config.source}", progress
                ):
                    split = split_of(document, config.validation, config.test)
                    counts[split] += 1
                    files[split].write(
                        json.dumps(dataclasses.asdict(document), ensure_ascii=False) + "\n"
                    )
            _check_splits(config, tally, counts)
            atomic_directory.commit(part, {"tally": tally.summary(), "documents": counts})
    return directory


def _others(directory: Path) -> bool:
    """Whether the cache has text of the same source under another key."""
    source, _, _ = directory.name.rpartition("-")
    name = re.compile(rf"{re.escape(source)}-[0-9a-f]{{32}}")
    return any(name.fullmatch(path.name) for path in directory.parent.iterdir())


def _check_splits(config: DataConfig, tally: Tally, counts: Mapping[str, int]) -> None:
    """Raises UserError if the corpus or a split is empty."""
    documents = sum(counts.values())
    if not documents:
        raise UserError(
            f"the source {config.source} gave no documents; give other text. Dropped:\n{tally}"
        )
    for split, count in counts.items():
        if not count:
            raise UserError(
                f"no document falls into the {split} split: there are only {documents:,}, with"
                f" data.validation={config.validation} and data.test={config.test}. Give more"
                " documents, or other fractions"
            )


def _tokenizer(
    name: str, kind: TokenizerKind, options: Any, directory: Path, texts: Path, progress: bool
) -> Tokenizer:
    """The tokenizer of the training text; trained unless `directory` exists."""
    with atomic_directory.create(directory) as part:
        if part is not None:
            if progress:
                print(f"learning a {name} vocabulary: {options}", file=sys.stderr)
            sentences = _sentences(_read(texts / "train.jsonl"))
            kind.train(sentences, options).save(part / "tokenizer.model")
            atomic_directory.commit(part, {})
    atomic_directory.read(directory)
    return kind.load(directory / "tokenizer.model", options)


def _sentences(documents: Iterable[Document]) -> Iterator[str]:
    return (
        sentence
        for document in documents
        for paragraph in document.paragraphs
        for sentence in paragraph
    )


def _read(path: Path) -> Iterator[Document]:
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            fields = json.loads(line)
            yield Document(fields["name"], tuple(map(tuple, fields["paragraphs"])), fields["label"])
