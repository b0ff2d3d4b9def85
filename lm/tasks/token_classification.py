"""Tags of words, such as names of persons and places, by fine-tuning and by a linear probe: F1 of whole spans, and accuracy by word.

Published files in CoNLL's columns, tagged in IOB2. A word's tag is read from the mean of the last hidden states of its pieces: a model that
reads from left to right knows the word at its last piece only.
"""

import collections
import dataclasses

import numpy as np

from lm.core.plugins import NotApplicable, UserError
from lm.stats import scores
from lm.stats.scores import Examples, Score
from lm.tasks import _labelled, _spans
from lm.tasks._labelled import LabelledTask, Parts


@dataclasses.dataclass(frozen=True)
class Config(_labelled.Options):
    """Files, fine-tuning and amounts (lm/tasks/_labelled.py); an example is a sentence."""


class Task(LabelledTask):
    """`suits(objective)` says which models it measures; see lm/core/protocols.py."""

    kind = "words"
    metrics = (
        "f1",
        "strict_f1",
        "token_accuracy",
        "f1_own",
        "token_accuracy_own",
        "probe_f1",
        "probe_token_accuracy",
    )
    judged = "f1"
    extra = ("strict_f1",)

    def of_corpus(self) -> Parts:
        raise NotApplicable(
            "token_classification needs files with a word and its tag a line: give it the option path (and test), in CoNLL's columns, with"
            " tags in IOB2 (B-x begins a span, I-x continues it, O is outside)"
        )

    def labels(self, parts: Parts) -> list[str]:
        """The tags of all parts: a type that is asked may be too rare to be in training."""
        found = sorted({tag for items in parts.values() for item in items for tag in item.labels})
        if odd := [tag for tag in found if not _spans.valid(tag)]:
            raise UserError(
                f"token_classification reads tags in IOB2 (B-x, I-x, O), not {', '.join(map(repr, odd[:5]))}; convert the files"
            )
        if not any(tag.startswith("B-") for item in parts["test"] for tag in item.labels):
            raise UserError("token_classification: the test part has no span (B-x) to be found")
        return found

    def encoded(self, text: str, ids: list[int]) -> np.ndarray:
        """A word's ids; before a Chinese or Japanese character there is no space."""
        tokenizer = self.corpus.tokenizer
        alone = len(ids) > 1 and "\u2e80" <= text[0] and tokenizer.name(ids[0]) == "\u2581"
        return super().encoded(text, ids[1:] if alone else ids)

    def features(self, model, batch, dropout_keys):
        """Mean of the last hidden states of each word's pieces: [B, W, D]."""
        return _labelled.unit_means(model, batch, dropout_keys, batch["targets"].shape[1])

    def measure(self, part: str, predicted: np.ndarray) -> dict[str, Score]:
        """f1, strict_f1, token_accuracy; examples are sentences."""
        gold = [item.labels for item in self.parts[part]]
        ends = np.cumsum([len(tags) for tags in gold])
        said = [[self.classes[each] for each in tags] for tags in np.split(predicted, ends[:-1])]
        hits = [
            int(sum(a == b for a, b in zip(*both, strict=True)))
            for both in zip(gold, said, strict=True)
        ]
        accuracy = Examples(
            np.array(hits, np.float64), np.array(list(map(len, gold)), np.float64), self.asked
        )
        return {
            "f1": self._f1(gold, said, False),
            "strict_f1": self._f1(gold, said, True),
            "token_accuracy": scores.fraction(sum(hits), int(ends[-1]), accuracy),
        }

    def _f1(self, gold, said, strict: bool) -> Score:
        """2 · found / (predicted + there), a ratio of sums over sentences; it counts the spans that are there."""
        found = np.array(_spans.counts(gold, said, strict), np.float64)
        found[:, 0] *= 2
        there = sum(len(_spans.spans(tags, strict)) for tags in gold)
        value = float(found[:, 0].sum() / max(1.0, found[:, 1].sum()))
        return Score(
            value, there, "share", "higher", Examples(found[:, 0], found[:, 1], self.asked)
        )

    def baselines(self, program) -> dict[str, dict[str, Score]]:
        """The most frequent tag of each word in training, for a word that was not there that of all; and the most frequent tag of all."""
        tags = collections.defaultdict[object, collections.Counter](collections.Counter)
        for item in self.parts["train"]:
            for word, tag in zip(item.asked, item.labels, strict=True):
                tags[word][tag] += 1
        usual = collections.Counter(self.answers["train"].tolist()).most_common(1)[0][0]
        known = {
            word: self.classes.index(counted.most_common(1)[0][0]) for word, counted in tags.items()
        }
        words = [word for item in self.parts["test"] for word in item.asked]
        return {
            "each word's usual tag": self.baseline(
                np.array([known.get(word, usual) for word in words])
            ),
            "majority": self.baseline(self.majority()),
        }
