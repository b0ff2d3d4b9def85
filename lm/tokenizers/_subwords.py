"""Training of subword vocabularies by SentencePiece, for the kinds `unigram` and `bpe`."""

import collections
import dataclasses
import random
import re
from collections.abc import Iterable

from lm.core.plugins import UserError
from lm.tokenizers import sentencepiece
from lm.tokenizers.sentencepiece import Tokenizer

_FIXED = sentencepiece.SPECIALS + 256  # ids that are not learned: special ones and bytes
# Sums of floats depend on the number of threads, which must therefore not depend on the machine.
_THREADS = 4
_SEED = 0


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of the vocabulary.

    Attributes:
      vocab_size: V, number of ids, including special ids, bytes and sentinels; a loaded file has
        its own size.
      sentinels: number of sentinels <extra_id_i>.
    """

    vocab_size: int = 4096
    sentinels: int = 100

    def __post_init__(self) -> None:
        sentencepiece.check_size(self.vocab_size, self.sentinels, _FIXED, 16)


def train(texts: Iterable[str], config: Config, kind: str, bytes_per_entry: int) -> Tokenizer:
    """Learns a vocabulary from sentences. The same sentences give the same model on any machine.

    Args:
      texts: sentences, iterated over once; training uses a sample of them.
      config: options of the vocabulary.
      kind: SentencePiece's model type, "unigram" or "bpe".
      bytes_per_entry: size of the sample in bytes per vocabulary entry.

    Raises:
      UserError: there is no text, or `config.vocab_size` is too large or too small for it.
    """
    # Maximum number of characters that get a piece.
    most = (config.vocab_size - config.sentinels - _FIXED) // 2
    sample = _common(_sample(texts, bytes_per_entry * config.vocab_size), most)
    if not sample:
        raise UserError(sentencepiece.NO_TEXT)
    try:
        model = sentencepiece.learn(
            sample,
            model_type=kind,
            vocab_size=config.vocab_size - config.sentinels,
            character_coverage=_coverage(sample, most),
            byte_fallback=True,
            # Unigram: half the time on Chinese text, and as many bytes per token.
            seed_sentencepiece_size=10 * config.vocab_size,
            num_threads=_THREADS,
        )
    except RuntimeError as error:
        if limit := re.search(r"too high .*value <= (\d+)", str(error)):
            raise UserError(
                f"tokenizer.vocab_size={config.vocab_size} is too large for"
                f" {sum(map(len, sample)):,} characters of text, which give at most"
                f" {int(limit[1]) + config.sentinels}; lower tokenizer.vocab_size or give more text"
            ) from error
        if limit := re.search(r"smaller than required_chars. \d+ vs (\d+)", str(error)):
            raise UserError(
                f"tokenizer.vocab_size={config.vocab_size} has no room for the characters of this"
                f" text; it takes at least {int(limit[1]) + config.sentinels}"
            ) from error
        raise UserError(
            f"SentencePiece cannot learn a {kind} vocabulary with {config} from {len(sample):,}"
            f" sentences: {error}"
        ) from error
    return Tokenizer(model, config.sentinels)


def _sample(texts: Iterable[str], limit: int) -> list[str]:
    """A uniform sample of sentences of at most about `limit` bytes, in one pass."""
    draw = random.Random(_SEED).random
    kept: list[tuple[float, str]] = []
    fraction, total = 1.0, 0
    for text in texts:
        place = draw()
        if place >= fraction or not text:
            continue
        kept.append((place, text))
        total += len(text.encode())
        while total > 2 * limit and len(kept) > 1:
            fraction /= 2
            kept = [(place, text) for place, text in kept if place < fraction]
            total = sum(len(text.encode()) for _, text in kept)
    sample = []
    for _, text in sorted(kept):
        if limit <= 0:
            break
        sample.append(sentencepiece.escape(text))
        limit -= len(text.encode())
    return sample


def _common(sample: list[str], most: int) -> list[str]:
    """The sample, cut at rare characters if its `most` commonest ones do not cover the text.

    SentencePiece needs a coverage of 0.98. The rare characters become bytes, so that Chinese text
    fits a vocabulary smaller than its number of characters.
    """
    counts = _characters(sample)
    common = {character for character, _ in counts.most_common(most)}
    coverage = sum(counts[character] for character in common) / max(1, counts.total())
    # Nothing to cut, or nothing left to learn from: then SentencePiece's error names the size.
    if coverage >= 0.98 or coverage < 0.5:
        return sample
    cut = dict.fromkeys(map(ord, counts.keys() - common), "\n")
    return [part for text in sample for part in text.translate(cut).split("\n") if part]


def _coverage(sample: list[str], most: int) -> float:
    """Fraction of the text in its `most` commonest characters; the others become bytes.

    From 0.98, the least that SentencePiece takes, to 0.9995. Without this limit the characters of
    Chinese text leave no room for words in a small vocabulary, or do not fit at all.
    """
    counts = _characters(sample)
    coverage = sum(count for _, count in counts.most_common(most)) / counts.total()
    return min(0.9995, max(0.98, coverage))


def _characters(sample: list[str]) -> collections.Counter[str]:
    counts = collections.Counter[str]()
    for text in sample:
        counts.update(text)
    return counts
