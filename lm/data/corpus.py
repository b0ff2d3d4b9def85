"""From the `data` and `tokenizer` sections of a config to token stores, each step cached by what goes into it.

    source → documents → a split each, as JSON lines → tokenizer, from the training split → a token store for each split

The text is found again by the source's signature, which reads no text. Tokenizer and stores are found by the text's content.
"""

import collections
import contextlib
import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lm.core import plugins
from lm.core.plugins import UserError
from lm.data import committed, store
from lm.data.documents import Document, Tally, signature, split_of
from lm.tokenizers import sentencepiece
from lm.tokenizers.sentencepiece import Tokenizer, TokenizerConfig

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What the `data` section says beside the source's own options.

    Attributes:
      source: a plug-in of lm/data/sources.
      validation, test: shares of the documents, by a hash of their text.
      cache: a directory for text, tokenizers and stores; by default $LM_CACHE, or ~/.cache/lm.
      workers: threads that encode; 0 takes as many as there are cores.
    """

    source: str = "python_docs"
    validation: float = 0.05
    test: float = 0.05
    cache: str = ""
    workers: int = 0

    def __post_init__(self) -> None:
        for name in ("validation", "test"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(
                    f"{name}={getattr(self, name)} should be a share between 0 and 1: held-out text is what results are about"
                )
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation={self.validation} and test={self.test} leave nothing to train on; keep their sum below 1"
            )
        if self.workers < 0:
            raise ValueError(f"workers={self.workers} should be 0 (all cores) or more")

    @property
    def root(self) -> Path:
        """The cache directory."""
        return Path(self.cache or os.environ.get("LM_CACHE") or "~/.cache/lm").expanduser()


SHARED = frozenset(field.name for field in dataclasses.fields(DataConfig))


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Text that is ready to train on.

    Attributes:
      source: the plug-in's name.
      tokenizer: trained on the training split, or loaded.
      stores: {"train" | "validation" | "test": its token store}.
      tally: counts of what the source kept and dropped, of all splits together.
      fingerprint: a hash of the text, the splits and the tokenizer.
      directory: where the text is, one document a line, a file a split.
      options: the source's own, all of them.
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
        """What a run says about its data when it starts."""
        tally = Tally(**self.tally | {"dropped": collections.Counter(self.tally["dropped"])})
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
                f"  {split}: {count['documents']:,} documents, {count['tokens']:,} tokens{unknown}, {density:.2f} bytes/token"
            )
        return "\n".join(lines)


def prepare(
    data_section: Mapping[str, Any],
    tokenizer_section: Mapping[str, Any],
    progress: bool = True,
    skip: Container[str] = (),
) -> Corpus:
    """Reads, splits, learns a vocabulary and encodes; or finds all of that in the cache.

    Args:
      data_section: `DataConfig`'s fields and the source's options.
      tokenizer_section: `TokenizerConfig`'s fields.
      progress: show bars on stderr.
      skip: keys of the data section that belong to somebody else.

    Raises:
      UserError: an option is unknown or impossible; the corpus or a split is empty; there is too little text for the vocabulary; a cached
        file is damaged; the disk is full.
    """
    config = plugins.configure(
        DataConfig,
        {key: value for key, value in data_section.items() if key in SHARED},
        "config.data",
    )
    source = plugins.find("data.sources", config.source)
    source_keys = {
        key: value for key, value in data_section.items() if key not in SHARED and key not in skip
    }
    source_config = plugins.configure(
        source.Config, source_keys, f"config.data (source {config.source})"
    )
    tokenizer_config = plugins.configure(TokenizerConfig, tokenizer_section, "config.tokenizer")
    given = (
        sentencepiece.load(tokenizer_config.path, tokenizer_config.sentinels)
        if tokenizer_config.path
        else None
    )

    texts = _texts(config, source, source_config, progress)
    meta = committed.read(texts)
    digests = {split: meta["files"][f"{split}.jsonl"]["digest"] for split in SPLITS}
    tokens = given or _tokenizer(tokenizer_config, config.root, texts, digests["train"], progress)
    stores = {}
    for split in SPLITS:
        key = signature(
            digests[split], tokens.fingerprint, code=(store.__file__, sentencepiece.__file__)
        )
        documents = _read(texts / f"{split}.jsonl")
        total = meta["documents"][split]
        stores[split] = store.build(
            documents, tokens, config.root / "stores" / key, config.workers, progress, total
        )
    # Of the content alone: a run may go on when the code that cleans text has changed, but not this text.
    fingerprint = hashlib.blake2b(
        repr((sorted(digests.items()), tokens.fingerprint)).encode(), digest_size=16
    ).hexdigest()
    return Corpus(
        config.source,
        tokens,
        stores,
        meta["tally"],
        fingerprint,
        texts,
        dataclasses.asdict(source_config),
    )


def _texts(config: DataConfig, source: Any, source_config: Any, progress: bool) -> Path:
    """The directory of a corpus' text, three files of JSON lines; written if it is not there."""
    key = signature(
        source_config,
        source.signature(source_config),
        config.validation,
        config.test,
        code=(__file__,),
    )
    directory = config.root / "texts" / f"{config.source}-{key}"
    with committed.create(directory) as part:
        if part is not None:
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
            _refuse_empty(config, tally, counts)
            committed.seal(part, {"tally": tally.summary(), "documents": counts})
    return directory


def _refuse_empty(config: DataConfig, tally: Tally, counts: Mapping[str, int]) -> None:
    found = sum(counts.values())
    if not found:
        raise UserError(
            f"the source {config.source} gave no documents; see what was dropped, or name other text:\n{tally}"
        )
    for split, count in counts.items():
        if not count:
            shares = f"data.validation={config.validation} and data.test={config.test}"
            raise UserError(
                f"no document falls into the {split} split: there are only {found:,}, with {shares}. Give more documents, or another share"
            )


def _tokenizer(
    config: TokenizerConfig, root: Path, texts: Path, digest: str, progress: bool
) -> Tokenizer:
    """The tokenizer for a training text; learned if it is not in the cache."""
    key = signature(digest, config, code=(sentencepiece.__file__,))
    directory = root / "tokenizers" / key
    with committed.create(directory) as part:
        if part is not None:
            if progress:
                print(
                    f"learning a {config.kind} vocabulary of {config.vocab_size:,} ids",
                    file=sys.stderr,
                )
            sentencepiece.train(
                _sentences(_read(texts / "train.jsonl")), config, part / "tokenizer.model"
            )
            committed.seal(part, {})
    committed.read(directory)
    return sentencepiece.load(directory / "tokenizer.model", config.sentinels)


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
