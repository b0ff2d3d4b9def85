"""Probabilistic context-free grammars that are read from left to right without a choice: an exact language model by construction.

In such a grammar (LL(1), no empty rule) no two rules of a nonterminal can begin with the same word. Put into Greibach's normal form,
nonterminal → word nonterminals …, each word names its rule: so a text has one derivation, its probability is the product of the rules', and
the distribution of the next word is that of the nonterminal on top of the stack. Everything below follows from this.
"""

import bisect
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

Rules = Mapping[
    str, Sequence[tuple[float, tuple[str, ...]]]
]  # nonterminal: [(probability, right side)]


class Grammar:
    """A grammar in which the next word tells the rule.

    Args:
      rules: probabilities of a nonterminal add up to 1. A symbol without rules is a word. start: where every text starts.

    Attributes:
      words: all words, sorted. states: what can stand on top of the stack: nonterminals, and words that must come next.
      table: float64 [states, words], the next word's probabilities in each state.

    Raises:
      ValueError: the grammar is no such grammar; says where.
    """

    def __init__(self, rules: Rules, start: str):
        self.rules, self.start = {name: list(sides) for name, sides in rules.items()}, start
        for name, sides in self.rules.items():
            if not math.isclose(sum(share for share, _ in sides), 1.0, abs_tol=1e-9) or any(
                share <= 0 or not side for share, side in sides
            ):
                raise ValueError(
                    f"rules of {name!r} should have shares above 0 that add up to 1, and no empty right side"
                )
        used = {symbol for sides in self.rules.values() for _, side in sides for symbol in side}
        self.words = tuple(sorted(used - self.rules.keys()))
        self.states: list[str] = []
        self._next: list[
            dict[str, tuple[float, tuple[int, ...]]]
        ] = []  # by state, by word: probability, what it leaves on the stack
        number: dict[str, int] = {}

        def state(symbol: str) -> int:
            if symbol not in number:
                number[symbol] = len(self.states)
                self.states.append(symbol)
            return number[symbol]

        state(start)
        for symbol in self.states:  # grows while it is walked
            moves = {
                word: (share, tuple(map(state, reversed(tail))))
                for word, share, tail in self._first(symbol)
            }
            self._next.append(moves)
        column = {word: index for index, word in enumerate(self.words)}
        self.table = np.zeros((len(self.states), len(self.words)))
        for row, moves in enumerate(self._next):
            for word, (share, _) in moves.items():
                self.table[row, column[word]] = share
        self.table.flags.writeable = False

    def _first(
        self, symbol: str, above: tuple[str, ...] = ()
    ) -> list[tuple[str, float, tuple[str, ...]]]:
        """(word, probability, what follows) of everything that the symbol can begin with."""
        if symbol not in self.rules:
            return [(symbol, 1.0, ())]
        if symbol in above:
            raise ValueError(f"{symbol!r} can begin with itself: {' → '.join([*above, symbol])}")
        found: dict[str, tuple[str, float, tuple[str, ...]]] = {}
        for share, (head, *rest) in self.rules[symbol]:
            for word, inner, tail in self._first(head, (*above, symbol)):
                if word in found:
                    raise ValueError(
                        f"two rules of {symbol!r} begin with {word!r}, so the word does not tell which"
                    )
                found[word] = (word, share * inner, (*tail, *rest))
        return list(found.values())

    def draw(self, chance: Callable[[], float]) -> list[str]:
        """A text.

        Args:
          chance: gives uniform numbers from [0, 1).
        """
        stack, text = [0], []
        while stack:
            shares, words, tails = self._ladders[stack.pop()]
            at = bisect.bisect_right(shares, chance(), hi=len(shares) - 1)
            text.append(words[at])
            stack += tails[at]
        return text

    @functools.cached_property
    def _ladders(self) -> list[tuple[list[float], list[str], list[tuple[int, ...]]]]:
        """By state: cumulated probabilities, words and what they leave, in the order of the rules."""
        ladders = []
        for moves in self._next:
            shares = list(itertools.accumulate(share for share, _ in moves.values()))
            ladders.append((shares, list(moves), [tail for _, tail in moves.values()]))
        return ladders

    def walk(self, text: Iterable[str], start: str = "") -> tuple[list[int], list[float]]:
        """Reads a text: (the state before each word, -log p of each word in nats), as far as the grammar can go.

        Both are shorter than the text where a word cannot come; a text may also end before the grammar would.
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
        """log p of a whole text in nats; -inf of what is none."""
        stack, total = [self.states.index(start) if start else 0], 0.0
        for word in text:
            move = self._next[stack.pop()].get(word) if stack else None
            if move is None:
                return -math.inf
            total += math.log(move[0])
            stack += move[1]
        return -math.inf if stack else total

    def expected(self) -> tuple[float, float]:
        """(entropy in nats, words) of a text, exactly: what a state costs by itself, plus what it leaves on the stack.

        x = c + M x over the states, where M counts how often a state leaves each other one on the stack.

        Raises:
          ValueError: texts are endless on average.
        """
        leaves = np.zeros((len(self.states), len(self.states)))
        for row, moves in enumerate(self._next):
            for share, tail in moves.values():
                for state in tail:
                    leaves[row, state] += share
        logs = np.log(np.where(self.table > 0, self.table, 1.0))
        costs = np.stack([-(self.table * logs).sum(1), np.ones(len(self.states))], 1)
        found = np.linalg.solve(np.eye(len(self.states)) - leaves, costs)
        # x = 1 + M x has a positive solution only where M's spectral radius is below 1 (Collatz and Wielandt).
        if not (found[:, 1] > 0).all():
            raise ValueError(
                "texts of this grammar are endless on average; make recursion less likely"
            )
        return float(found[0, 0]), float(found[0, 1])

    def rate(self) -> float:
        """Entropy in nats a word: the least mean negative log-likelihood that any model can have."""
        entropy, length = self.expected()
        return entropy / length


END = "</s>"  # the end of a document, which the tokenizer has as [EOS]; no word of a text is written so
MORE = "more sentences"


def documents(rules: Rules, start: str, sentences: float) -> Grammar:
    """The grammar of documents of independent sentences, so many on average; after each the document ends with probability 1/sentences.

    Raises:
      ValueError: fewer than one sentence.
    """
    check(sentences)
    whole: Rules = {
        "document": [(1.0, (start, MORE))],
        MORE: [(1.0 / sentences, (END,)), (1.0 - 1.0 / sentences, (start, MORE))],
    }
    return Grammar({**rules, **whole}, "document")


def check(sentences: float) -> None:
    """Refuses a number of sentences a document.

    Raises:
      ValueError: it is not above 1.
    """
    if not 1.0 < sentences < math.inf:
        raise ValueError(
            f"sentences={sentences} should be above 1: how many a document has on average"
        )


def uniform(seed: int, block: int = 4096) -> Callable[[], float]:
    """Uniform numbers from [0, 1), one at a time, of numpy's PCG64 with this seed."""
    rng = np.random.Generator(np.random.PCG64(seed))

    def endless() -> Iterator[float]:
        while True:
            yield from rng.random(block).tolist()

    return endless().__next__


def texts(language: Grammar, stop: str, seed: int, count: int) -> Iterator[list[list[str]]]:
    """So many documents as sentences, each of which ends with the word `stop`; END is not written."""
    chance = uniform(seed)
    for _ in range(count):
        sentences: list[list[str]] = [[]]
        for word in language.draw(chance)[:-1]:
            if sentences[-1][-1:] == [stop]:
                sentences.append([])
            sentences[-1].append(word)
        yield sentences
