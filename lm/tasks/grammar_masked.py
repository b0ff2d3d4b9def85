"""The distance to the best possible guess of a hidden word, on held-out documents of the source `grammar`: 0 nats a word is perfect.

One word of each sentence, but never its full stop, is replaced by [MASK]. Its true distribution given all the others is exact: the
probability of the sentence with each word of the language in its place. Sentences are independent, so those of one row do not
disturb each other. `excess_nll` and `kl` are as in lm/tasks/_language.py.
"""

import itertools
from typing import Any

import numpy as np

from lm.core.plugins import NotApplicable
from lm.core.protocols import Objective
from lm.data.synthetic import english
from lm.data.synthetic.grammar import END, MORE, Grammar
from lm.stats import ngrams
from lm.stats.scores import Score
from lm.tasks import _language, _synthetic

Config = _language.Config


class Task(_language.LanguageTask):
    """`suits(objective)` says which models it measures; see lm/core/protocols.py."""

    source = "grammar"

    def _grammar(self) -> Grammar:
        return english.make(self.options["sentences"])

    @staticmethod
    def suits(objective: Objective) -> bool:
        return "masked" in objective.scores or "masked_next" in objective.scores

    def score(self, program: Any, params: Any) -> dict[str, Score]:
        """The class's metrics."""
        # Of two, the one that the run ended with.
        kind = [each for each in program.objective.scores if each.startswith("masked")][-1]
        batch = _synthetic.hidden(
            self.texts, self.places, self.tokenizer, self.length, kind, program.objective.mask
        )
        at = self.batch["target_positions"] + (kind == "masked") * (self.batch["weights"] > 0)
        asked = batch | self.batch | {"target_positions": at.astype(np.int32)}
        return self._scores(_synthetic.answers(program, params, asked, self.truth, masked=True))

    def _ask(self, texts: list[np.ndarray]) -> None:
        rng = np.random.default_rng(0)
        stop = int(self.words.ids[self.words.words.index(english.STOP)])
        self.texts: list[np.ndarray] = []
        self.places: list[np.ndarray] = []
        surprisals, truths = [], []
        for text in texts:
            ends = np.flatnonzero(text[: self.length - 2] == stop) + 1
            if not len(ends):
                continue  # its first sentence is longer than a row
            places = []
            for begin, end in itertools.pairwise([0, *ends.tolist()]):
                place = int(rng.integers(end - begin - 1))
                truth = between(self.language, self.words.text(text[begin:end]), place)
                places.append(begin + place)
                truths.append(truth)
                surprisals.append(
                    -np.log(truth[np.flatnonzero(self.words.ids == text[begin + place])[0]])
                )
            self.texts.append(text[: ends[-1]])
            self.places.append(np.array(places))
        if not self.texts:
            raise NotApplicable(
                f"no document has a sentence that fits rows of {self.length}; set a larger --config.data.length"
            )
        shape = (len(self.texts), max(map(len, self.places)))
        is_asked = (
            np.arange(shape[1])[None] < np.array([len(each) for each in self.places])[:, None]
        )
        self.batch = {
            name: np.zeros(shape, np.int32) for name in ("targets", "target_positions", "states")
        }
        self.batch["target_positions"][is_asked] = np.concatenate(self.places)
        self.batch["targets"][is_asked] = np.concatenate(
            [text[at] for text, at in zip(self.texts, self.places, strict=True)]
        )
        self.batch["states"][is_asked] = np.arange(len(truths))
        self.batch["weights"] = is_asked.astype(np.float32)
        self.surprisal = np.zeros(shape)
        self.surprisal[is_asked] = surprisals
        self.truth = _synthetic.Truth(self.words.spread(np.stack(truths), self.tokenizer.size))

    def _bigrams(self, bigram: ngrams.Bigram) -> tuple[np.ndarray, np.ndarray]:
        """Bigrams to both neighbours; a text begins after [BOS]."""
        both = [
            np.exp(
                bigram.between(int(text[at - 1]) if at else self.tokenizer.bos, int(text[at + 1]))
            )
            for text, places in zip(self.texts, self.places, strict=True)
            for at in places.tolist()
        ]
        return np.stack(both), self.batch["states"]


def between(language: Grammar, sentence: list[str], place: int) -> np.ndarray:
    """The true distribution of the word at a place given all others of its sentence: float64 [words of the language].

    `language` is that of documents: so that a full stop in that place, and two sentences, would count too.
    """
    logs = np.array(
        [
            language.log_probability([*sentence[:place], word, *sentence[place + 1 :], END], MORE)
            for word in language.words
        ]
    )
    shares = np.exp(logs - logs.max())
    return shares / shares.sum()
