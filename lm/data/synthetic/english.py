"""An English-like grammar with agreement over a distance, of which every probability is known.

It has what minimal pairs ask for: determiner and noun agree, subject and verb agree across a prepositional phrase or a relative clause,
relative clauses nest in the centre and have a gap, reflexives agree with the subject, "ever" needs "no" or "not" above it.

A name such as "rest s VP" reads: what follows a singular noun that a VP is to follow. `s` and `p` are numbers; continuations are VP, NVP
(a VP under "no", where "ever" may stand) and TV (a transitive verb whose object is the gap).
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
CLAUSAL = {
    "s": "thinks says knows".split(),
    "p": "think say know".split(),
}  # take a clause with "that"
DO = {"s": "does", "p": "do"}
SELF = {"s": "itself", "p": "themselves"}
ADJECTIVES = "old small young quiet brown clever".split()
PREPOSITIONS = "near behind beside under above".split()
DETERMINERS = {
    "s": "this every each".split(),
    "p": "these many all".split(),
}  # "the" and "no" go with both


def choice(words: Sequence[str], *after: str, share: float = 1.0) -> list[Side]:
    """Any of the words, the n-th in proportion to 1/n (Zipf), and what follows it."""
    weights = [1.0 / rank for rank in range(1, len(words) + 1)]
    return [
        (share * weight / sum(weights), (word, *after))
        for word, weight in zip(words, weights, strict=True)
    ]


def rules() -> dict[str, list[Side]]:
    """The grammar of a sentence; starts from "sentence"."""
    found: dict[str, list[Side]] = {
        "sentence": [(1.0, ("NP VP", STOP))],
        "preposition": choice(PREPOSITIONS),
    }
    for number in NUMBERS:
        found |= {
            f"noun {number}": choice(NOUNS[number]),
            f"TV {number}": choice(TRANSITIVE[number]),
            f"IV {number}": choice(INTRANSITIVE[number]),
            f"determiner {number}": choice(DETERMINERS[number]),
            f"VP {number}": [
                (0.3, (f"IV {number}",)),
                (0.45, (f"TV {number}", f"object {number}")),
                *choice(CLAUSAL[number], "that", "NP VP", share=0.1),
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
                *choice(ADJECTIVES, f"noun phrase {number}", share=0.15),
                (0.85, (f"noun {number}",)),
            ],
        }
    # Verbs have one form for the plural and after "do not".
    found["negated"] = [(0.4, ("ever", "base")), (0.6, ("base",))]
    found["base"] = [(0.4, ("IV p",)), (0.6, ("TV p", "NP"))]
    found["noun phrase"] = [
        *choice(ADJECTIVES, "noun phrase", share=0.15),
        *[(0.425, (f"noun {number}",)) for number in NUMBERS],
    ]
    found["NP"] = [
        (0.5, ("the", "noun phrase")),
        *[(0.25, (f"determiner {number}", f"noun phrase {number}")) for number in NUMBERS],
    ]
    for continuation, under_no in (("VP", "NVP"), ("TV", "TV")):
        found[f"NP {continuation}"] = [
            (0.45, ("the", f"head {continuation}")),
            (0.15, ("no", f"head {under_no}")),
            *[
                (0.2, (f"determiner {number}", f"head {number} {continuation}"))
                for number in NUMBERS
            ],
        ]
    for continuation in ("VP", "NVP", "TV"):
        found |= _heads(continuation)
    return found


def _heads(continuation: str) -> dict[str, list[Side]]:
    """A subject from its noun on, and what follows it: a continuation of the noun's number."""
    found: dict[str, list[Side]] = {
        f"head {continuation}": [
            *choice(ADJECTIVES, f"head {continuation}", share=0.15),
            *[(0.425, (f"noun {number}", f"rest {number} {continuation}")) for number in NUMBERS],
        ]
    }
    for number in NUMBERS:
        follows = f"{continuation} {number}"
        found[f"head {number} {continuation}"] = [
            *choice(ADJECTIVES, f"head {number} {continuation}", share=0.15),
            (0.85, (f"noun {number}", f"rest {number} {continuation}")),
        ]
        found[f"rest {number} {continuation}"] = [
            (0.6, (follows,)),
            (0.2, ("preposition", "NP", follows)),
            (0.2, ("that", f"relative {number}", follows)),
        ]
    return found


@functools.cache
def sentence() -> grammar.Grammar:
    """The grammar of a sentence."""
    return grammar.Grammar(rules(), "sentence")


@functools.cache
def make(sentences: float) -> grammar.Grammar:
    """The grammar of documents of so many sentences on average."""
    return grammar.documents(rules(), "sentence", sentences)
