"""Spans of tagged words, in IOB2: `B-x` begins a span of type x, `I-x` continues one, `O` is outside (Ramshaw and Marcus 1995)."""

from collections.abc import Iterable, Sequence

Span = tuple[int, int, str]  # first word, the word after the last, type


def spans(tags: Sequence[str], strict: bool = False) -> list[Span]:
    """The spans of a sentence.

    Args:
      strict: an `I-x` that continues no span of its type counts as outside (seqeval's strict mode); else it begins a span, as in conlleval
        (Tjong Kim Sang and Buchholz 2000) and in seqeval by default.
    """
    found: list[Span] = []
    start, kind = 0, ""
    for at, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        goes_on = prefix == "I" and name == kind != ""
        if kind and not goes_on:
            found.append((start, at, kind))
            kind = ""
        if prefix == "B" or (prefix == "I" and not goes_on and not strict):
            start, kind = at, name
    return found


def counts(
    gold: Iterable[Sequence[str]], predicted: Iterable[Sequence[str]], strict: bool = False
) -> list[tuple[int, int]]:
    """Of each sentence: (spans found exactly, spans predicted + spans there). F1 is twice the first sum over the second."""
    found = []
    for there, said in zip(gold, predicted, strict=True):
        right, guess = set(spans(there, strict)), set(spans(said, strict))
        found.append((len(right & guess), len(right) + len(guess)))
    return found


def valid(tag: str) -> bool:
    """Whether it is a tag of IOB2."""
    return tag == "O" or (tag[:2] in ("B-", "I-") and len(tag) > 2)
