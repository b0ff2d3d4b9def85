"""Associative recall (MQAR, Arora et al. 2023): which value was paired with this key, on held-out documents of the source `recall`?

Every model is asked for the same answers, in the first of these ways that it was trained in:

    causal              the token after the key, from all before it
    suffix              the same, with the pairs as the input of an encoder
    masked              the answers are hidden, all at once
    masked next token   the same, read off one place before

Each key is asked once, so the pairs alone say the answer; nothing can be known by memory. Who reads from left to right has the earlier
answers before him, and no value comes twice: by leaving out what was answered alone, without a look at a key, he is right more and more
often, at the last of as many questions as there are pairs always. So the first answer of each document is what models of all kinds are
compared on, `accuracy_first`: by chance it is one of the document's values for everyone. `accuracy` and `nll` are of all answers.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from lm.core.plugins import NotApplicable
from lm.core.protocols import Objective
from lm.data import sequences
from lm.data.synthetic import recall
from lm.stats.scores import Examples, Score, fraction, identity, nats
from lm.tasks import _synthetic

KINDS = ("causal", "suffix", "masked", "masked_next")


@dataclasses.dataclass(frozen=True)
class Config:
    """tokens: the most held-out tokens to read."""

    tokens: int = 65536


class Task:
    """`suits(objective)` says which models it measures; see lm/core/protocols.py."""

    metrics = ("accuracy_first", "accuracy", "nll")
    shared = True
    by_name = False
    notes: Sequence[str] = ()
    bounds: tuple[str, ...] = ("looked up",)
    source = "recall"

    def __init__(self, config: Config, corpus, split: str, length: int):
        given = _synthetic.options(corpus, self.source)
        self.config, self.tokenizer, self.length = config, corpus.tokenizer, length
        self.options = recall.Options(
            **{field.name: given[field.name] for field in dataclasses.fields(recall.Options)}
        )
        if self.options.symbols + 2 > length:
            raise NotApplicable(
                f"documents of {self.options.symbols} symbols, [BOS] and [EOS] do not fit rows of {length}: set"
                f" --config.data.length={self.options.symbols + 2}, or fewer data.pairs or data.slots"
            )
        letters = (
            (recall.KEY, self.options.keys),
            (recall.VALUE, self.options.values),
            (recall.NOISE, self.options.noise),
        )
        words = _synthetic.Words(
            [f"{letter}{i}" for letter, size in letters for i in range(size)], corpus.tokenizer
        )
        self.values = words.ids[self.options.keys : self.options.keys + self.options.values]
        self.texts = _synthetic.chosen(corpus.stores[split], config.tokens, length)
        found = [recall.answers(words.text(text), self.options.pairs) for text in self.texts]
        self.places = np.array([[at for at, _ in each] for each in found])  # [documents, queries]
        self.truth = np.stack([text[at] for text, at in zip(self.texts, self.places, strict=True)])
        self.asked = identity("recall", np.stack(self.texts), self.places)
        self.counts = np.bincount(
            np.concatenate([np.asarray(corpus.stores["train"].tokens), self.values]),
            minlength=corpus.tokenizer.size,
        )

    @staticmethod
    def suits(objective: Objective) -> bool:
        return any(kind in objective.scores for kind in KINDS)

    def score(self, program, params) -> dict[str, Score]:
        """accuracy_first, accuracy, nll."""
        kind = next(kind for kind in KINDS if kind in program.objective.scores)
        found = _synthetic.answers(
            program, params, self._batch(kind, program.objective), masked=kind.startswith("masked")
        )
        return self._scores(found["hits"], found["nll"])

    def baselines(self, program) -> dict[str, dict[str, Score]]:
        """The training split's unigram over values; any value of the document; any that was not answered before; and the pair looked up."""
        shares = self.counts / self.counts[self.values].sum()
        one = np.ones(self.places.shape)
        left = self.options.pairs - np.arange(self.places.shape[1]) * one  # values not answered yet
        most = self.values[self.counts[self.values].argmax()]
        pairs = self.options.pairs
        return {
            "unigram": self._scores(
                (self.truth == most).astype(float), -np.log(shares[self.truth])
            ),
            "a value of the document": self._scores(one / pairs, one * np.log(pairs)),
            "a value not yet answered": self._scores(1 / left, np.log(left)),
            "looked up": self._scores(one, 0 * one),
        }

    def _scores(self, hits_NQ: np.ndarray, nll_NQ: np.ndarray) -> dict[str, Score]:
        made = {}
        for name, make, values in (
            ("accuracy_first", fraction, hits_NQ[:, :1]),
            ("accuracy", fraction, hits_NQ),
            ("nll", nats, nll_NQ),
        ):
            totals, weights = values.sum(1), np.full(len(values), float(values.shape[1]))
            made[name] = make(
                float(totals.sum()), float(weights.sum()), Examples(totals, weights, self.asked)
            )
        return made

    def _batch(self, kind: str, objective: Any) -> dict[str, np.ndarray]:
        """Rows of one document each, with the answers as their only targets."""
        tokenizer, count = self.tokenizer, 2 * self.options.pairs
        if kind == "suffix":
            layout = sequences.Layout(tokenizer, "cross", self.length, self.length)
            pieces = [
                (
                    np.array([tokenizer.bos, *text[:count], tokenizer.eos]),
                    np.append(text[count:], tokenizer.eos),
                )
                for text in self.texts
            ]
            rows = [layout.row([piece]) for piece in pieces]
            return self._asked_at(
                {name: np.stack([row[name] for row in rows]) for name in rows[0]},
                self.places - count,
            )
        if kind == "causal":
            return self._asked_at(
                _synthetic.left_to_right(self.texts, tokenizer, self.length), self.places
            )
        batch = _synthetic.hidden(
            self.texts, self.places, tokenizer, self.length, kind, objective.mask
        )
        return self._asked_at(batch, self.places + (kind == "masked"))

    def _asked_at(self, batch: dict[str, np.ndarray], at: np.ndarray) -> dict[str, np.ndarray]:
        """The rows with the answers as targets at these places."""
        asked = {
            "targets": self.truth.astype(np.int32),
            "target_positions": at.astype(np.int32),
            "weights": np.ones(at.shape, np.float32),
        }
        return batch | asked
