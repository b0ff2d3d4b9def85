"""A config's train step as shapes alone: no corpus, no tokenizer, no devices.

The batch's shapes come from the objective's own `example` on made-up ids, so that any objective is covered.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from lm.core.plugins import UserError
from lm.tokenizers import config as tokenizers
from lm.tokenizers.sentencepiece import MODES
from lm.training.program import Program


class Ids:
    """A tokenizer without text: `size` ids, the special ones where a tokenizer trained by lm has them, the others one byte each."""

    pad, bos, eos, unk, cls, sep, mask = range(7)

    def __init__(self, size: int, sentinels: int):
        self.size = size
        self.sentinels = tuple(range(size - 1, size - 1 - sentinels, -1))
        self.modes = dict(zip(MODES, range(7, 10), strict=True))
        self.bytes_per_id = np.ones(size, np.int32)
        self.bytes_per_id[:10] = 0
        self.bytes_per_id[size - sentinels :] = 0
        self.is_word_start = np.arange(size) % 3 != 0


class Text:
    """A store of made-up documents of 2 to 64 sentences, long and short against a row, two sentences a paragraph.

    Args:
      length: of a row. first, last: ordinary ids.
    """

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

    def __len__(self) -> int:
        return len(self.document_offsets) - 1

    def document(self, i: int) -> np.ndarray:
        return self.tokens[self.document_offsets[i] : self.document_offsets[i + 1]]

    def sentence(self, i: int) -> np.ndarray:
        return self.tokens[self.sentence_offsets[i] : self.sentence_offsets[i + 1]]


def ids(section: Mapping[str, Any]) -> Any:
    """What stands for the tokenizer of a config's section: a loaded one where the config names a file, else ids alone."""
    config, kind, options = tokenizers.configure(section)
    return (
        kind.load(config.path, options)
        if config.path
        else Ids(options.vocab_size, options.sentinels)
    )


def build(config: Mapping[str, Any], devices: Sequence[jax.Device]) -> Program:
    """The program of a plain config on these devices, which need not exist.

    Raises:
      UserError: the mesh does not fit the devices or the model, or the batch does not divide.
    """
    return Program(config, ids(config["tokenizer"]), devices=list(devices))


def batch(program: Program, section: Mapping[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and shardings of a batch, from one example of the objective.

    Args:
      section: the config's tokenizer section.
    """
    tokens = ids(section)
    store = Text(program.length, 10, tokens.size - len(tokens.sentinels))
    plan = program.objective.plan(store)
    if not len(plan):
        raise UserError(
            f"config.objective gives no example from rows of config.data.length={program.length}; raise the length"
        )
    example = program.objective.example(store, plan, 0, np.random.default_rng(0), 1.0)
    rows = program.training.batch_size
    return {
        name: jax.ShapeDtypeStruct(
            (rows, *np.shape(value)), np.asarray(value).dtype, sharding=program.batch_sharding
        )
        for name, value in example.items()
    }
