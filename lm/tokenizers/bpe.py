"""Pieces by byte-pair encoding (Sennrich et al. 2016); characters without a piece become bytes."""

import os
from collections.abc import Iterable

from lm.tokenizers import _subwords, sentencepiece
from lm.tokenizers._subwords import Config as Config
from lm.tokenizers.sentencepiece import Tokenizer

_SAMPLE = 4000  # text to learn from, in bytes per vocabulary entry


def train(texts: Iterable[str], config: Config) -> Tokenizer:
    """Learns a vocabulary; see `_subwords.train`."""
    return _subwords.train(texts, config, "bpe", _SAMPLE)


def load(path: str | os.PathLike, config: Config) -> Tokenizer:
    """Opens a SentencePiece model of any type."""
    return sentencepiece.load(path, config.sentinels)
