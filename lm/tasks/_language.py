"""A model against a language whose every probability is known: the distance to the best possible loss, in nats a token.

The next word's true distribution p is that of the grammar's state (lm/data/synthetic/grammar.py), so two estimates of the same distance
are at hand: `excess_nll`, the model's negative log-likelihood minus the true one of the words that came; and `kl`, the mean over
places of Σ p log(p / q), which leaves out the chance of the word that came and is never negative. 0 is the best possible.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lm.core.plugins import UserError
from lm.core.protocols import Objective
from lm.data.synthetic.grammar import END, Grammar
from lm.stats import ngrams
from lm.stats.scores import Examples, Score, fraction, identity, nats
from lm.tasks import _synthetic, _text

Found = dict[str, np.ndarray]  # per target, [rows, P]


class LanguageTask:
    """Reads held-out documents from left to right, each in a row of its own; a subclass says which language it is.

    Args:
      config: has `tokens`, the most held-out positions to read.
    """

    metrics: tuple[str, ...] = ("excess_nll", "kl", "nll", "legal_mass", "accuracy")
    shared = False
    by_name = False
    notes: Sequence[str] = ()
    bounds: tuple[str, ...] = ("true distribution",)
    source = ""

    def __init__(self, config: Any, corpus: Any, split: str, length: int):
        self.options = _synthetic.options(corpus, self.source)
        self.language = self._grammar()
        self.tokenizer, self.train = corpus.tokenizer, corpus.stores["train"]
        self.words = _synthetic.Words(self.language.words, corpus.tokenizer)
        self.length = length
        self._ask(_synthetic.chosen(corpus.stores[split], config.tokens, length))
        self.weights = self.batch["weights"].astype(np.float64)
        self.asked = identity(self.source, self.batch["targets"], self.weights)

    def _ask(self, texts: list[np.ndarray]) -> None:
        """Makes `batch`, `surprisal` and `truth`."""
        self.batch = _synthetic.left_to_right(texts, self.tokenizer, self.length)
        self.batch["states"], self.surprisal = states(self.language, self.words, texts, self.length)
        self.truth = _synthetic.Truth(
            self.words.spread(self.language.table, self.tokenizer.size), self._closing()
        )

    def _grammar(self) -> Grammar:
        """The grammar of the corpus' documents."""
        raise NotImplementedError

    def _closing(self) -> np.ndarray | None:
        """See `_synthetic.Truth`."""
        return None

    @staticmethod
    def suits(objective: Objective) -> bool:
        return "causal" in objective.scores

    def score(self, program: Any, params: Any) -> dict[str, Score]:
        """The class's metrics."""
        return self._scores(_synthetic.answers(program, params, self.batch, self.truth))

    def baselines(self, program: Any) -> dict[str, dict[str, Score]]:
        """Every word alike; unigrams and Kneser-Ney bigrams of the training split; and the grammar itself."""
        size = self.tokenizer.size
        before, after = _text.neighbours(self.train, self.tokenizer)
        alike = self.words.spread(
            np.full((1, len(self.words.ids)), 1.0 / len(self.words.ids)), size
        )
        none = np.zeros_like(self.batch["states"])
        tables = {
            "uniform": (alike, none),
            "unigram": (ngrams.Unigram(after, size).probability[None], none),
            "bigram": self._bigrams(ngrams.Bigram(before, after, size)),
            "true distribution": (self.truth.table_SV, self.batch["states"]),
        }
        return {
            name: self._scores(tabled(*table, self.batch, self.truth))
            for name, table in tables.items()
        }

    def _bigrams(self, bigram: ngrams.Bigram) -> tuple[np.ndarray, np.ndarray]:
        """(its distributions by context, the context of each target)."""
        return bigram.upper.toarray() + bigram.backoff[:, None] * bigram.lower[None], self.batch[
            "tokens"
        ]

    def _scores(self, found: Found) -> dict[str, Score]:
        excess = (found["nll"] - self.surprisal) * self.weights
        return {
            "excess_nll": self._score(nats, excess, self.weights),
            "kl": self._score(nats, found["kl"], self.weights),
            "nll": self._score(nats, found["nll"], self.weights),
            "legal_mass": self._score(fraction, found["legal"], self.weights),
            "accuracy": self._score(fraction, found["hits"], self.weights),
        }

    def _score(self, make: Any, values: np.ndarray, weights: np.ndarray) -> Score:
        return score_of(make, values * weights, weights, self.asked)


def score_of(make: Any, totals: np.ndarray, weights: np.ndarray, asked: str) -> Score:
    """A score of what stands at targets, [rows, P], with the rows as its examples."""
    rows, counts = totals.sum(1), weights.sum(1)
    return make(float(rows.sum()), float(counts.sum()), Examples(rows, counts, asked))


def tabled(
    q_CV: np.ndarray, context: np.ndarray, batch: Mapping[str, np.ndarray], truth: _synthetic.Truth
) -> Found:
    """As `_synthetic.answers`, of a method whose distribution depends on one number alone.

    Args:
      q_CV: its distribution in each context; 0 where it says that a word cannot come. context: int [rows, P].
    """
    p_SV, state, target = truth.table_SV, batch["states"], batch["targets"]
    is_possible = q_CV > 0
    log_q_CV = np.log(np.where(is_possible, q_CV, 1.0))
    with np.errstate(divide="ignore"):
        nll_CV = np.where(is_possible, -log_q_CV, np.inf)
    # What p holds possible must be so for q in every context that it is asked in; other pairs of state and context are never looked up.
    negentropy_S = (p_SV * np.log(np.where(p_SV > 0, p_SV, 1.0))).sum(1)
    kl_SC, legal_SC = negentropy_S[:, None] - p_SV @ log_q_CV.T, (p_SV > 0) @ q_CV.T
    found = {
        "nll": nll_CV[context, target],
        "kl": kl_SC[state, context],
        "legal": legal_SC[state, context],
        "hits": _best(q_CV)[context, target],
    }
    if truth.closing_V is not None:
        found["closing"] = _best(np.where(truth.closing_V[None], q_CV, -1.0))[context, target]
    return {name: np.where(batch["weights"] > 0, values, 0.0) for name, values in found.items()}


def _best(scores_CV: np.ndarray) -> np.ndarray:
    """1 for the highest score of a row, shared among those that tie."""
    best_CV = scores_CV >= scores_CV.max(1, keepdims=True)
    return best_CV / best_CV.sum(1, keepdims=True)


def states(
    language: Grammar, words: _synthetic.Words, texts: Sequence[np.ndarray], length: int
) -> tuple[np.ndarray, np.ndarray]:
    """(state before each target, its true -log p in nats) of the rows of `_synthetic.left_to_right`: int32 and float64 [rows, length].

    Raises:
      UserError: a text is not of this language.
    """
    state_BT, surprisal_BT = (
        np.zeros((len(texts), length), np.int32),
        np.zeros((len(texts), length)),
    )
    for row, text in enumerate(texts):
        asked = [*words.text(text), END][:length]
        found, surprisal = language.walk(asked)
        if len(found) != len(asked):
            raise UserError(
                f"a text of this corpus is not of its grammar: {' '.join(asked[: len(found) + 1])!r} cannot be; empty the cache"
            )
        state_BT[row, : len(found)], surprisal_BT[row, : len(found)] = found, surprisal
    return state_BT, surprisal_BT


@dataclasses.dataclass(frozen=True)
class Config:
    """tokens: the most held-out positions to read, padding included."""

    tokens: int = 131072
