"""One id per word between spaces, in alphabetical order and without bytes: for synthetic text."""

import dataclasses
import os
from collections.abc import Iterable

from lm.core.plugins import UserError
from lm.tokenizers import sentencepiece
from lm.tokenizers.sentencepiece import Tokenizer

_LONGEST = 512  # maximum number of bytes of a word


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of the vocabulary.

    Attributes:
      vocab_size: maximum number of ids, including special ids and sentinels; fewer words give fewer
        ids.
      sentinels: number of sentinels <extra_id_i>.
    """

    vocab_size: int = 4096
    sentinels: int = 100

    def __post_init__(self) -> None:
        sentencepiece.check_size(self.vocab_size, self.sentinels, sentencepiece.SPECIALS, 1)


def train(texts: Iterable[str], config: Config) -> Tokenizer:
    """Makes a vocabulary of all words of the texts, so that none of them is unknown.

    Args:
      texts: sentences in any order, iterated over once.
      config: options of the vocabulary.

    Raises:
      UserError: there is no text, more words than `vocab_size` allows, a word over 512 bytes, or a
        word that names a special id.
    """
    room = config.vocab_size - config.sentinels - sentencepiece.SPECIALS
    words: set[str] = set()
    for text in texts:
        words.update(sentencepiece.escape(text).split())
        if len(words) > room:
            raise UserError(
                f"tokenizer.vocab_size={config.vocab_size} has room for {room} words in addition to"
                " special ids and sentinels, and this text has more. Raise it; for natural text,"
                " which has words without end, set tokenizer.kind=unigram"
            )
    if not words:
        raise UserError(sentencepiece.NO_TEXT)
    if reserved := words & sentencepiece.RESERVED:
        raise UserError(
            f"tokenizer.kind=word cannot have {', '.join(sorted(reserved))} as words of the text:"
            " they name special ids"
        )
    if long := [word for word in words if len(word.encode()) > _LONGEST]:
        raise UserError(
            f"tokenizer.kind=word takes words of up to {_LONGEST} bytes, and this text has"
            f" {min(long)[:40]!r}…"
        )
    model = sentencepiece.learn(
        sorted(words),
        model_type="word",
        vocab_size=sentencepiece.SPECIALS + len(words),
        character_coverage=1.0,
    )
    return Tokenizer(model, config.sentinels)


def load(path: str | os.PathLike, config: Config) -> Tokenizer:
    """Opens a SentencePiece model of any type."""
    return sentencepiece.load(path, config.sentinels)
