"""Minimal pairs of the English-like grammar: a possible sentence and an impossible one.

The two sentences differ in one or two words.

Each paradigm is a grammar of its own, built from rules of the language: a sentence template with a
marked position for the critical word, which is then replaced. The mark is the state in which the
critical word is read, so that parsing finds the position. The grammar of the language checks that
the good sentence is possible and the bad one is not. Fields and terms are BLiMP's (Warstadt et al.
2020).
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lm.core import files
from lm.core.plugins import UserError
from lm.data.synthetic import english, grammar
from lm.data.synthetic.english import (
    CLAUSAL,
    DO,
    INTRANSITIVE,
    NOUNS,
    NUMBERS,
    SELF,
    TRANSITIVE,
    Side,
)

OTHER = {"s": "p", "p": "s"}
MARK, TOO = "critical", "critical too"  # TOO is always "the"
_TRIES = 500  # consecutive repeated sentences after which a paradigm counts as exhausted

# Words by number. The form of the other number is the incorrect one.
_FORMS = [
    NOUNS,
    INTRANSITIVE,
    TRANSITIVE,
    CLAUSAL,
    {number: [word] for number, word in DO.items()},
    {n: [w] for n, w in SELF.items()},
]
_EXCHANGE = {
    word: forms[OTHER[number]][at]
    for forms in _FORMS for number in NUMBERS for at, word in enumerate(forms[number])
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Paradigm:
    """A kind of pair.

    Attributes:
      field, term: `field` and `linguistics_term` in BLiMP.
      sides: sentence templates: right sides with MARK, and with TOO where a second word changes.
      marked: grammatical number → rules of MARK.
      exchange: critical word, uniform number from [0, 1) → incorrect word.
    """

    field: str
    term: str
    sides: tuple[tuple[str, ...], ...]
    marked: Callable[[str], list[Side]]
    exchange: Callable[[str, float], str] = lambda word, uniform: _EXCHANGE[word]


def _any(words: list[str], uniform: float) -> str:
    return words[int(uniform * len(words))]


def _intransitive(word: str, uniform: float) -> str:
    number = "s" if word in TRANSITIVE["s"] else "p"
    return _any(INTRANSITIVE[number], uniform)


def _rules_of(name: str) -> Callable[[str], list[Side]]:
    """Rules of a nonterminal of the language; {n} is the sentence's number."""
    return lambda number: english.rules()[name.format(n=number)]


def _words_of(forms: dict[str, list[str]]) -> Callable[[str], list[Side]]:
    return lambda number: english.choice(forms[number])


# {n} is the number of the words that agree, {m} the other one.
N, M = "noun phrase {n}", "noun phrase {m}"
PARADIGMS = {
    "determiner_noun_agreement": Paradigm(
        "morphology", "determiner_noun_agreement",
        (("determiner {n}", MARK, "VP {n}"),), _words_of(NOUNS)
    ),
    "determiner_noun_agreement_adjective": Paradigm(
        "morphology", "determiner_noun_agreement",
        (("determiner {n}", "adjective", MARK, "VP {n}"),), _words_of(NOUNS)
    ),
    "subject_verb_agreement": Paradigm(
        "morphology", "subject_verb_agreement",
        (("the", N, MARK), ("determiner {n}", N, MARK)), _rules_of("VP {n}")
    ),
    "subject_verb_agreement_across_phrase": Paradigm(
        "morphology", "subject_verb_agreement",
        (("the", N, "preposition", "the", M, MARK),), _rules_of("VP {n}")
    ),
    "subject_verb_agreement_across_relative": Paradigm(
        "morphology", "subject_verb_agreement",
        (("the", N, "that", "the", M, "TV {m}", MARK),), _rules_of("VP {n}")
    ),
    "subject_verb_agreement_in_relative": Paradigm(
        "morphology", "subject_verb_agreement",
        (("the", M, "that", "the", N, MARK, "VP {m}"),), _words_of(TRANSITIVE)
    ),
    "subject_verb_agreement_center_embedded": Paradigm(
        "morphology", "subject_verb_agreement",
        (("the", N, "that", "the", M, "that", "the", N, "TV {n}", "TV {m}", MARK),),
        _rules_of("VP {n}")
    ),
    "reflexive_number_agreement": Paradigm(
        "morphology", "anaphor_agreement",
        (("the", N, "TV {n}", MARK), ("determiner {n}", N, "TV {n}", MARK)),
        lambda number: [(1.0, (SELF[number],))]
    ),
    "reflexive_number_agreement_across_relative": Paradigm(
        "syntax", "binding", (("the", N, "that", "the", M, "TV {m}", "TV {n}", MARK),),
        lambda number: [(1.0, (SELF[number],))]
    ),
    "npi_present": Paradigm(
        "semantics", "npi_licensing", ((MARK, N, "ever", "under no {n}"),),
        lambda number: [(1.0, ("no",))],
        lambda word, uniform: "the"
    ),
    "npi_scope": Paradigm(
        "semantics", "npi_licensing",
        ((MARK, N, "that", TOO, M, "TV {m}", "ever", "under no {n}"),),
        lambda number: [(1.0, ("no",))], lambda word, uniform: {"no": "the", "the": "no"}[word]
    ),
    "gap_in_relative": Paradigm(
        "syntax", "filler_gap_dependency", (("the", N, "that", "the", M, MARK, "VP {n}"),),
        lambda number: english.choice(TRANSITIVE[OTHER[number]]), _intransitive
    ),
    "transitive": Paradigm(
        "syntax", "argument_structure", (("the", N, MARK, "NP"),), _words_of(TRANSITIVE),
        _intransitive
    ),
}  # fmt: skip


def draw(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Draws different pairs of each paradigm, as BLiMP's JSON lines.

    Half of the pairs have a singular at the marked position.

    Args:
      count: number of pairs of each paradigm.
      seed: seed of the draws.

    Raises:
      ValueError: a paradigm has fewer than `count` different pairs.
    """
    uniform = grammar.uniform(seed)
    for name, paradigm in PARADIGMS.items():
        frames = [_frame(paradigm, number) for number in NUMBERS]
        seen: set[str] = set()
        repeats = 0
        while len(seen) < count:
            good, bad = _pair(paradigm, frames[len(seen) % 2], uniform)
            repeats = repeats + 1 if good in seen else 0
            if repeats > _TRIES:
                raise ValueError(f"{name} has hardly more than {len(seen)}")
            if not repeats:
                yield {
                    "sentence_good": good, "sentence_bad": bad, "field": paradigm.field,
                    "linguistics_term": paradigm.term, "UID": name, "pairID": str(len(seen)),
                }  # fmt: skip
                seen.add(good)


def write(path: Path, count: int, seed: int) -> int:
    """Writes `count` pairs of each paradigm as JSON lines in BLiMP's form, atomically.

    Args:
      path: path of the file; its directory is created.
      count: number of pairs of each paradigm.
      seed: seed of the draws.

    Returns:
      The number of pairs in the file.

    Raises:
      UserError: a paradigm has fewer than `count` different pairs, or the file cannot be written.
    """
    try:
        lines = [json.dumps(pair) + "\n" for pair in draw(count, seed)]
    except ValueError as error:
        raise UserError(f"--pairs={count} are too many: {error}") from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error
    with files.replacing(path) as file:
        file.writelines(lines)
    return len(lines)


def _frame(paradigm: Paradigm, number: str) -> grammar.Grammar:
    numbers = {"n": number, "m": OTHER[number]}
    sides = [
        (1.0 / len(paradigm.sides), (*(symbol.format(**numbers) for symbol in side), english.STOP))
        for side in paradigm.sides
    ]
    own: grammar.Rules = {
        "frame": sides,
        MARK: paradigm.marked(number),
        TOO: [(1.0, ("the",))],
        "adjective": english.choice(english.ADJECTIVES),
    }
    return grammar.Grammar({**english.rules(), **own}, "frame")


def _pair(
    paradigm: Paradigm, frame: grammar.Grammar, uniform: Callable[[], float]
) -> tuple[str, str]:
    good = frame.draw(uniform)
    states = [frame.states[state] for state in frame.walk(good)[0]]
    # The first word of a frame is read in the frame's own state.
    at = [
        place
        for place, state in enumerate(states)
        if state in (MARK, TOO) or (place == 0 and paradigm.sides[0][0] == MARK)
    ]
    bad = list(good)
    for place in at:
        bad[place] = paradigm.exchange(good[place], uniform())
    language = english.sentence()
    if language.log_probability(good) == -math.inf or language.log_probability(bad) > -math.inf:
        raise AssertionError(f"no minimal pair: {' '.join(good)!r}, {' '.join(bad)!r}")
    return " ".join(good), " ".join(bad)
