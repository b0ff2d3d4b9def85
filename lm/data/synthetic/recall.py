"""Associative recall with several queries: MQAR (Arora et al. 2023, "Zoology: measuring and improving recall in efficient language
models").

    k3 v7 k0 v2 k9 v4   n1 n5 k0 v2 n3 n3 k9 v4 …

A document is pairs of a key and a value, then slots: in some of them a key of the document is asked again and its value follows, in the
others stand two symbols of noise. Keys and values of a document are drawn afresh without repetition, so which value belongs to a key cannot
be known from other documents: there are K! / (K - pairs)! · V! / (V - pairs)! assignments. Each key is asked at most once: an answer
is nowhere but in the pairs. Queries lie in slots drawn without repetition in proportion to slot^(power - 1), most of them soon after the
pairs, as in the paper; a power of 1 makes all slots alike.

Beside the paper, the answer follows its query in the text, so that language models of any kind can be trained on it as on other text, and
noise has symbols of its own.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

KEY, VALUE, NOISE = "k", "v", "n"
_BLOCK = 512  # documents drawn at once; a change of it changes the text


@dataclasses.dataclass(frozen=True)
class Options:
    """What the distribution depends on.

    Attributes:
      pairs: in a document. queries: of them that are asked. slots: after the pairs, two symbols each.
      keys, values, noise: sizes of the three vocabularies.
      power: of the slots' distribution, `power` - 1 is the exponent.
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
                f"pairs={self.pairs} should be from 2 to the number of keys={self.keys} and of values={self.values}, as none comes twice"
            )
        if not 1 <= self.queries <= min(self.pairs, self.slots):
            raise ValueError(
                f"queries={self.queries} should be from 1 to the number of pairs={self.pairs} and of slots={self.slots}: each key is asked"
                " at most once, in a slot of its own"
            )
        if self.noise < 1:
            raise ValueError(f"noise={self.noise} should be at least 1 symbol")
        if not 0.0 < self.power <= 1.0:
            raise ValueError(f"power={self.power} should be above 0 and at most 1")

    @property
    def symbols(self) -> int:
        """Of a document."""
        return 2 * (self.pairs + self.slots)


def draw(options: Options, seed: int, count: int) -> Iterator[list[str]]:
    """So many documents; the first n are the same whatever `count` is."""
    rng = np.random.Generator(np.random.PCG64(seed))
    names = [
        [f"{letter}{i}" for i in range(size)]
        for letter, size in ((KEY, options.keys), (VALUE, options.values), (NOISE, options.noise))
    ]
    vocabulary = np.array(sum(names, []), dtype=object)
    for start in range(0, count, _BLOCK):
        yield from vocabulary[_block(options, rng)[: count - start]].tolist()


def _block(options: Options, rng: np.random.Generator) -> np.ndarray:
    """Documents as numbers: keys, then values, then noise, [_BLOCK, symbols]."""
    pairs, queries = options.pairs, options.queries
    keys_BP = _without_repetition(rng, np.ones(options.keys), pairs)
    values_BP = options.keys + _without_repetition(rng, np.ones(options.values), pairs)
    slots_BQ = _without_repetition(
        rng, np.arange(1, options.slots + 1) ** (options.power - 1.0), queries
    )
    asked_BQ = _without_repetition(rng, np.ones(pairs), queries)
    noise = (rng.random((_BLOCK, options.slots, 2)) * options.noise).astype(np.int64)
    later_BS2 = options.keys + options.values + noise
    rows = np.arange(_BLOCK)[:, None]
    later_BS2[rows, slots_BQ, 0] = keys_BP[rows, asked_BQ]
    later_BS2[rows, slots_BQ, 1] = values_BP[rows, asked_BQ]
    first_BP2 = np.stack([keys_BP, values_BP], -1)
    return np.concatenate([first_BP2.reshape(_BLOCK, -1), later_BS2.reshape(_BLOCK, -1)], 1)


def _without_repetition(rng: np.random.Generator, weights_N: np.ndarray, count: int) -> np.ndarray:
    """Draws one after another in proportion to the weights of what is left, [_BLOCK, count]: whoever's exponential clock of that rate
    rings first (Efraimidis and Spirakis 2006)."""
    clocks_BN = -np.log1p(-rng.random((_BLOCK, len(weights_N)))) / weights_N[None]
    return np.argsort(clocks_BN, axis=1, kind="stable")[:, :count]


def answers(text: Sequence[str], pairs: int) -> list[tuple[int, str]]:
    """(place, value) of each answer: the value that was paired with the key before that place.

    Raises:
      ValueError: the text is no such document, or gives a wrong answer.
    """
    known = dict(zip(text[0 : 2 * pairs : 2], text[1 : 2 * pairs : 2], strict=True))
    if len(known) < pairs or not all(
        key[0] == KEY and value[0] == VALUE for key, value in known.items()
    ):
        raise ValueError(f"it does not begin with {pairs} pairs of a key and a value")
    places = [at + 1 for at in range(2 * pairs, len(text) - 1, 2) if text[at][0] == KEY]
    if any(text[at] != known.get(text[at - 1]) for at in places):
        raise ValueError("an answer is not the value that was paired with the key")
    return [(at, text[at]) for at in places]
