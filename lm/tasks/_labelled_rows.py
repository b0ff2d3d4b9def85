"""Lays out labelled examples as rows of a model."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer

from lm.core.protocols import Objective, Tokenizer
from lm.data import rows
from lm.finetuning.tuner import Rows
from lm.tasks import _reading

SPECIALS = {"text": 2, "pair": 3, "words": 2}  # maximum number of special tokens of a row, by kind


@dataclasses.dataclass(frozen=True)
class Item:
    """A labelled example.

    Attributes:
      units: ids of each text (one or two), or of each word of a sentence.
      labels: a single label, or one label for each word.
      content: texts, words or ids that identify the example.
    """

    units: Sequence[np.ndarray]
    labels: Sequence[str]
    content: tuple


@dataclasses.dataclass(frozen=True)
class Piece:
    """The content of a row: an example, or a part of a sentence of words.

    Attributes:
      units: ids of each text or word, cut to fit the row.
      count: number of targets.
    """

    units: Sequence[np.ndarray]
    count: int


def split(items: Sequence[Item], kind: str, longest: int) -> list[Piece]:
    """Cuts texts to the length of a row, and continues long sentences of words in additional rows.

    Args:
      items: the examples.
      kind: "text", "pair" or "words".
      longest: maximum number of positions of a row, special tokens included.
    """
    room = longest - SPECIALS[kind]
    if kind == "text":
        return [Piece([item.units[0][:room]], 1) for item in items]
    if kind == "pair":
        return [Piece(_cut_pair(item.units[0], item.units[1], room), 1) for item in items]
    pieces = []
    for item in items:
        row: list[np.ndarray] = []
        for word in item.units:
            if row and sum(map(len, row)) + min(len(word), room) > room:
                pieces.append(Piece(row, len(row)))
                row = []
            row.append(word[:room])
        pieces.append(Piece(row, len(row)))
    return pieces


def lay_out(
    pieces: Sequence[Piece],
    targets: Integer[np.ndarray, "M"],
    objective: Objective,
    tokenizer: Tokenizer,
    kind: str,
    length: int,
    slots: int,
) -> Rows:
    """Lays out pieces in the form of the model's training (lm/tasks/_reading.py).

    Args:
      pieces: the contents of N rows.
      targets: classes of the M targets of all pieces, one piece after another, [M].
      objective: the model's objective.
      tokenizer: supplies the special tokens.
      kind: "text", "pair" or "words".
      length: T, positions of a row.
      slots: P, the maximum number of targets of a row.

    Returns:
      tokens, segments, positions, units (the number of the text or word of each token, from 1), and
      types under a bidirectional mask: int32 [N, T]; targets: int32 [N, P]; weights: float32
      [N, P], 0 where there is no target.
    """
    first, between, last = _reading.special_tokens(objective, tokenizer)
    result = []
    target_NP = np.zeros((len(pieces), slots), np.int32)
    weight_NP = np.zeros((len(pieces), slots), np.float32)
    start = 0  # index of the piece's first target
    for index, piece in enumerate(pieces):
        ids, numbers = list(first), [0] * len(first)
        for number, unit in enumerate(piece.units, 1):
            separator = between if number > 1 and kind == "pair" else []
            ids += [*separator, *unit]
            numbers += [0] * len(separator) + [number] * len(unit)
        ids += last
        numbers += [0] * len(last)
        row = rows.Row(length, tokenizer.pad, ("units", "types"))
        span = row.add(np.array(ids), units=numbers)
        if kind == "pair":
            row.arrays["types"][numbers.index(2) : span.stop] = 1
        result.append(row)
        target_NP[index, : piece.count] = targets[start : start + piece.count]
        weight_NP[index, : piece.count] = 1.0
        start += piece.count
    batch = rows.stack(result) | {"targets": target_NP, "weights": weight_NP}
    if objective.mask != "bidirectional":
        del batch["types"]
    return batch


def _cut_pair(a: np.ndarray, b: np.ndarray, room: int) -> list[np.ndarray]:
    """Cuts two texts at the end, the longer one first, until both fit."""
    if len(a) + len(b) <= room:
        return [a, b]
    short = min(len(a), len(b), room // 2)
    return [a[:short], b[: room - short]] if len(a) <= len(b) else [a[: room - short], b[:short]]
