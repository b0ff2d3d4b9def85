"""Prediction of masked words of held-out documents of the source `grammar`.

One word of each sentence, but never its full stop, is replaced by [MASK]. Its true distribution
given all other words is exact: the probability of the sentence with each word of the language in
its place. Sentences are independent, so sentences in the same row do not affect each other.
`excess_nll` and `kl` are those of lm/tasks/_language.py: 0 nats per word is perfect.
"""

import itertools

import numpy as np
from jaxtyping import Float64

from lm.core.plugins import NotApplicable
from lm.core.protocols import Objective, Params
from lm.data.synthetic import english
from lm.data.synthetic.grammar import END, MORE, Grammar
from lm.stats import ngrams
from lm.stats.scores import Score
from lm.tasks import _language, _synthetic
from lm.training.program import Program

Config = _language.Config


class Task(_language.LanguageTask):
    """The distance of a masked model to the best possible prediction of a word from both sides.

    Attributes:
      texts: ids of the complete sentences of each row.
      places: indices of the masked words of each text.
    """

    source = "grammar"

    def _grammar(self) -> Grammar:
        return english.make(self.options["sentences"])

    @staticmethod
    def suits(objective: Objective) -> bool:
        """Whether the model predicts masked tokens."""
        return "masked" in objective.scores or "masked_next" in objective.scores

    def score(self, program: Program, params: Params) -> dict[str, Score]:
        """Returns the metrics of `LanguageTask.score`, over the masked words."""
        # If several objectives predict masked tokens, the last one in the config is used.
        kind = [score for score in program.objective.scores if score.startswith("masked")][-1]
        rows = _synthetic.masked_rows(
            self.texts, self.places, self.tokenizer, self.length, kind, program.objective.mask
        )
        at = self.batch["target_positions"] + (kind == "masked") * (self.batch["weights"] > 0)
        batch = rows | self.batch | {"target_positions": at.astype(np.int32)}
        return self._scores(_synthetic.evaluate(program, params, batch, self.truth, masked=True))

    def _prepare(self, texts: list[np.ndarray]) -> None:
        rng = np.random.default_rng(0)
        stop = int(self.words.ids[self.words.words.index(english.STOP)])
        self.texts: list[np.ndarray] = []
        self.places: list[np.ndarray] = []
        surprisals, distributions = [], []
        for text in texts:
            ends = np.flatnonzero(text[: self.length - 2] == stop) + 1
            if not len(ends):
                continue  # the first sentence of the document is longer than a row
            places = []
            for begin, end in itertools.pairwise([0, *ends.tolist()]):
                place = int(rng.integers(end - begin - 1))
                p_W = distribution(self.language, self.words.text(text[begin:end]), place)
                places.append(begin + place)
                distributions.append(p_W)
                surprisals.append(
                    -np.log(p_W[np.flatnonzero(self.words.ids == text[begin + place])[0]])
                )
            self.texts.append(text[: ends[-1]])
            self.places.append(np.array(places))
        if not self.texts:
            raise NotApplicable(
                f"no document has a sentence that fits rows of {self.length}; set a larger"
                " --config.data.length"
            )
        counts = np.array([len(places) for places in self.places])
        shape = (len(counts), int(counts.max()))
        is_target = np.arange(shape[1])[None] < counts[:, None]
        self.batch = {
            name: np.zeros(shape, np.int32) for name in ("targets", "target_positions", "states")
        }
        self.batch["target_positions"][is_target] = np.concatenate(self.places)
        self.batch["targets"][is_target] = np.concatenate(
            [text[at] for text, at in zip(self.texts, self.places, strict=True)]
        )
        # Every target has a true distribution of its own.
        self.batch["states"][is_target] = np.arange(len(distributions))
        self.batch["weights"] = is_target.astype(np.float32)
        self.surprisal = np.zeros(shape)
        self.surprisal[is_target] = surprisals
        self.truth = _synthetic.Truth(
            self.words.over_vocabulary(np.stack(distributions), self.tokenizer.size)
        )

    def _bigrams(self, bigram: ngrams.Bigram) -> tuple[np.ndarray, np.ndarray]:
        """Bigrams with both neighbors; [BOS] precedes each text."""
        distributions = [
            np.exp(
                bigram.between(int(text[at - 1]) if at else self.tokenizer.bos, int(text[at + 1]))
            )
            for text, places in zip(self.texts, self.places, strict=True)
            for at in places.tolist()
        ]
        return np.stack(distributions), self.batch["states"]


def distribution(language: Grammar, sentence: list[str], place: int) -> Float64[np.ndarray, "W"]:
    """The true distribution of the word at a place, given all other words of its sentence.

    Args:
      language: the grammar of documents, which also allows a full stop at the place: the result
        is two sentences.
      sentence: the words of the sentence.
      place: index of the word.
    """
    logs = np.array(
        [
            language.log_probability([*sentence[:place], word, *sentence[place + 1 :], END], MORE)
            for word in language.words
        ]
    )
    p_W = np.exp(logs - logs.max())
    return p_W / p_W.sum()
