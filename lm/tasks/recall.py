"""Associative recall (MQAR, Arora et al. 2023) on held-out documents of the source `recall`.

A query is a key, and its answer is the value that was paired with it. Every model is evaluated on
the same answers, in the first of the following ways that its training included:

    causal              predict the token after the key, from all before it
    suffix              as causal, with the pairs as the input of an encoder
    masked              predict all answers at once, each masked
    masked next token   as masked, with each prediction one position earlier

Each key is queried once, so only the pairs determine the answer; nothing can be memorized. A model
that reads from left to right sees the earlier answers, and no value occurs twice. If it excludes
earlier answers, without looking at keys, its accuracy by guessing increases with each query, up to
1 at the last query if there are as many queries as pairs. So models of all kinds are compared on
the first answer of each document, `accuracy_first`, where every kind of model that guesses chooses
among all values of the document. `accuracy` and `nll` are over all answers.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer

from lm.core.plugins import NotApplicable
from lm.core.protocols import Objective, Params
from lm.data import sequences
from lm.data.corpus import Corpus
from lm.data.synthetic import recall
from lm.stats.scores import Examples, Score, fraction, identity, nats
from lm.tasks import _synthetic
from lm.tasks._synthetic import NumpyBatch
from lm.training.program import Program

KINDS = ("causal", "suffix", "masked", "masked_next")


@dataclasses.dataclass(frozen=True)
class Config:
    """Amount of held-out text.

    Attributes:
      tokens: maximum number of held-out positions to read.
    """

    tokens: int = 65536


class Task:
    """Accuracy and nats of the value that was paired with a key earlier in the document (MQAR).

    Attributes:
      texts: ids of the documents.
      places: positions of the answers, [documents, queries].
      targets: ids of the answers, [documents, queries].
      identity: hash of the examples.
    """

    metrics = ("accuracy_first", "accuracy", "nll")
    shared = True
    by_name = False
    bounds: tuple[str, ...] = ("looked up",)
    notes: Sequence[str] = ()
    source = "recall"

    def __init__(self, config: Config, corpus: Corpus, split: str, length: int):
        source_options = _synthetic.source_options(corpus, self.source)
        self.config, self.tokenizer, self.length = config, corpus.tokenizer, length
        fields = dataclasses.fields(recall.Options)
        self.options = recall.Options(
            **{field.name: source_options[field.name] for field in fields}
        )
        if self.options.symbols + 2 > length:
            raise NotApplicable(
                f"documents of {self.options.symbols} symbols, [BOS] and [EOS] do not fit rows of"
                f" {length}: set --config.data.length={self.options.symbols + 2}, or fewer"
                " data.pairs or data.slots"
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
        self.texts = _synthetic.first_documents(corpus.stores[split], config.tokens, length)
        answers = [recall.answers(words.text(text), self.options.pairs) for text in self.texts]
        self.places = np.array([[at for at, _ in document] for document in answers])
        self.targets = np.stack(
            [text[at] for text, at in zip(self.texts, self.places, strict=True)]
        )
        self.identity = identity("recall", np.stack(self.texts), self.places)
        # One is added to the count of every value.
        self.counts = np.bincount(
            np.concatenate([np.asarray(corpus.stores["train"].tokens), self.values]),
            minlength=corpus.tokenizer.size,
        )

    @staticmethod
    def suits(objective: Objective) -> bool:
        """Whether the model was trained in one of the four ways."""
        return any(kind in objective.scores for kind in KINDS)

    def score(self, program: Program, params: Params) -> dict[str, Score]:
        """Evaluates a model.

        Returns:
          {metric: Score}:
            accuracy_first: fraction of documents whose first answer has the highest logit.
            accuracy: fraction of all answers that have the highest logit.
            nll: negative log-likelihood, nats per answer.
        """
        kind = next(kind for kind in KINDS if kind in program.objective.scores)
        batch = self._batch(kind, program.objective.mask)
        values = _synthetic.evaluate(program, params, batch, masked=kind.startswith("masked"))
        return self._scores(values["hits"], values["nll"])

    def baselines(self, program: Program) -> dict[str, dict[str, Score]]:
        """Evaluates four methods.

        unigram: unigram of the training split over values.
        a value of the document: a guess among the values of the document.
        a value not yet answered: a guess among the document's values that were not yet an answer.
        looked up: the true answer.
        """
        p_V = self.counts / self.counts[self.values].sum()
        ones = np.ones(self.places.shape)
        pairs = self.options.pairs
        remaining = pairs - np.arange(self.places.shape[1]) * ones  # values not yet answered
        best = self.values[self.counts[self.values].argmax()]
        return {
            "unigram": self._scores(
                (self.targets == best).astype(float), -np.log(p_V[self.targets])
            ),
            "a value of the document": self._scores(ones / pairs, ones * np.log(pairs)),
            "a value not yet answered": self._scores(1 / remaining, np.log(remaining)),
            "looked up": self._scores(ones, 0 * ones),
        }

    def _scores(
        self, hits_NQ: Float[np.ndarray, "N Q"], nll_NQ: Float[np.ndarray, "N Q"]
    ) -> dict[str, Score]:
        scores = {}
        for name, make, values in (
            ("accuracy_first", fraction, hits_NQ[:, :1]),
            ("accuracy", fraction, hits_NQ),
            ("nll", nats, nll_NQ),
        ):
            totals, weights = values.sum(1), np.full(len(values), float(values.shape[1]))
            scores[name] = make(
                float(totals.sum()), float(weights.sum()), Examples(totals, weights, self.identity)
            )
        return scores

    def _batch(self, kind: str, mask: str) -> NumpyBatch:
        """Rows of one document each, with the answers as their only targets.

        Args:
          kind: one of KINDS.
          mask: attention mask of the model.
        """
        tokenizer, count = self.tokenizer, 2 * self.options.pairs
        if kind == "suffix":
            layout = sequences.Layout(tokenizer, "cross", self.length, self.length)
            rows = [
                layout.row(
                    [
                        (
                            np.array([tokenizer.bos, *text[:count], tokenizer.eos]),
                            np.append(text[count:], tokenizer.eos),
                        )
                    ]
                )
                for text in self.texts
            ]
            batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
            return self._with_targets(batch, self.places - count)
        if kind == "causal":
            batch = _synthetic.causal_rows(self.texts, tokenizer, self.length)
            return self._with_targets(batch, self.places)
        batch = _synthetic.masked_rows(self.texts, self.places, tokenizer, self.length, kind, mask)
        return self._with_targets(batch, self.places + (kind == "masked"))

    def _with_targets(self, batch: NumpyBatch, positions: Integer[np.ndarray, "N Q"]) -> NumpyBatch:
        """The rows, with the answers as targets at these positions."""
        return batch | {
            "targets": self.targets.astype(np.int32),
            "target_positions": positions.astype(np.int32),
            "weights": np.ones(positions.shape, np.float32),
        }
