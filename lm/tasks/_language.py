"""Shared by tasks on languages whose every probability is known: the distance to the best loss.

The distance is in nats per token. The state of the grammar determines the true distribution p of
the next word (lm/data/synthetic/grammar.py). So the distance has two estimates: `excess_nll`, the
model's negative log-likelihood of the words that occur minus the true one; and `kl`, the mean of
Σ p log(p / q) over positions, which does not vary with the words that occur and is never negative.
The best possible value is 0.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float64, Int32, Integer, Num

from lm.core.plugins import UserError
from lm.core.protocols import Objective, Params
from lm.data.corpus import Corpus
from lm.data.synthetic.grammar import END, Grammar
from lm.stats import ngrams
from lm.stats.scores import Examples, Score, fraction, identity, nats
from lm.tasks import _synthetic, _text
from lm.tasks._synthetic import NumpyBatch, PerTarget
from lm.training.program import Program


@dataclasses.dataclass(frozen=True)
class Config:
    """Amount of held-out text.

    Attributes:
      tokens: maximum number of held-out positions to read, padding included.
    """

    tokens: int = 131072


MakeScore = Callable[[float, float, Examples], Score]  # `fraction` or `nats` of lm.stats.scores


class LanguageTask:
    """Evaluates a model on held-out documents, each in a row of its own; causally, by default.

    A subclass names the source and makes the grammar. `_prepare` sets `batch`, `surprisal` and
    `truth`.

    Attributes:
      source: name of the source of the documents that the task needs.
      options: options of the source.
      language: the grammar of the corpus's documents.
      words: words of the language as ids.
      batch: the rows; `states` holds the state of the grammar before each target.
      surprisal: the true -log p of each target in nats, [B, P].
      truth: the true distributions of the targets.
      weights: 1 for each target, else 0, [B, P].
      identity: a hash of the examples.
    """

    metrics: tuple[str, ...] = ("excess_nll", "kl", "nll", "legal_mass", "accuracy")
    shared = False
    by_name = False
    bounds: tuple[str, ...] = ("true distribution",)
    notes: Sequence[str] = ()
    source = ""
    batch: NumpyBatch
    surprisal: Float64[np.ndarray, "B P"]
    truth: _synthetic.Truth

    def __init__(self, config: Config, corpus: Corpus, split: str, length: int):
        self.options = _synthetic.source_options(corpus, self.source)
        self.language = self._grammar()
        self.tokenizer, self.train = corpus.tokenizer, corpus.stores["train"]
        self.words = _synthetic.Words(self.language.words, corpus.tokenizer)
        self.length = length
        self._prepare(_synthetic.first_documents(corpus.stores[split], config.tokens, length))
        self.weights = self.batch["weights"].astype(np.float64)
        self.identity = identity(self.source, self.batch["targets"], self.weights)

    def _prepare(self, texts: list[np.ndarray]) -> None:
        """Sets `batch`, `surprisal` and `truth`."""
        self.batch = _synthetic.causal_rows(texts, self.tokenizer, self.length)
        self.batch["states"], self.surprisal = states(self.language, self.words, texts, self.length)
        self.truth = _synthetic.Truth(
            self.words.over_vocabulary(self.language.table, self.tokenizer.size), self._closing()
        )

    def _grammar(self) -> Grammar:
        """The grammar of the corpus's documents."""
        raise NotImplementedError

    def _closing(self) -> np.ndarray | None:
        """Returns the tokens that the metric "closing" distinguishes; None without the metric."""
        return None

    @staticmethod
    def suits(objective: Objective) -> bool:
        """Whether the model predicts the next token."""
        return "causal" in objective.scores

    def score(self, program: Program, params: Params) -> dict[str, Score]:
        """Evaluates a model.

        Returns:
          {metric: Score}, means over the targets:
            excess_nll: negative log-likelihood minus that of the true distribution, nats per token.
            kl: KL divergence of the model from the true distribution, nats per token.
            nll: negative log-likelihood, nats per token.
            legal_mass: probability of tokens that are possible, from 0 to 1.
            accuracy: fraction of targets that have the highest logit.
        """
        return self._scores(_synthetic.evaluate(program, params, self.batch, self.truth))

    def baselines(self, program: Program) -> dict[str, dict[str, Score]]:
        """Scores the uniform distribution, n-grams of the training split, and the grammar itself.

        The n-grams are unigrams and Kneser-Ney bigrams.
        """
        size, count = self.tokenizer.size, len(self.words.ids)
        before, after = _text.neighbors(self.train, self.tokenizer)
        uniform = self.words.over_vocabulary(np.full((1, count), 1.0 / count), size)
        one_context = np.zeros_like(self.batch["states"])
        tables = {
            "uniform": (uniform, one_context),
            "unigram": (ngrams.Unigram(after, size).probability[None], one_context),
            "bigram": self._bigrams(ngrams.Bigram(before, after, size)),
            "true distribution": (self.truth.table_SV, self.batch["states"]),
        }
        return {
            name: self._scores(evaluate_table(q_CV, context, self.batch, self.truth))
            for name, (q_CV, context) in tables.items()
        }

    def _bigrams(self, bigram: ngrams.Bigram) -> tuple[np.ndarray, np.ndarray]:
        """(distributions by context [C, V], the context of each target [B, P])."""
        table_VV = bigram.upper.toarray() + bigram.backoff[:, None] * bigram.lower[None]
        return table_VV, self.batch["tokens"]

    def _scores(self, values: PerTarget) -> dict[str, Score]:
        excess = (values["nll"] - self.surprisal) * self.weights
        return {
            "excess_nll": self._score(nats, excess),
            "kl": self._score(nats, values["kl"]),
            "nll": self._score(nats, values["nll"]),
            "legal_mass": self._score(fraction, values["legal"]),
            "accuracy": self._score(fraction, values["hits"]),
        }

    def _score(self, make: MakeScore, values: np.ndarray) -> Score:
        return score_of(make, values * self.weights, self.weights, self.identity)


def score_of(
    make: MakeScore,
    totals: Num[np.ndarray, "B P"],
    weights: Float64[np.ndarray, "B P"],
    identity: str,
) -> Score:
    """A score of values at targets, with the rows as its examples.

    Args:
      make: the function `fraction` or `nats` of lm.stats.scores.
      totals: value · weight of each target.
      weights: weight of each target.
      identity: hash of the examples.
    """
    rows, counts = totals.sum(1), weights.sum(1)
    return make(float(rows.sum()), float(counts.sum()), Examples(rows, counts, identity))


def evaluate_table(
    q_CV: Float64[np.ndarray, "C V"],
    context: Integer[np.ndarray, "B P"],
    batch: Mapping[str, np.ndarray],
    truth: _synthetic.Truth,
) -> PerTarget:
    """Like `_synthetic.evaluate`, for a method that predicts from one context number alone.

    Args:
      q_CV: predicted distribution in each context.
      context: number of the context of each target, [B, P].
      batch: the fields targets, states and weights, [B, P].
      truth: the true distributions.
    """
    p_SV, state, target = truth.table_SV, batch["states"], batch["targets"]
    is_possible = q_CV > 0
    log_q_CV = np.log(np.where(is_possible, q_CV, 1.0))
    with np.errstate(divide="ignore"):
        nll_CV = np.where(is_possible, -log_q_CV, np.inf)
    # In every context that occurs with a state, q must allow the words that p allows. Other pairs
    # of state and context are never looked up.
    negentropy_S = (p_SV * np.log(np.where(p_SV > 0, p_SV, 1.0))).sum(1)
    kl_SC, legal_SC = negentropy_S[:, None] - p_SV @ log_q_CV.T, (p_SV > 0) @ q_CV.T
    values = {
        "nll": nll_CV[context, target],
        "kl": kl_SC[state, context],
        "legal": legal_SC[state, context],
        "hits": _best(q_CV)[context, target],
    }
    if truth.closing_V is not None:
        values["closing"] = _best(np.where(truth.closing_V[None], q_CV, -1.0))[context, target]
    return {name: np.where(batch["weights"] > 0, value, 0.0) for name, value in values.items()}


def _best(scores_CV: Float64[np.ndarray, "C V"]) -> Float64[np.ndarray, "C V"]:
    """1 for the highest value of each context, divided by the number of ties."""
    best_CV = scores_CV >= scores_CV.max(1, keepdims=True)
    return best_CV / best_CV.sum(1, keepdims=True)


def states(
    language: Grammar, words: _synthetic.Words, texts: Sequence[np.ndarray], length: int
) -> tuple[Int32[np.ndarray, "B T"], Float64[np.ndarray, "B T"]]:
    """The grammar's states in the rows of `_synthetic.causal_rows`.

    Args:
      language: the grammar.
      words: words of the grammar as ids.
      texts: ids of one text per row.
      length: T, positions of a row.

    Returns:
      The state before each target, and the true -log p of each target in nats.

    Raises:
      UserError: a text is not of this language.
    """
    state_BT = np.zeros((len(texts), length), np.int32)
    surprisal_BT = np.zeros((len(texts), length))
    for row, text in enumerate(texts):
        targets = [*words.text(text), END][:length]
        path, surprisal = language.walk(targets)
        if len(path) != len(targets):
            start = " ".join(targets[: len(path) + 1])
            raise UserError(
                f"a text of this corpus is not of its grammar: {start!r} is impossible; empty the"
                " cache"
            )
        state_BT[row, : len(path)], surprisal_BT[row, : len(path)] = path, surprisal
    return state_BT, surprisal_BT
