"""Associative recall with several queries: MQAR.

    k3 v7 k0 v2 k9 v4   n1 n5 k0 v2 n3 n3 k9 v4 …

Source: Arora et al. 2023, "Zoology: measuring and improving recall in efficient language models".

A document consists of pairs of a key and a value, followed by slots of two symbols. In some slots a
key of the document recurs, followed by its value; the others hold two symbols of noise. Keys and
values of a document are drawn anew without repetition, so that other documents do not reveal which
value belongs to a key: there are K! / (K - pairs)! · V! / (V - pairs)! assignments. Each key is
queried at most once, so that only the pairs reveal its value. The slots of queries are drawn
without repetition in proportion to slot^(power - 1), mostly soon after the pairs, as in the paper;
a power of 1 gives a uniform distribution.

Unlike in the paper, the value follows its query in the text, so that any kind of language model can
be trained on it as on other text, and noise has symbols of its own.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int64

KEY, VALUE, NOISE = "k", "v", "n"
_BLOCK = 512  # documents drawn at once; another number changes the text


@dataclasses.dataclass(frozen=True)
class Options:
    """Parameters of the distribution.

    Attributes:
      pairs: number of pairs in a document.
      queries: number of pairs that are queried.
      slots: number of slots after the pairs, of two symbols each.
      keys, values, noise: sizes of the three vocabularies.
      power: exponent of the distribution of slots, in proportion to slot^(power - 1).
    """

    pairs: int = 8
    queries: int = 8
    slots: int = 23
    keys: int = 32
    values: int = 32
    noise: int = 8
    power: float = 0.01

    def __post_init__(self) -> None:
        if not 2 <= self.pairs <= min(self.keys, self.values):
            raise ValueError(
                f"pairs={self.pairs} should be from 2 to the number of keys={self.keys} and of"
                f" values={self.values}, as none occurs twice"
            )
        if not 1 <= self.queries <= min(self.pairs, self.slots):
            raise ValueError(
                f"queries={self.queries} should be from 1 to the number of pairs={self.pairs} and"
                f" of slots={self.slots}: each key is queried at most once, in a slot of its own"
            )
        if self.noise < 1:
            raise ValueError(f"noise={self.noise} should be at least 1 symbol")
        if not 0.0 < self.power <= 1.0:
            raise ValueError(f"power={self.power} should be above 0 and at most 1")

    @property
    def symbols(self) -> int:
        """Number of symbols of a document."""
        return 2 * (self.pairs + self.slots)


def draw(options: Options, seed: int, count: int) -> Iterator[list[str]]:
    """Draws documents as lists of symbols; the first n do not depend on `count`.

    Args:
      options: parameters of the distribution.
      seed: seed of the draws.
      count: number of documents.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    names = [
        [f"{letter}{i}" for i in range(size)]
        for letter, size in ((KEY, options.keys), (VALUE, options.values), (NOISE, options.noise))
    ]
    vocabulary = np.array(sum(names, []), dtype=object)
    for start in range(0, count, _BLOCK):
        yield from vocabulary[_block(options, rng)[: count - start]].tolist()


def _block(options: Options, rng: np.random.Generator) -> Int64[np.ndarray, "B symbols"]:
    """_BLOCK documents of symbols, numbered: first keys, then values, then noise."""
    pairs, queries = options.pairs, options.queries
    keys_BP = _without_repetition(rng, np.ones(options.keys), pairs)
    values_BP = options.keys + _without_repetition(rng, np.ones(options.values), pairs)
    slots_BQ = _without_repetition(
        rng, np.arange(1, options.slots + 1) ** (options.power - 1.0), queries
    )
    queried_BQ = _without_repetition(rng, np.ones(pairs), queries)
    noise = (rng.random((_BLOCK, options.slots, 2)) * options.noise).astype(np.int64)
    later_BS2 = options.keys + options.values + noise
    rows = np.arange(_BLOCK)[:, None]
    later_BS2[rows, slots_BQ, 0] = keys_BP[rows, queried_BQ]
    later_BS2[rows, slots_BQ, 1] = values_BP[rows, queried_BQ]
    first_BP2 = np.stack([keys_BP, values_BP], -1)
    return np.concatenate([first_BP2.reshape(_BLOCK, -1), later_BS2.reshape(_BLOCK, -1)], 1)


def _without_repetition(
    rng: np.random.Generator, weights_N: Float[np.ndarray, "N"], count: int
) -> Int64[np.ndarray, "B count"]:
    """Draws items one after another in proportion to the remaining weights, _BLOCK times.

    By exponential clocks with the weights as rates: the earliest come first (Efraimidis and
    Spirakis 2006).
    """
    clocks_BN = -np.log1p(-rng.random((_BLOCK, len(weights_N)))) / weights_N[None]
    return np.argsort(clocks_BN, axis=1, kind="stable")[:, :count]


def answers(text: Sequence[str], pairs: int) -> list[tuple[int, str]]:
    """(position, value) of each answer: the value paired with the key before that position.

    Args:
      text: symbols of a document.
      pairs: number of pairs at the beginning of the document.

    Raises:
      ValueError: the text does not begin with `pairs` pairs, or has an incorrect answer.
    """
    paired = dict(zip(text[0 : 2 * pairs : 2], text[1 : 2 * pairs : 2], strict=True))
    if len(paired) < pairs or not all(
        key[0] == KEY and value[0] == VALUE for key, value in paired.items()
    ):
        raise ValueError(f"it does not begin with {pairs} pairs of a key and a value")
    positions = [at + 1 for at in range(2 * pairs, len(text) - 1, 2) if text[at][0] == KEY]
    if any(text[at] != paired.get(text[at - 1]) for at in positions):
        raise ValueError("an answer is not the value that was paired with the key")
    return [(at, text[at]) for at in positions]
