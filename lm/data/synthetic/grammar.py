"""Probabilistic context-free grammars that are LL(1), parsed deterministically.

They are exact language models. In such a grammar (here without empty rules) no two rules of a
nonterminal can begin with the same word. In Greibach's normal form, nonterminal → word nonterminals
…, each word determines its rule. A text thus has one derivation, its probability is the product of
the rules' probabilities, and the symbol on top of the stack determines the distribution of the next
word. Everything below follows from this property.
"""

import bisect
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float64

# nonterminal → [(probability, right side)]
Rules = Mapping[str, Sequence[tuple[float, tuple[str, ...]]]]


class Grammar:
    """A grammar in which the next word determines the rule, with S states and W words.

    Attributes:
      words: all words, sorted.
      states: symbols that can be on top of the stack: nonterminals, and words that must come next.
      table: float64 [S, W], probabilities of the next word in each state.
    """

    table: Float64[np.ndarray, "S W"]

    def __init__(self, rules: Rules, start: str):
        """Compiles the rules.

        Args:
          rules: nonterminal → rules, whose probabilities add up to 1. A symbol without rules is a
            word.
          start: the symbol from which every text starts.

        Raises:
          ValueError: the grammar is not LL(1), or the probabilities of a nonterminal's rules do not
            add up to 1; the message names the nonterminal.
        """
        self.rules, self.start = {name: list(sides) for name, sides in rules.items()}, start
        for name, sides in self.rules.items():
            if not math.isclose(sum(p for p, _ in sides), 1.0, abs_tol=1e-9) or any(
                p <= 0 or not side for p, side in sides
            ):
                raise ValueError(
                    f"rules of {name!r} should have probabilities above 0 that add up to 1, and no"
                    " empty right side"
                )
        used = {symbol for sides in self.rules.values() for _, side in sides for symbol in side}
        self.words = tuple(sorted(used - self.rules.keys()))
        self.states: list[str] = []
        # By state and word: probability, and what the word leaves on the stack.
        self._next: list[dict[str, tuple[float, tuple[int, ...]]]] = []
        number: dict[str, int] = {}

        def state(symbol: str) -> int:
            if symbol not in number:
                number[symbol] = len(self.states)
                self.states.append(symbol)
            return number[symbol]

        state(start)
        for symbol in self.states:  # grows in the loop
            moves = {
                word: (p, tuple(map(state, reversed(tail))))
                for word, p, tail in self._first(symbol)
            }
            self._next.append(moves)
        column = {word: index for index, word in enumerate(self.words)}
        self.table = np.zeros((len(self.states), len(self.words)))
        for row, moves in enumerate(self._next):
            for word, (p, _) in moves.items():
                self.table[row, column[word]] = p
        self.table.flags.writeable = False

    def _first(
        self, symbol: str, above: tuple[str, ...] = ()
    ) -> list[tuple[str, float, tuple[str, ...]]]:
        """(word, probability, what follows) of each word that the symbol can begin with."""
        if symbol not in self.rules:
            return [(symbol, 1.0, ())]
        if symbol in above:
            raise ValueError(f"{symbol!r} can begin with itself: {' → '.join([*above, symbol])}")
        first: dict[str, tuple[str, float, tuple[str, ...]]] = {}
        for p, (head, *rest) in self.rules[symbol]:
            for word, inner, tail in self._first(head, (*above, symbol)):
                if word in first:
                    raise ValueError(
                        f"two rules of {symbol!r} begin with {word!r}, which does not determine"
                        " the rule"
                    )
                first[word] = (word, p * inner, (*tail, *rest))
        return list(first.values())

    def draw(self, uniform: Callable[[], float]) -> list[str]:
        """Draws a text.

        Args:
          uniform: function that returns uniform numbers from [0, 1).
        """
        stack, text = [0], []
        while stack:
            cumulative, words, tails = self._ladders[stack.pop()]
            at = bisect.bisect_right(cumulative, uniform(), hi=len(cumulative) - 1)
            text.append(words[at])
            stack += tails[at]
        return text

    @functools.cached_property
    def _ladders(self) -> list[tuple[list[float], list[str], list[tuple[int, ...]]]]:
        """By state: cumulative probabilities, words and what they leave, in the rules' order."""
        ladders = []
        for moves in self._next:
            cumulative = list(itertools.accumulate(p for p, _ in moves.values()))
            ladders.append((cumulative, list(moves), [tail for _, tail in moves.values()]))
        return ladders

    def walk(self, text: Iterable[str], start: str = "") -> tuple[list[int], list[float]]:
        """Reads a text as far as the grammar allows.

        Args:
          text: words of a text, which may be incomplete.
          start: symbol of the first state; "" means the grammar's start symbol.

        Returns:
          The state before each word, and -log p of each word in nats. Both lists end early
          if a word is impossible.
        """
        stack = [self.states.index(start) if start else 0]
        states, surprisals = [], []
        for word in text:
            move = self._next[stack[-1]].get(word) if stack else None
            if move is None:
                break
            states.append(stack.pop())
            surprisals.append(-math.log(move[0]))
            stack += move[1]
        return states, surprisals

    def log_probability(self, text: Sequence[str], start: str = "") -> float:
        """log p of a complete text in nats; -inf for a text outside the grammar.

        Args:
          text: words of the text.
          start: symbol of the first state; "" means the grammar's start symbol.
        """
        stack, total = [self.states.index(start) if start else 0], 0.0
        for word in text:
            move = self._next[stack.pop()].get(word) if stack else None
            if move is None:
                return -math.inf
            total += math.log(move[0])
            stack += move[1]
        return -math.inf if stack else total

    def expected(self) -> tuple[float, float]:
        """The exact entropy of a text in nats, and its mean number of words.

        A state's expected cost is its own cost plus that of the symbols it pushes: x = c + M x over
        the states, where M is the expected number of times that a state pushes each other state.

        Raises:
          ValueError: texts are infinitely long on average.
        """
        leaves = np.zeros((len(self.states), len(self.states)))
        for row, moves in enumerate(self._next):
            for p, tail in moves.values():
                for state in tail:
                    leaves[row, state] += p
        logs = np.log(np.where(self.table > 0, self.table, 1.0))
        costs = np.stack([-(self.table * logs).sum(1), np.ones(len(self.states))], 1)
        totals = np.linalg.solve(np.eye(len(self.states)) - leaves, costs)
        # x = 1 + M x has a positive solution only if M's spectral radius is below 1 (Collatz and
        # Wielandt).
        if not (totals[:, 1] > 0).all():
            raise ValueError(
                "texts of this grammar are infinitely long on average; make recursion rarer"
            )
        return float(totals[0, 0]), float(totals[0, 1])

    def rate(self) -> float:
        """Entropy in nats per word: the minimum mean negative log-likelihood of any model."""
        entropy, length = self.expected()
        return entropy / length


END = "</s>"  # the end of a document, which is [EOS] in the tokenizer; no word of a text is "</s>"
MORE = "more sentences"


def documents(rules: Rules, start: str, sentences: float) -> Grammar:
    """The grammar of documents of independent sentences.

    After each sentence the document ends with probability 1/sentences.

    Args:
      rules: rules of a sentence.
      start: symbol of a sentence.
      sentences: mean number of sentences of a document.

    Raises:
      ValueError: `sentences` is not above 1.
    """
    check(sentences)
    outer: Rules = {
        "document": [(1.0, (start, MORE))],
        MORE: [(1.0 / sentences, (END,)), (1.0 - 1.0 / sentences, (start, MORE))],
    }
    return Grammar({**rules, **outer}, "document")


def check(sentences: float) -> None:
    """Checks the mean number of sentences of a document.

    Raises:
      ValueError: `sentences` is infinite or not above 1.
    """
    if not 1.0 < sentences < math.inf:
        raise ValueError(
            f"sentences={sentences} should be above 1: how many a document has on average"
        )


def uniform(seed: int, block: int = 4096) -> Callable[[], float]:
    """A function that returns uniform numbers from [0, 1), one per call, by numpy's PCG64.

    Args:
      seed: seed of the generator.
      block: number of values drawn at once, which does not affect the values.
    """
    rng = np.random.Generator(np.random.PCG64(seed))

    def endless() -> Iterator[float]:
        while True:
            yield from rng.random(block).tolist()

    return endless().__next__


def texts(language: Grammar, stop: str, seed: int, count: int) -> Iterator[list[list[str]]]:
    """Draws documents as lists of sentences of words, without END.

    Args:
      language: the grammar of documents.
      stop: the last word of a sentence.
      seed: seed of the uniform numbers.
      count: number of documents.
    """
    draw = uniform(seed)
    for _ in range(count):
        sentences: list[list[str]] = [[]]
        for word in language.draw(draw)[:-1]:
            if sentences[-1][-1:] == [stop]:
                sentences.append([])
            sentences[-1].append(word)
        yield sentences
