"""Minimal pairs (BLiMP, Warstadt et al. 2020): which of two sentences is more probable?

The sentences of a pair differ minimally, and only one of them is acceptable.

The files have a pair per line, for example

    {"sentence_good": "Katherine can't help herself.",
     "sentence_bad": "Katherine can't help himself.",
     "field": "morphology", "linguistics_term": "anaphor_agreement", "UID":
     "anaphor_gender_agreement"}

`accuracy` is the fraction of pairs in which the good sentence has the higher log-probability; a tie
counts ½. The scoring method is the usual method of the model's objective (lm.inference.scoring):

    CLM, prefix LM   log-probability, Σ log p
    MLM, MNTP        pseudo-log-likelihood
    T5, UL2          infilling
    mixtures         the usual method of the last objective in the config

`accuracy_<method>` is the accuracy on the same pairs by each method that the model supports,
including the usual method.

`accuracy/<key>/<value>`, such as `accuracy/linguistics_term/binding`, is the accuracy by the usual
method on a subset of the pairs. There is a subset for each value of the keys in `by`, if a key has
at least two values. These accuracies are not listed in `metrics`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Real

from lm.core.plugins import NotApplicable, UserError, choice
from lm.core.protocols import Objective, Params
from lm.data.corpus import Corpus
from lm.inference import scoring
from lm.stats import ngrams
from lm.stats.scores import Examples, Score, fraction, identity
from lm.tasks import _sentences, _text
from lm.training.program import Program

KEYS = ("field", "linguistics_term", "UID")
# Number of random scorers; their mean is the baseline. A single scorer varies by 1.6 points on
# 1,000 pairs.
_RANDOM = 100


@dataclasses.dataclass(frozen=True)
class Config:
    """The pairs to score, and the scoring methods.

    Attributes:
      path: JSON Lines files, directories of them, or globs.
      broken: maximum fraction of broken lines in a file; broken lines are left out, with a note.
      most: maximum number of pairs, taken from the beginning of each file; 0 means all.
      methods: scoring methods in addition to the usual one: causal, pll, pll_word, infill; empty
        means all methods that the model supports.
      by: keys of the pairs; the subset of pairs for each value of a key is evaluated too.
      end: whether causal log-probabilities include the [EOS] after a sentence.
    """

    path: tuple[str, ...] = ()
    broken: float = 0.01
    most: int = 0
    methods: tuple[str, ...] = ()
    by: tuple[str, ...] = KEYS
    end: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.broken < 1.0:
            raise ValueError(f"broken={self.broken} must be a fraction from 0 to below 1")
        if self.most < 0:
            raise ValueError(f"most={self.most} must not be negative (0: all pairs)")
        for method in self.methods:
            choice("methods", method, scoring.METHODS)
        for key in self.by:
            choice("by", key, KEYS)


class Pair(NamedTuple):
    """Two sentences.

    Attributes:
      good: the acceptable sentence.
      bad: the unacceptable sentence.
      about: the value of each of KEYS, "" if the line lacks the key.
    """

    good: str
    bad: str
    about: tuple[str, ...]


class Task:
    """Accuracy of preferring the acceptable sentence of a minimal pair (BLiMP).

    Attributes:
      pairs: the N pairs that are evaluated.
      sentences: ids of the 2 N sentences, the N acceptable sentences first.
      identity: hash of the pairs.
    """

    metrics = ("accuracy", *(f"accuracy_{method}" for method in scoring.METHODS))
    shared = True
    by_name = False
    bounds: tuple[str, ...] = ()
    notes: Sequence[str] = ()

    def __init__(self, config: Config, corpus: Corpus, split: str, length: int):
        self.config, self.corpus = config, corpus
        if not config.path:
            raise NotApplicable(
                "minimal_pairs needs minimal_pairs.path: JSON Lines files, or a glob such as"
                ' \'blimp/*.jsonl\', with {"sentence_good": "…", "sentence_bad": "…"} per line, and'
                ' "field", "linguistics_term", "UID" where there are any'
            )
        pairs, notes = _sentences.read(
            "minimal_pairs", config.path, (".jsonl", ".ndjson"), _parse, config.broken, config.most
        )
        good = scoring.encode(corpus.tokenizer, [pair.good for pair in pairs])
        bad = scoring.encode(corpus.tokenizer, [pair.bad for pair in pairs])
        room = length - scoring.SPECIALS
        kept = [
            index
            for index, ids in enumerate(zip(good, bad, strict=True))
            if all(0 < len(sentence) <= room for sentence in ids)
        ]
        if dropped := len(pairs) - len(kept):
            if dropped > config.broken * len(pairs):
                raise UserError(
                    f"minimal_pairs: {dropped:,} of {len(pairs):,} pairs have a sentence of more"
                    f" than {room} tokens, which is what data.length={length} has room for in"
                    " addition to special tokens; train with a larger data.length, or a larger"
                    " vocabulary"
                )
            notes.append(f"{dropped} pairs are too long and left out")
        self.notes = notes
        _sentences.print_notes("minimal_pairs", notes)
        self.pairs = [pairs[index] for index in kept]
        self.sentences = [good[index] for index in kept] + [bad[index] for index in kept]
        self.identity = identity([tuple(pair) for pair in self.pairs])
        self._scorers = _sentences.Scorers(corpus.tokenizer, config.end)

    @staticmethod
    def suits(objective: Objective) -> bool:
        """Whether the model predicts tokens in any way."""
        return bool(scoring.methods(objective))

    def score(self, program: Program, params: Params) -> dict[str, Score]:
        """Evaluates a model.

        Returns:
          {metric: Score}, fractions of pairs, a tie counting ½:
            accuracy: by the model's usual scoring method.
            accuracy_<method>: by each method that the model supports.
            accuracy/<key>/<value>: by the usual method, on a subset of the pairs.
        """
        usual, *others = scoring.methods(program.objective)
        methods = [usual]
        methods += [m for m in others if not self.config.methods or m in self.config.methods]
        hits = {method: _hits(self.log_p(program, params, method)) for method in methods}
        scores = self._scores(hits[usual])
        by_method = {
            f"accuracy_{method}": self._score(hits[method])
            for method in scoring.METHODS
            if method in hits
        }
        return {"accuracy": scores.pop("accuracy")} | by_method | scores

    def log_p(
        self, program: Program, params: Params, method: str
    ) -> Float64[np.ndarray, "sentences"]:
        """Log-probabilities of all sentences in nats, in the order of `sentences`.

        Args:
          program: the model's program.
          params: the model's parameters.
          method: one of lm.inference.scoring.methods(program.objective).
        """
        return self._scorers(program, method).sentences(params, self.sentences)

    def baselines(self, program: Program) -> dict[str, dict[str, Score]]:
        """Evaluates methods without a network.

        constant: the same log-probability for all sentences.
        random: the mean over many random scorers.
        unigram, bigram: log-probabilities of the training split's unigrams and Kneser-Ney bigrams.
        shorter: the shorter sentence is preferred.
        """
        tokenizer = self.corpus.tokenizer
        before, after = _text.neighbors(self.corpus.stores["train"], tokenizer)
        lengths = np.array([len(ids) for ids in self.sentences])
        owner, ids = np.repeat(np.arange(len(lengths)), lengths), np.concatenate(self.sentences)
        previous = np.concatenate([[tokenizer.bos], ids[:-1]])
        previous[np.cumsum(lengths)[:-1]] = tokenizer.bos
        unigram = ngrams.Unigram(after, tokenizer.size).nll(ids)
        bigram = ngrams.Bigram(before, after, tokenizer.size).nll(previous, ids)
        rng = np.random.default_rng(0)
        hits: dict[str, np.ndarray] = {
            "constant": _hits(np.zeros(len(lengths))),
            "random": np.mean([_hits(rng.random(len(lengths))) for _ in range(_RANDOM)], axis=0),
            "unigram": _hits(-np.bincount(owner, unigram)),
            "bigram": _hits(-np.bincount(owner, bigram)),
            "shorter": _hits(-lengths.astype(float)),
        }
        return {name: self._scores(values) for name, values in hits.items()}

    def _scores(self, hits: Float64[np.ndarray, "N"]) -> dict[str, Score]:
        """The accuracy on all pairs and on each subset."""
        scores = {"accuracy": self._score(hits)}
        for key in self.config.by:
            values = np.array([pair.about[KEYS.index(key)] for pair in self.pairs])
            subsets = [value for value in np.unique(values).tolist() if value]
            if len(subsets) > 1:
                scores |= {
                    f"accuracy/{key}/{value}": self._score(hits[values == value], value)
                    for value in subsets
                }
        return scores

    def _score(self, hits: Float64[np.ndarray, "n"], subset: str = "") -> Score:
        identity_of = f"{self.identity} {subset}" if subset else self.identity
        return fraction(
            float(hits.sum()), len(hits), Examples(hits, np.ones(len(hits)), identity_of)
        )


def _hits(values: Real[np.ndarray, "sentences"]) -> Float64[np.ndarray, "N"]:
    """1 where the good sentence has the higher value, ½ where both have the same."""
    good, bad = np.split(values, 2)
    return (good > bad) + 0.5 * (good == bad)


def _parse(record: Any, stem: str) -> Pair:
    if not isinstance(record, dict):
        raise ValueError(f"is a JSON {type(record).__name__}, not an object")
    for key in ("sentence_good", "sentence_bad"):
        if not isinstance(record.get(key), str) or not record[key].strip():
            raise ValueError(f"has no text in {key!r}, but {record.get(key)!r}")
    if record["sentence_good"] == record["sentence_bad"]:
        raise ValueError(f"good and bad sentences are identical: {record['sentence_good']!r}")
    field, term, uid = (str(record.get(key) or "") for key in KEYS)
    return Pair(record["sentence_good"], record["sentence_bad"], (field, term, uid or stem))
