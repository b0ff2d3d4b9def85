"""Minimal pairs: which of two sentences that differ in one thing does the model hold likelier? (BLiMP, Warstadt et al. 2020.)

    {"sentence_good": "Katherine can't help herself.", "sentence_bad": "Katherine can't help himself.",
     "field": "morphology", "linguistics_term": "anaphor_agreement", "UID": "anaphor_gender_agreement"}

a line, as many files as there are. `accuracy` is the share of pairs in which the good sentence scores higher, a tie counting ½, by the
model's usual scoring: that of what it was trained on (lm.inference.scoring.methods), of several objectives the last named. So a causal model is asked
by Σ log p, a masked one by its pseudo-log-likelihood, T5 by its infilling. `accuracy_<method>` are the same pairs by every method that
suits the model, the usual one too.

`accuracy/<key>/<value>`, as `accuracy/linguistics_term/binding`, is the usual score on a part of the pairs: one for each value of the keys
in `by`, where there are at least two. These are not among `metrics`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lm.core.plugins import NotApplicable, UserError, choice
from lm.core.protocols import Objective
from lm.inference import scoring
from lm.stats import ngrams
from lm.stats.scores import Examples, Score, fraction, identity
from lm.tasks import _sentences, _text

KEYS = ("field", "linguistics_term", "UID")
_RANDOM = 100  # scorers by chance, of which the mean is shown: one alone moves by 1.6 points on a set of 1,000 pairs


@dataclasses.dataclass(frozen=True)
class Config:
    """What is asked, and how.

    Attributes:
      path: JSON Lines files, directories of them, or globs.
      broken: share of a file's lines that may be broken; they are left out, and said. most: pairs of each file, the first; 0: all.
      methods: of scoring, beside the usual one: causal, pll, pll_word, infill; none means all that suit the model.
      by: keys by whose values the pairs are also scored in parts. end: whether causal scores count the [EOS] after a sentence.
    """

    path: tuple[str, ...] = ()
    broken: float = 0.01
    most: int = 0
    methods: tuple[str, ...] = ()
    by: tuple[str, ...] = KEYS
    end: bool = False

    def __post_init__(self):
        if not 0.0 <= self.broken < 1.0:
            raise ValueError(f"broken={self.broken} must be a share from 0 to below 1")
        if self.most < 0:
            raise ValueError(f"most={self.most} must not be negative (0: all pairs)")
        for method in self.methods:
            choice("methods", method, scoring.METHODS)
        for key in self.by:
            choice("by", key, KEYS)


class Pair(NamedTuple):
    """One line; `about` are the values of KEYS, "" where there is none."""

    good: str
    bad: str
    about: tuple[str, ...]


class Task:
    """`suits(objective)` says which models it measures; see lm/core/protocols.py."""

    metrics = ("accuracy", *(f"accuracy_{method}" for method in scoring.METHODS))
    shared = True
    by_name = False
    bounds: tuple[str, ...] = ()
    notes: Sequence[str] = ()

    def __init__(self, config: Config, corpus, split: str, length: int):
        self.config, self.corpus = config, corpus
        if not config.path:
            raise NotApplicable(
                "minimal_pairs needs minimal_pairs.path: JSON Lines files, or a glob such as 'blimp/*.jsonl', with"
                ' {"sentence_good": "…", "sentence_bad": "…"} a line, and "field", "linguistics_term", "UID" where there are any'
            )
        pairs, notes = _sentences.read(
            "minimal_pairs", config.path, (".jsonl", ".ndjson"), _pair, config.broken, config.most
        )
        ids = scoring.encode(
            corpus.tokenizer, [pair.good for pair in pairs] + [pair.bad for pair in pairs]
        )
        room, count = length - scoring.SPECIALS, len(pairs)
        fits = np.array(
            [
                0 < max(map(len, two)) <= room and min(map(len, two)) > 0
                for two in zip(ids, ids[count:], strict=False)
            ],
            bool,
        )
        if count - fits.sum() > config.broken * count:
            raise UserError(
                f"minimal_pairs: {count - int(fits.sum()):,} of {count:,} pairs have a sentence of more than {room} tokens, which is what"
                f" data.length={length} has room for beside special tokens; train with a larger data.length, or a larger vocabulary"
            )
        self.notes = _sentences.tell(
            "minimal_pairs",
            notes + [f"{int((~fits).sum())} pairs are too long and left out"] * (not fits.all()),
        )
        kept = np.flatnonzero(fits)
        self.pairs = [pairs[at] for at in kept]
        self.sentences = [ids[at] for at in kept] + [
            ids[at + count] for at in kept
        ]  # good ones, then bad ones
        self.asked = identity([tuple(pair) for pair in self.pairs])
        self._scorer = _sentences.Scorers(corpus.tokenizer, config.end)

    @staticmethod
    def suits(objective: Objective) -> bool:
        return bool(scoring.methods(objective))

    def score(self, program, params) -> dict[str, Score]:
        """accuracy; by every method; in parts."""
        usual, *others = scoring.methods(program.objective)
        chosen = [
            usual,
            *(
                method
                for method in others
                if not self.config.methods or method in self.config.methods
            ),
        ]
        found = {method: self.scored(program, params, method) for method in chosen}
        first = self._scores(_hits(found[usual]))
        by_method = {
            f"accuracy_{method}": self._share(_hits(found[method]))
            for method in scoring.METHODS
            if method in found
        }
        return {"accuracy": first.pop("accuracy")} | by_method | first

    def scored(self, program, params, method: str) -> np.ndarray:
        """Scores of all sentences in nats, the good ones first: float64 [2 N]."""
        return self._scorer(program, method).sentences(params, self.sentences)

    def baselines(self, program) -> dict[str, dict[str, Score]]:
        """All alike; the mean over many by chance; unigram and Kneser-Ney bigram sums of the training split; the shorter sentence."""
        tokenizer = self.corpus.tokenizer
        before, after = _text.neighbours(self.corpus.stores["train"], tokenizer)
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

    def _scores(self, hits: np.ndarray) -> dict[str, Score]:
        """accuracy, and in parts."""
        found = {"accuracy": self._share(hits)}
        for key in self.config.by:
            parts = np.array([pair.about[KEYS.index(key)] for pair in self.pairs])
            names = [name for name in np.unique(parts).tolist() if name]
            if len(names) > 1:
                found |= {
                    f"accuracy/{key}/{name}": self._share(hits[parts == name], name)
                    for name in names
                }
        return found

    def _share(self, hits: np.ndarray, part: str = "") -> Score:
        return fraction(
            float(hits.sum()),
            len(hits),
            Examples(hits, np.ones(len(hits)), f"{self.asked}{part and ' '}{part}"),
        )


def _hits(values: np.ndarray) -> np.ndarray:
    """1 where the good sentence scores higher, ½ where both score the same: float64 [N]."""
    good, bad = np.split(values, 2)
    return (good > bad) + 0.5 * (good == bad)


def _pair(record: Any, stem: str) -> Pair:
    if not isinstance(record, dict):
        raise ValueError(f"is a JSON {type(record).__name__}, not an object")
    for key in ("sentence_good", "sentence_bad"):
        if not isinstance(record.get(key), str) or not record[key].strip():
            raise ValueError(f"has no text in {key!r}, but {record.get(key)!r}")
    if record["sentence_good"] == record["sentence_bad"]:
        raise ValueError(f"has twice the same sentence: {record['sentence_good']!r}")
    field, term, uid = (str(record.get(key) or "") for key in KEYS)
    return Pair(record["sentence_good"], record["sentence_bad"], (field, term, uid or stem))
