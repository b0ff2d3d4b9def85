"""An English-like grammar with long-distance agreement and exact probabilities.

It has the phenomena that minimal pairs need: determiner and noun agree; subject and verb agree
across a prepositional phrase or a relative clause; relative clauses are embedded in the center and
have a gap; reflexives agree with the subject; "ever" needs "no" or "not" above it.

A name such as "rest s VP" means: the part between a singular noun and a VP. `s` and `p`
mean singular and plural.
Continuations are VP, NVP (a VP under "no", where "ever" is possible) and TV (a transitive verb
whose object is the gap).
"""

import functools
from collections.abc import Sequence

from lm.data.synthetic import grammar

Side = tuple[float, tuple[str, ...]]

STOP = "."
NUMBERS = ("s", "p")
NOUNS = {
    "s": "dog cat bird horse fox wolf goose mouse snake lion rabbit duck".split(),
    "p": "dogs cats birds horses foxes wolves geese mice snakes lions rabbits ducks".split(),
}
INTRANSITIVE = {
    "s": "sleeps runs waits sings swims jumps hides smiles".split(),
    "p": "sleep run wait sing swim jump hide smile".split(),
}
TRANSITIVE = {
    "s": "sees chases hears follows fears likes bites greets".split(),
    "p": "see chase hear follow fear like bite greet".split(),
}
# Verbs that take a clause with "that".
CLAUSAL = {
    "s": "thinks says knows".split(),
    "p": "think say know".split(),
}
DO = {"s": "does", "p": "do"}
SELF = {"s": "itself", "p": "themselves"}
ADJECTIVES = "old small young quiet brown clever".split()
PREPOSITIONS = "near behind beside under above".split()
# "the" and "no" are both singular and plural.
DETERMINERS = {
    "s": "this every each".split(),
    "p": "these many all".split(),
}


def choice(words: Sequence[str], *after: str, probability: float = 1.0) -> list[Side]:
    """Right sides of one word each; the n-th word has probability proportional to 1/n (Zipf).

    Args:
      words: words to choose from.
      after: symbols after the word.
      probability: total probability of these right sides.
    """
    weights = [1.0 / rank for rank in range(1, len(words) + 1)]
    return [
        (probability * weight / sum(weights), (word, *after))
        for word, weight in zip(words, weights, strict=True)
    ]


def rules() -> dict[str, list[Side]]:
    """Rules of a sentence; it starts from "sentence"."""
    result: dict[str, list[Side]] = {
        "sentence": [(1.0, ("NP VP", STOP))],
        "preposition": choice(PREPOSITIONS),
    }
    for number in NUMBERS:
        result |= {
            f"noun {number}": choice(NOUNS[number]),
            f"TV {number}": choice(TRANSITIVE[number]),
            f"IV {number}": choice(INTRANSITIVE[number]),
            f"determiner {number}": choice(DETERMINERS[number]),
            f"VP {number}": [
                (0.3, (f"IV {number}",)),
                (0.45, (f"TV {number}", f"object {number}")),
                *choice(CLAUSAL[number], "that", "NP VP", probability=0.1),
                (0.15, (DO[number], "not", "negated")),
            ],
            f"NVP {number}": [(0.5, ("ever", f"under no {number}")), (0.5, (f"VP {number}",))],
            f"under no {number}": [
                (0.4, (f"IV {number}",)),
                (0.6, (f"TV {number}", f"object {number}")),
            ],
            f"object {number}": [(0.8, ("NP",)), (0.2, (SELF[number],))],
            f"relative {number}": [
                (0.2, (f"IV {number}",)),
                (0.3, (f"TV {number}", "NP")),
                (0.5, ("NP TV",)),
            ],
            f"noun phrase {number}": [
                *choice(ADJECTIVES, f"noun phrase {number}", probability=0.15),
                (0.85, (f"noun {number}",)),
            ],
        }
    # Verbs have one form for the plural and after "do not".
    result["negated"] = [(0.4, ("ever", "base")), (0.6, ("base",))]
    result["base"] = [(0.4, ("IV p",)), (0.6, ("TV p", "NP"))]
    result["noun phrase"] = [
        *choice(ADJECTIVES, "noun phrase", probability=0.15),
        *[(0.425, (f"noun {number}",)) for number in NUMBERS],
    ]
    result["NP"] = [
        (0.5, ("the", "noun phrase")),
        *[(0.25, (f"determiner {number}", f"noun phrase {number}")) for number in NUMBERS],
    ]
    for continuation, under_no in (("VP", "NVP"), ("TV", "TV")):
        result[f"NP {continuation}"] = [
            (0.45, ("the", f"head {continuation}")),
            (0.15, ("no", f"head {under_no}")),
            *[
                (0.2, (f"determiner {number}", f"head {number} {continuation}"))
                for number in NUMBERS
            ],
        ]
    for continuation in ("VP", "NVP", "TV"):
        result |= _heads(continuation)
    return result


def _heads(continuation: str) -> dict[str, list[Side]]:
    """Rules of a subject from its noun on, and of a continuation of the noun's number."""
    result: dict[str, list[Side]] = {
        f"head {continuation}": [
            *choice(ADJECTIVES, f"head {continuation}", probability=0.15),
            *[(0.425, (f"noun {number}", f"rest {number} {continuation}")) for number in NUMBERS],
        ]
    }
    for number in NUMBERS:
        follows = f"{continuation} {number}"
        result[f"head {number} {continuation}"] = [
            *choice(ADJECTIVES, f"head {number} {continuation}", probability=0.15),
            (0.85, (f"noun {number}", f"rest {number} {continuation}")),
        ]
        result[f"rest {number} {continuation}"] = [
            (0.6, (follows,)),
            (0.2, ("preposition", "NP", follows)),
            (0.2, ("that", f"relative {number}", follows)),
        ]
    return result


@functools.cache
def sentence() -> grammar.Grammar:
    """The grammar of a sentence."""
    return grammar.Grammar(rules(), "sentence")


@functools.cache
def make(sentences: float) -> grammar.Grammar:
    """The grammar of documents of `sentences` sentences on average."""
    return grammar.documents(rules(), "sentence", sentences)
