"""SentencePiece, the special ids on top of it, and the bytes of text behind every id.

A tokenizer trained here has its ids in this order: pad 0, bos 1, eos 2, unk 3, [CLS] 4, [SEP] 5, [MASK] 6, [NLU] 7, [NLG] 8,
[S2S] 9, the 256 bytes, what was learned, and at the top of the vocabulary the sentinels, <extra_id_0> the highest (T5, Raffel et al. 2020).
One of the kind "word" has every word of its training text in alphabetical order, and no bytes.
No text encodes to a special id: "[MASK]" written in a document is seven letters.
"""

import collections
import dataclasses
import hashlib
import io
import itertools
import os
import random
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from lm.core.plugins import UserError

MODES = ("[NLU]", "[NLG]", "[S2S]")
_CONTROL = ("[CLS]", "[SEP]", "[MASK]", *MODES)
_FIXED = 4 + len(_CONTROL) + 256  # ids of a trained model that are not learned
# Names under which published models keep a special piece: ALBERT, T5, XLNet, Llama.
_ALIASES = {
    "pad": ("<pad>", "[PAD]"),
    "bos": ("<s>", "[BOS]"),
    "eos": ("</s>", "[EOS]"),
    "cls": ("[CLS]", "<cls>"),
    "sep": ("[SEP]", "<sep>"),
    "mask": ("[MASK]", "<mask>"),
} | {mode: (mode,) for mode in MODES}
_SPACE = "\u2581"  # SentencePiece writes a space as this character, so that character itself needs another,
_ESCAPE = (
    "\ue581"  # from the private use area and with as many bytes in UTF-8: byte counts stay exact
)
_THREADS = 4  # sums of floats depend on how many threads train, so the number must not depend on the machine
# Text to learn from, bytes per vocabulary entry. Unigram at V=4096: 4 s and 3.39 bytes/token from 3.3 MB, 10 s and 3.43 from 8 MB.
_SAMPLE = {"unigram": 800, "bpe": 4000}
KINDS = (*_SAMPLE, "word")
_SEED = 0
_LONGEST_WORD = 512  # of the kind "word"
# Of every model trained here.
_LAYOUT: dict[str, Any] = {
    "normalization_rule_name": "identity", "remove_extra_whitespaces": False, "pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3,
    "control_symbols": list(_CONTROL), "max_sentence_length": 2**20, "minloglevel": 2,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """The `tokenizer` section.

    Attributes:
      kind: "unigram" or "bpe"; or "word", for synthetic text: each word between spaces is one id. A model loaded from `path` knows its own.
      vocab_size: all ids together, special ones and sentinels included; for "word" the most there may be. A model loaded from `path` knows
        its own.
      path: an existing SentencePiece `.model`; "" trains one on the training split.
      sentinels: how many <extra_id_i> there are.
    """

    kind: str = "unigram"
    vocab_size: int = 4096
    path: str = ""
    sentinels: int = 100

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} should be one of: {', '.join(KINDS)}")
        if self.sentinels < 0:
            raise ValueError(f"sentinels={self.sentinels} should be 0 or more")
        fixed, learned = (_FIXED - 256, 1) if self.kind == "word" else (_FIXED, 16)
        least = fixed + self.sentinels + learned
        if not least <= self.vocab_size <= 2**20:
            raise ValueError(
                f"vocab_size={self.vocab_size} should be from {least} ({fixed} special ids and bytes, {self.sentinels} sentinels, "
                f"and {learned} for learned pieces) to {2**20}"
            )


class Tokenizer:
    """Text to ids and back.

    Attributes:
      size: V, the number of ids.
      pad, bos, eos, unk, cls, sep, mask: the special ids.
      modes: the ids of "[NLU]", "[NLG]" and "[S2S]".
      sentinels: the ids of <extra_id_0>, <extra_id_1>, …, descending from V - 1.
      special_ids: all of these. `encode` yields none of them, but unk where a loaded model has no byte fallback.
      bytes_per_id: int32 [V], the bytes of UTF-8 behind an id: 0 for a special one, 1 for a single byte. Over the ids of a text they
        add up to the text's bytes and 1 for the space before it. Exact but for loaded models that rewrite the text or know no bytes.
      is_word_start: bool [V], ids that begin a word: those after a space, each Chinese or Japanese character, each special id.
      fingerprint: a hash of the model and the ids' order.
      note: what a loaded model lacks, "" if nothing.
    """

    def __init__(self, model: bytes, sentinels: int, origin: str = "the given model"):
        """Lays the ids out over a serialised SentencePiece model.

        Special ids that the model lacks follow its own; the sentinels follow those.

        Raises:
          UserError: `model` is not a SentencePiece model. `origin` names it in the message.
        """
        try:
            if not model:  # SentencePiece takes no bytes for "no model given"
                raise ValueError
            self._model = sentencepiece.SentencePieceProcessor(model_proto=model)
            learned = self._model.vocab_size()
            if not learned:  # protobuf reads many a foreign file as an empty message
                raise ValueError
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"{origin} is not a SentencePiece model; give a file that SentencePiece trained, usually *.model"
            ) from error
        self._bytes = model
        pieces = self._model.id_to_piece(list(range(learned)))
        control = {piece: i for i, piece in enumerate(pieces) if self._model.is_control(i)}

        ids = {
            "pad": self._model.pad_id(),
            "bos": self._model.bos_id(),
            "eos": self._model.eos_id(),
        }
        added: list[str] = []
        for name, aliases in _ALIASES.items():
            # Only control pieces count: a user-defined "[MASK]" is one that text can spell.
            found = (
                [ids[name]]
                if ids.get(name, -1) >= 0
                else [control[alias] for alias in aliases if alias in control]
            )
            if not found:
                found = [learned + len(added)]
                added.append(aliases[0])
            ids[name] = found[0]
        self.pad, self.bos, self.eos = ids["pad"], ids["bos"], ids["eos"]
        self.cls, self.sep, self.mask = ids["cls"], ids["sep"], ids["mask"]
        self.unk = self._model.unk_id()
        self.modes = {mode: ids[mode] for mode in MODES}
        self.size = learned + len(added) + sentinels
        self.sentinels = tuple(self.size - 1 - i for i in range(sentinels))
        self._names = pieces + added + [f"<extra_id_{i}>" for i in reversed(range(sentinels))]
        notes = (
            [f"{origin} has no {', '.join(added)}: added above its {learned:,} ids"]
            if added
            else []
        )
        if not any(map(self._model.is_byte, range(learned))):
            notes.append(
                f"{origin} has no bytes to fall back on: text it does not know becomes {pieces[self._model.unk_id()]}"
            )
        self.note = "; ".join(notes)

        self.special_ids = frozenset({self.unk, *control.values(), *range(learned, self.size)})
        self._utf8 = [
            name.encode() for name in self._names
        ]  # what an id stands for in decoded text
        self._utf8[self.unk] = " \u2047 ".encode()
        self.is_word_start = np.ones(self.size, np.bool_)
        for i in set(range(learned)) - self.special_ids:
            piece = pieces[i]
            if self._model.is_byte(i):
                byte = int(piece[1:-1], 16)  # "<0xE4>"
                self._utf8[i] = bytes([byte])
                # The first byte of U+3000–9FFF or of what lies above U+FFFF: Chinese, Japanese, emoji.
                self.is_word_start[i] = 0xE3 <= byte <= 0xE9 or byte >= 0xF0
            else:
                self._utf8[i] = piece.replace(_SPACE, " ").encode()
                self.is_word_start[i] = (
                    piece[0] == _SPACE or unicodedata.east_asian_width(piece[0]) in "WF"
                )
        self.bytes_per_id = np.array(
            [0 if i in self.special_ids else len(utf8) for i, utf8 in enumerate(self._utf8)],
            np.int32,
        )
        self.bytes_per_id.flags.writeable = False
        self.is_word_start.flags.writeable = False
        # The space before a sentence is in its first piece; a model that adds none is given one.
        self._space = "" if _SPACE in "".join(self._model.encode("a", out_type=str)) else " "
        self.fingerprint = hashlib.blake2b(
            model + f"|{added}|{sentinels}".encode(), digest_size=16
        ).hexdigest()

    def __reduce__(self) -> tuple:
        return Tokenizer, (self._bytes, len(self.sentinels))

    def _escape(self, text: str) -> str:
        return self._space + (text.replace(_SPACE, _ESCAPE) if _SPACE in text else text)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, and of the space before it; no special ids. An empty text has none."""
        return self._model.encode(self._escape(text)) if text else []

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text."""
        parts = self._model.encode([self._escape(text) for text in texts], num_threads=1)
        if self._space:  # an empty text has become a space
            parts = [part if text else [] for part, text in zip(parts, texts, strict=True)]
        return parts

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """`encode` of each text, joined: (ids int32 [N], the number of ids of each text int64 [len(texts)]).

        It holds Python's lock only while it collects the results, so threads that call it run side by side.
        """
        parts = self.encode_batch(texts)
        lengths = np.fromiter(map(len, parts), np.int64, len(parts))
        return np.fromiter(
            itertools.chain.from_iterable(parts), np.int32, int(lengths.sum())
        ), lengths

    def decode(self, ids: Iterable[int], specials: bool = False) -> str:
        """The text of the ids, without the space before the first; special ids are left out, or written by name; unk is "⁇".

        Raises:
          ValueError: an id below 0 or from V.
        """
        parts = []
        for i in map(int, ids):
            if not 0 <= i < self.size:
                raise ValueError(f"id {i} should be from 0 to {self.size - 1}")
            if specials or i == self.unk or i not in self.special_ids:
                parts.append(self._utf8[i])
        # Not by SentencePiece: it knows only its own ids, and bytes cut off in the middle of a character must not fail.
        return b"".join(parts).decode(errors="replace").replace(_ESCAPE, _SPACE).removeprefix(" ")

    def name(self, i: int) -> str:
        """How an id is written: "▁the", "[MASK]", "<extra_id_3>"."""
        return self._names[i]

    def save(self, path: str | os.PathLike) -> None:
        """Writes the SentencePiece model. `load` with as many sentinels gives the same tokenizer. Atomic."""
        path = Path(path)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            part.write_bytes(self._bytes)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def load(path: str | os.PathLike, sentinels: int = 100) -> Tokenizer:
    """The tokenizer of an existing SentencePiece `.model`, trained here or elsewhere (T5, ALBERT, Llama …).

    Raises:
      UserError: there is no such file, or it is not a SentencePiece model.
    """
    try:
        model = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise UserError(
            f"tokenizer.path={str(path)!r} cannot be read ({error.strerror}); give a SentencePiece .model"
        ) from error
    return Tokenizer(model, sentinels, origin=str(path))


def train(
    texts: Iterable[str], config: TokenizerConfig, path: str | os.PathLike | None = None
) -> Tokenizer:
    """Learns a vocabulary from sentences. The same sentences give the same model on any machine.

    Args:
      texts: sentences; they are passed through once, and a sample in proportion to the vocabulary is kept.
      config: its `path` is ignored.
      path: where to save the model, if anywhere.

    Raises:
      UserError: there is no text, too little for this vocabulary, or, for "word", more words than it has room for. Nothing is written
        then.
    """
    if config.kind == "word":
        return _saved(_train_words(texts, config), path)
    sample = _common(
        _sample(texts, _SAMPLE[config.kind] * config.vocab_size),
        (config.vocab_size - config.sentinels - _FIXED) // 2,
    )
    if not sample:
        raise UserError("there is no text to train a tokenizer on; the training split is empty")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sample),
            model_writer=model,
            model_type=config.kind,
            vocab_size=config.vocab_size - config.sentinels,
            character_coverage=_coverage(
                sample, (config.vocab_size - config.sentinels - _FIXED) // 2
            ),
            byte_fallback=True,
            seed_sentencepiece_size=10
            * config.vocab_size,  # unigram: half the time on Chinese, and as many bytes/token
            num_threads=_THREADS,
            **_LAYOUT,
        )
    except RuntimeError as error:
        if most := re.search(r"too high .*value <= (\d+)", str(error)):
            raise UserError(
                f"tokenizer.vocab_size={config.vocab_size} is too large for {sum(map(len, sample)):,} characters of text, which give "
                f"at most {int(most[1]) + config.sentinels}; lower tokenizer.vocab_size or give more text"
            ) from error
        if least := re.search(r"smaller than required_chars. \d+ vs (\d+)", str(error)):
            raise UserError(
                f"tokenizer.vocab_size={config.vocab_size} has no room for the characters of this text; "
                f"it takes at least {int(least[1]) + config.sentinels}"
            ) from error
        raise UserError(
            f"SentencePiece cannot learn {config} from {len(sample):,} sentences: {error}"
        ) from error
    return _saved(Tokenizer(model.getvalue(), config.sentinels), path)


def _saved(tokenizer: Tokenizer, path: str | os.PathLike | None) -> Tokenizer:
    if path is not None:
        tokenizer.save(path)
    return tokenizer


def _train_words(texts: Iterable[str], config: TokenizerConfig) -> Tokenizer:
    """A model whose pieces are the words of the text, each once: no word of it may be unknown, so nothing is sampled."""
    room = config.vocab_size - config.sentinels - (_FIXED - 256)
    words: set[str] = set()
    for text in texts:
        words.update(text.replace(_SPACE, _ESCAPE).split())
        if len(words) > room:
            raise UserError(
                f"tokenizer.vocab_size={config.vocab_size} has room for {room} words besides special ids and sentinels, and this text has "
                "more. Raise it; for natural text, set tokenizer.kind=unigram, as words without end are what pieces are for"
            )
    if not words:
        raise UserError("there is no text to train a tokenizer on; the training split is empty")
    if reserved := words & {*_CONTROL, *(names[0] for names in _ALIASES.values()), "<unk>"}:
        raise UserError(
            f"tokenizer.kind=word cannot have {', '.join(sorted(reserved))} as words of the text: they name special ids"
        )
    if long := [word for word in words if len(word.encode()) > _LONGEST_WORD]:
        raise UserError(
            f"tokenizer.kind=word takes words of up to {_LONGEST_WORD} bytes, and this text has {min(long)[:40]!r}…"
        )
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sorted(words)),
        model_writer=model,
        model_type="word",
        vocab_size=config.vocab_size - config.sentinels - room + len(words),
        character_coverage=1.0,
        **_LAYOUT,
    )
    return Tokenizer(model.getvalue(), config.sentinels)


def _sample(texts: Iterable[str], limit: int) -> list[str]:
    """Sentences of at most about `limit` bytes, each as likely as any other, in one pass and bounded memory."""
    draw = random.Random(_SEED).random
    kept: list[tuple[float, str]] = []
    share, total = 1.0, 0
    for text in texts:
        place = draw()
        if place >= share or not text:
            continue
        kept.append((place, text))
        total += len(text.encode())
        while total > 2 * limit and len(kept) > 1:
            share /= 2
            kept = [(place, text) for place, text in kept if place < share]
            total = sum(len(text.encode()) for _, text in kept)
    sample = []
    for _, text in sorted(kept):
        if limit <= 0:
            break
        sample.append(text.replace(_SPACE, _ESCAPE))
        limit -= len(text.encode())
    return sample


def _common(sample: list[str], most: int) -> list[str]:
    """The sample, cut at characters that are not among its `most` commonest where these make up less than SentencePiece's least share.

    Those become bytes; so Chinese text fits a vocabulary that has not even room for its characters.
    """
    counts = collections.Counter[str]()
    for text in sample:
        counts.update(text)
    common = {character for character, _ in counts.most_common(most)}
    share = sum(counts[character] for character in common) / max(1, counts.total())
    if (
        share >= 0.98 or share < 0.5
    ):  # nothing to cut, or nothing left to learn from: SentencePiece then says what it needs
        return sample
    cut = dict.fromkeys(map(ord, counts.keys() - common), "\n")
    return [part for text in sample for part in text.translate(cut).split("\n") if part]


def _coverage(sample: list[str], most: int) -> float:
    """The share of the text that its `most` commonest characters make up; the other characters become bytes.

    From .98, the least that SentencePiece takes, to .9995. Without this the characters of Chinese text leave no room for words
    in a small vocabulary, or do not fit at all.
    """
    counts = collections.Counter[str]()
    for text in sample:
        counts.update(text)
    share = sum(count for _, count in counts.most_common(most)) / counts.total()
    return min(0.9995, max(0.98, share))
