"""SentencePiece models as tokenizers: special ids, and the bytes of text behind every id.

A model that lm trains has its ids in this order: pad 0, bos 1, eos 2, unk 3, [CLS] 4, [SEP] 5,
[MASK] 6, [NLU] 7, [NLG] 8, [S2S] 9, the 256 bytes, the learned pieces, and at the top of the
vocabulary the sentinels, with <extra_id_0> the highest (T5, Raffel et al. 2020). A "word" model has
no bytes. No text encodes to a special id: "[MASK]" written in a document is seven characters.
"""

import hashlib
import io
import itertools
import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32, Int64

from lm.core import files
from lm.core.plugins import UserError

MODES = ("[NLU]", "[NLG]", "[S2S]")
_CONTROL = ("[CLS]", "[SEP]", "[MASK]", *MODES)
SPECIALS = 4 + len(_CONTROL)  # special ids of a model that lm trains, without sentinels
# Names of special pieces in published models: ALBERT, T5, XLNet, Llama.
_ALIASES = {
    "pad": ("<pad>", "[PAD]"),
    "bos": ("<s>", "[BOS]"),
    "eos": ("</s>", "[EOS]"),
    "cls": ("[CLS]", "<cls>"),
    "sep": ("[SEP]", "<sep>"),
    "mask": ("[MASK]", "<mask>"),
} | {mode: (mode,) for mode in MODES}
# Names of special ids, which cannot be pieces.
RESERVED = frozenset({*_CONTROL, *(names[0] for names in _ALIASES.values()), "<unk>"})
# SentencePiece writes a space as _SPACE. That character in a text is written as _ESCAPE, from the
# private use area; both have three bytes in UTF-8, so that byte counts stay exact.
_SPACE, _ESCAPE = "\u2581", "\ue581"
# Options of every training.
_LAYOUT: dict[str, Any] = {
    "normalization_rule_name": "identity", "remove_extra_whitespaces": False, "pad_id": 0,
    "bos_id": 1, "eos_id": 2, "unk_id": 3, "control_symbols": list(_CONTROL),
    "max_sentence_length": 2**20, "minloglevel": 2,
}  # fmt: skip
_MOST_IDS = 2**20

NO_TEXT = "there is no text to train a tokenizer on; the training split is empty"


def check_size(vocab_size: int, sentinels: int, fixed: int, learned: int) -> None:
    """Checks the size of a vocabulary.

    Args:
      vocab_size: total number of ids.
      sentinels: number of sentinels among them.
      fixed: number of special ids and bytes among them.
      learned: minimum number of pieces to learn.

    Raises:
      ValueError: `sentinels` is negative, or `vocab_size` is too small for the other numbers or too
        large; the message gives the limits.
    """
    if sentinels < 0:
        raise ValueError(f"sentinels={sentinels} should be 0 or more")
    least = fixed + sentinels + learned
    if not least <= vocab_size <= _MOST_IDS:
        raise ValueError(
            f"vocab_size={vocab_size} should be from {least} ({fixed} special ids and bytes,"
            f" {sentinels} sentinels, and {learned} for learned pieces) to {_MOST_IDS}"
        )


def escape(text: str) -> str:
    """Replaces the character that SentencePiece writes for a space."""
    return text.replace(_SPACE, _ESCAPE)


def learn(sentences: Iterable[str], **options: Any) -> bytes:
    """Trains a SentencePiece model with lm's layout of special ids.

    Args:
      sentences: sentences as from `escape`.
      **options: further options of SentencePieceTrainer.

    Returns:
      The serialized model.

    Raises:
      RuntimeError: SentencePiece's own errors.
    """
    import sentencepiece  # here, so that importing a kind for its options stays cheap

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=model, **options, **_LAYOUT
    )
    return model.getvalue()


class Tokenizer:
    """A SentencePiece model and special ids on top of it. V is the number of ids.

    Attributes:
      size: V, the number of ids.
      pad, bos, eos, unk, cls, sep, mask: special ids.
      modes: ids of "[NLU]", "[NLG]" and "[S2S]".
      sentinels: ids of <extra_id_0>, <extra_id_1>, …, descending from V - 1.
      special_ids: all special ids. No text encodes to a special id, except to unk in a loaded
        model without byte fallback.
      bytes_per_id: int32 [V], bytes of UTF-8 text behind each id: 0 for special ids, 1 for single
        bytes. The sum over the ids of a text is its number of bytes plus 1 for the space before
        it; inexact for loaded models that rewrite text or have no bytes.
      is_word_start: bool [V], whether each id begins a word; true for ids after a space, Chinese or
        Japanese characters, and special ids.
      fingerprint: a hash of the model and the order of ids.
      note: special ids and bytes that a loaded model lacks, or "".
    """

    bytes_per_id: Int32[np.ndarray, "V"]
    is_word_start: Bool[np.ndarray, "V"]

    def __init__(self, model: bytes, sentinels: int, origin: str = "the given model"):
        """Lays out the ids: the model's own ids, then special ids that it lacks, then sentinels.

        Args:
          model: a serialized SentencePiece model.
          sentinels: number of sentinels.
          origin: name of the model, for error messages.

        Raises:
          UserError: `model` is not a SentencePiece model.
        """
        import sentencepiece

        try:
            if not model:  # SentencePiece takes no bytes for "no model given"
                raise ValueError
            self._model = sentencepiece.SentencePieceProcessor(model_proto=model)
            learned = self._model.vocab_size()
            if not learned:  # protobuf parses many other files as an empty message
                raise ValueError
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"{origin} is not a SentencePiece model; give a file that SentencePiece trained,"
                " usually *.model"
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
            if ids.get(name, -1) >= 0:
                continue
            # Only control pieces count: text can spell a user-defined "[MASK]".
            candidates = [control[alias] for alias in aliases if alias in control]
            if not candidates:
                candidates = [learned + len(added)]
                added.append(aliases[0])
            ids[name] = candidates[0]
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
                f"{origin} has no bytes to fall back on: unknown text becomes"
                f" {pieces[self._model.unk_id()]}"
            )
        self.note = "; ".join(notes)

        self.special_ids = frozenset({self.unk, *control.values(), *range(learned, self.size)})
        self._utf8 = [name.encode() for name in self._names]  # decoded text of each id
        self._utf8[self.unk] = " \u2047 ".encode()
        self.is_word_start = np.ones(self.size, np.bool_)
        for i in set(range(learned)) - self.special_ids:
            piece = pieces[i]
            if self._model.is_byte(i):
                byte = int(piece[1:-1], 16)  # "<0xE4>"
                self._utf8[i] = bytes([byte])
                # First bytes of U+3000–9FFF and of all above U+FFFF: Chinese, Japanese, emoji.
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
        # The first piece holds the space before a sentence. Some models add none: then lm does.
        self._space = "" if _SPACE in "".join(self._model.encode("a", out_type=str)) else " "
        self.fingerprint = hashlib.blake2b(
            model + f"|{added}|{sentinels}".encode(), digest_size=16
        ).hexdigest()

    def __reduce__(self) -> tuple:
        return Tokenizer, (self._bytes, len(self.sentinels))

    def _escape(self, text: str) -> str:
        return self._space + escape(text)

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, preceded by a space; adds no special ids; no ids for ""."""
        return self._model.encode(self._escape(text)) if text else []

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the result of `encode` for each text."""
        parts = self._model.encode([self._escape(text) for text in texts], num_threads=1)
        if self._space:  # an empty text has become a space
            parts = [part if text else [] for part, text in zip(parts, texts, strict=True)]
        return parts

    def encode_flat(
        self, texts: Sequence[str]
    ) -> tuple[Int32[np.ndarray, "N"], Int64[np.ndarray, "texts"]]:
        """Encodes texts; several threads can call this at once.

        Python's lock is held only to collect results.

        Returns:
          The ids of all texts, joined, and the number of ids of each text.
        """
        parts = self.encode_batch(texts)
        lengths = np.fromiter(map(len, parts), np.int64, len(parts))
        ids = itertools.chain.from_iterable(parts)
        return np.fromiter(ids, np.int32, int(lengths.sum())), lengths

    def decode(self, ids: Iterable[int] | np.ndarray, specials: bool = False) -> str:
        """Returns the text of ids, without the space before it; unk is written "⁇".

        Args:
          ids: a sequence or an array of ids.
          specials: whether to write special ids by name instead of omitting them.

        Raises:
          ValueError: an id is not from 0 to V - 1.
        """
        parts = []
        for i in map(int, ids):
            if not 0 <= i < self.size:
                raise ValueError(f"id {i} should be from 0 to {self.size - 1}")
            if specials or i == self.unk or i not in self.special_ids:
                parts.append(self._utf8[i])
        # Not by SentencePiece, which lacks the added ids and raises on incomplete characters.
        return b"".join(parts).decode(errors="replace").replace(_ESCAPE, _SPACE).removeprefix(" ")

    def name(self, i: int) -> str:
        """Returns the name of an id: "▁the", "[MASK]", "<extra_id_3>"."""
        return self._names[i]

    def save(self, path: str | os.PathLike) -> None:
        """Writes the SentencePiece model atomically; `load` reads it, given the same `sentinels`.

        Raises:
          UserError: the file cannot be written.
        """
        with files.replacing(Path(path), "wb") as file:
            file.write(self._bytes)


def load(path: str | os.PathLike, sentinels: int = 100) -> Tokenizer:
    """Opens a SentencePiece `.model`, trained here or elsewhere (T5, ALBERT, Llama …).

    Args:
      path: path of the model file.
      sentinels: number of sentinels to add.

    Raises:
      UserError: the file is missing, or is not a SentencePiece model.
    """
    try:
        model = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise UserError(
            f"tokenizer.path={str(path)!r} cannot be read ({error.strerror}); give a SentencePiece"
            " .model"
        ) from error
    return Tokenizer(model, sentinels, origin=str(path))
