"""Spans of tagged words in IOB2 (Ramshaw and Marcus 1995).

`B-x` begins a span of type x, `I-x` continues one, `O` is outside.
"""

from collections.abc import Iterable, Sequence

Span = tuple[int, int, str]  # first word, the word after the last, type


def spans(tags: Sequence[str], strict: bool = False) -> list[Span]:
    """The spans of a sentence.

    Args:
      tags: the tag of each word.
      strict: whether an `I-x` that continues no span of its type counts as outside (seqeval's
        strict mode). Otherwise it begins a span, as in conlleval (Tjong Kim Sang and Buchholz 2000)
        and in seqeval by default.
    """
    result: list[Span] = []
    start, kind = 0, ""
    for at, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        continues = prefix == "I" and name == kind != ""
        if kind and not continues:
            result.append((start, at, kind))
            kind = ""
        if prefix == "B" or (prefix == "I" and not continues and not strict):
            start, kind = at, name
    return result


def counts(
    gold: Iterable[Sequence[str]], predicted: Iterable[Sequence[str]], strict: bool = False
) -> list[tuple[int, int]]:
    """Counts the spans of each sentence; F1 is twice the first sum over the second.

    Args:
      gold: the true tags of each sentence.
      predicted: the tags that a model predicts.
      strict: whether an `I-x` that continues no span counts as outside; see `spans`.

    Returns:
      For each sentence: (spans predicted exactly, gold spans + predicted spans).
    """
    result = []
    for gold_tags, predicted_tags in zip(gold, predicted, strict=True):
        true, guessed = set(spans(gold_tags, strict)), set(spans(predicted_tags, strict))
        result.append((len(true & guessed), len(true) + len(guessed)))
    return result


def is_valid(tag: str) -> bool:
    """Whether this is a tag of IOB2."""
    return tag == "O" or (tag[:2] in ("B-", "I-") and len(tag) > 2)
