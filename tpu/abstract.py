"""A config's train step as shapes only: no corpus, no tokenizer, no devices.

The shapes of a batch come from the objective's own `example` on made-up ids, so every objective
works.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from lm.core.plugins import UserError
from lm.core.protocols import Tokenizer
from lm.data.store import Store
from lm.tokenizers import config as tokenizers
from lm.tokenizers.sentencepiece import MODES, SPECIALS
from lm.training.program import Program


class FakeTokenizer:
    """A `Tokenizer` without text: special ids as in lm's tokenizers; other ids are one byte.

    Args:
      size: size of the vocabulary, V.
      sentinels: number of sentinels <extra_id_i>, at the top of the vocabulary.
    """

    pad, bos, eos, unk, cls, sep, mask = range(7)
    note = ""

    def __init__(self, size: int, sentinels: int):
        self.size = size
        self.sentinels = tuple(range(size - 1, size - 1 - sentinels, -1))
        self.modes: Mapping[str, int] = dict(zip(MODES, range(7, 10), strict=True))
        self.bytes_per_id = np.ones(size, np.int32)
        self.bytes_per_id[:SPECIALS] = 0
        self.bytes_per_id[size - sentinels :] = 0
        self.is_word_start = np.arange(size) % 3 != 0
        self.special_ids = frozenset(np.flatnonzero(self.bytes_per_id == 0).tolist())
        self.fingerprint = f"ids-{size}-{sentinels}"

    def encode(self, text: str) -> list[int]:
        raise NotImplementedError(_NO_TEXT)

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError(_NO_TEXT)

    def decode(self, ids: Iterable[int], specials: bool = False) -> str:
        raise NotImplementedError(_NO_TEXT)

    def name(self, i: int) -> str:
        return f"id{i}"

    def save(self, path: str | os.PathLike) -> None:
        raise NotImplementedError(_NO_TEXT)


_NO_TEXT = "this tokenizer has only ids, to compute shapes"


class FakeStore(Store):
    """A `Store` in memory of made-up documents of 2 to 64 sentences, two per paragraph.

    Some documents are longer than a row and some are shorter.

    Args:
      length: number of tokens per row.
      first: lowest ordinary id.
      last: exclusive upper bound of the ordinary ids.
    """

    # Plain attributes in place of Store's properties, which read files.
    names: list[str] = []  # type: ignore[assignment]
    labels: list[str] = []  # type: ignore[assignment]

    def __init__(self, length: int, first: int, last: int):
        size = max(3, length // 16)
        counts = [2, 4, 8, 64] * 8
        sentences = sum(counts)
        self.tokens = (first + np.arange(sentences * size) % (last - first)).astype(np.uint32)
        self.sentence_offsets = np.arange(sentences + 1) * size
        self.document_sentences = np.cumsum([0, *counts])
        self.document_offsets = self.sentence_offsets[self.document_sentences]
        self.paragraph_starts = np.arange(sentences) % 2 == 0
        self.names = self.labels = [""] * len(counts)


def tokenizer(section: Mapping[str, Any]) -> Tokenizer:
    """Returns the tokenizer of a config section: loaded if it has a path, otherwise a fake one.

    Args:
      section: the config's section `tokenizer`.

    Raises:
      UserError: the section is invalid, or the file cannot be read.
    """
    common, _, options = tokenizers.configure(section)
    if common.path:
        return tokenizers.load(section)
    return FakeTokenizer(options.vocab_size, options.sentinels)


def build(config: Mapping[str, Any], devices: Sequence[jax.Device]) -> Program:
    """Returns the program of a run config on these devices, which need not exist.

    Args:
      config: a run config as a dict.
      devices: devices of the mesh.

    Raises:
      UserError: the mesh does not fit the devices or the model, or does not divide the batch.
    """
    return Program(config, tokenizer(config["tokenizer"]), devices=list(devices))


def batch(program: Program, section: Mapping[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shapes and shardings of a batch, from one example of the objective.

    Args:
      program: program of the config.
      section: the config's section `tokenizer`.

    Raises:
      UserError: the objective gives no example from rows of this length.
    """
    ids = tokenizer(section)
    store = FakeStore(program.length, SPECIALS, ids.size - len(ids.sentinels))
    plan = program.objective.plan(store)
    if not len(plan):
        raise UserError(
            "config.objective gives no example from rows of"
            f" config.data.length={program.length}; raise the length"
        )
    example = program.objective.example(store, plan, 0, np.random.default_rng(0), 1.0)
    rows = program.training.batch_size
    return {
        name: jax.ShapeDtypeStruct(
            (rows, *np.shape(value)), np.asarray(value).dtype, sharding=program.batch_sharding
        )
        for name, value in example.items()
    }
