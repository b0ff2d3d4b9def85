"""Nested brackets of several kinds to a bounded depth: Dyck-(k, m).

Source: Hewitt et al. 2020, "RNNs can generate bounded hierarchical languages with optimal memory".

A word is a balanced string that begins with an opening bracket; "." ends it. Inside, below the
greatest depth, a bracket opens with probability `push`, each kind equally often, or the last one
closes; at the greatest depth it must close. Back at depth 0 the word ends with probability `stop`,
or another bracket opens.
"""

import dataclasses
import math

from lm.data.synthetic import grammar

STOP = "."
OPEN, CLOSE = "(", ")"
MOST = 1024  # maximum number of states that the top of the stack can have


@dataclasses.dataclass(frozen=True)
class Options:
    """Parameters of the distribution.

    Attributes:
      kinds: number of kinds of brackets, written "(0" and ")0", "(1" and ")1" …
      depth: maximum nesting depth.
      push: probability that a bracket opens within another.
      stop: probability that a word ends at depth 0.
      sentences: mean number of words of a document.
    """

    kinds: int = 8
    depth: int = 6
    push: float = 0.5
    stop: float = 0.5
    sentences: float = 4.0

    def __post_init__(self) -> None:
        if self.kinds < 1 or self.depth < 1 or self.kinds * self.depth > MOST:
            raise ValueError(
                f"kinds={self.kinds} and depth={self.depth} should be at least 1, and their product"
                f" at most {MOST}"
            )
        for name in ("push", "stop"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(
                    f"{name}={getattr(self, name)} should be a probability between 0 and 1, without"
                    " these"
                )
        grammar.check(self.sentences)


def make(options: Options) -> grammar.Grammar:
    """The grammar of documents."""
    kinds = range(options.kinds)

    def opening(
        probability: float, *after: str, level: int = 1
    ) -> list[tuple[float, tuple[str, ...]]]:
        return [
            (probability / options.kinds, (f"{OPEN}{kind}", f"inside {kind} at {level}", *after))
            for kind in kinds
        ]

    rules: dict[str, list[tuple[float, tuple[str, ...]]]] = {
        "word": opening(1.0, "outside"),
        "outside": [(options.stop, (STOP,)), *opening(1.0 - options.stop, "outside")],
    }
    for level in range(1, options.depth + 1):
        for kind in kinds:
            name, close = f"inside {kind} at {level}", (f"{CLOSE}{kind}",)
            rules[name] = [(1.0, close)]
            if level < options.depth:
                rules[name] = [
                    (1.0 - options.push, close),
                    *opening(options.push, name, level=level + 1),
                ]
    return grammar.documents(rules, "word", options.sentences)


def entropy(options: Options) -> tuple[float, float]:
    """Mean nats and symbols of a word by formula, "." included, as a check of `Grammar.expected`.

    A bracket pair at level d, with everything inside it, has e(d) nats, including the choice of the
    opening bracket's kind, and n(d) symbols.
    """

    def binary(p: float) -> float:
        return -p * math.log(p) - (1 - p) * math.log(1 - p)

    nats, size = math.log(options.kinds), 2.0  # at the greatest depth: a kind, and two symbols
    for _ in range(options.depth - 1):
        inner = options.push / (1.0 - options.push)  # brackets directly within one, on average
        nats = math.log(options.kinds) + (inner + 1.0) * binary(options.push) + inner * nats
        size = 2.0 + inner * size
    outer = 1.0 / options.stop  # brackets at level 1
    return outer * nats + outer * binary(options.stop), outer * size + 1.0
