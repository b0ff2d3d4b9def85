"""Pieces of a unigram language model (Kudo 2018); characters without a piece become bytes."""

import os
from collections.abc import Iterable

from lm.tokenizers import _subwords, sentencepiece
from lm.tokenizers._subwords import Config as Config
from lm.tokenizers.sentencepiece import Tokenizer

# Text to learn from, in bytes per vocabulary entry. At V=4096, 3.3 MB take 4 s and give 3.39 bytes
# per token; 8 MB take 10 s and give 3.43.
_SAMPLE = 800


def train(texts: Iterable[str], config: Config) -> Tokenizer:
    """Learns a vocabulary; see `_subwords.train`."""
    return _subwords.train(texts, config, "unigram", _SAMPLE)


def load(path: str | os.PathLike, config: Config) -> Tokenizer:
    """Opens a SentencePiece model of any type."""
    return sentencepiece.load(path, config.sentinels)
