"""Tags of words, such as names of persons and places, by fine-tuning and by a linear probe.

The metrics are the F1 of complete spans and the accuracy per word. The files are published data
sets in CoNLL's columns, tagged in IOB2. A word's tag is predicted from the mean of the last hidden
states of its tokens; a model that reads from left to right has read the complete word only at its
last token.
"""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float, Int64, Integer

from lm.core.plugins import NotApplicable, UserError
from lm.core.protocols import Batch, Model
from lm.nn.layers import DropoutKeys
from lm.stats import scores
from lm.stats.scores import Examples, Score
from lm.tasks import _labelled, _spans
from lm.tasks._labelled import LabelledTask, Parts
from lm.training.program import Program


@dataclasses.dataclass(frozen=True)
class Config(_labelled.Options):
    """Options of lm/tasks/_labelled.py, where an example is a sentence."""


class Task(LabelledTask):
    """F1 of spans of tagged words (CoNLL-2003's evaluation), and accuracy of tags."""

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
    selection_metric = "f1"
    tuned_only = ("strict_f1",)

    def corpus_parts(self) -> Parts:
        raise NotApplicable(
            "token_classification needs files with a word and its tag per line: give it the option"
            " path (and test), in CoNLL's columns, with tags in IOB2 (B-x begins a span, I-x"
            " continues it, O is outside)"
        )

    def class_names(self, parts: Parts) -> list[str]:
        """The tags of all parts: a type of the test part may be too rare to occur in training."""
        tags = sorted({tag for items in parts.values() for item in items for tag in item.labels})
        if invalid := [tag for tag in tags if not _spans.is_valid(tag)]:
            raise UserError(
                "token_classification reads tags in IOB2 (B-x, I-x, O), not"
                f" {', '.join(map(repr, invalid[:5]))}; convert the files"
            )
        if not any(tag.startswith("B-") for item in parts["test"] for tag in item.labels):
            raise UserError("token_classification: the test part has no span (B-x)")
        return tags

    def encoded(self, text: str, ids: list[int]) -> Int64[np.ndarray, "n"]:
        """A word's ids, without the space before a Chinese or Japanese character."""
        tokenizer = self.corpus.tokenizer
        has_space = len(ids) > 1 and "\u2e80" <= text[0] and tokenizer.name(ids[0]) == "\u2581"
        return super().encoded(text, ids[1:] if has_space else ids)

    def features(
        self, model: Model, batch: Batch, dropout_keys: DropoutKeys | None
    ) -> Float[Array, "B P D"]:
        """The mean of the last hidden states of each word's tokens."""
        return _labelled.unit_means(model, batch, dropout_keys, batch["targets"].shape[1])

    def measure(self, part: str, predicted: Integer[np.ndarray, "M"]) -> dict[str, Score]:
        """Evaluates predicted tags, with sentences as examples.

        Args:
          part: "train", "dev" or "test".
          predicted: the class of each word.

        Returns:
          {metric: Score}, fractions from 0 to 1:
            f1: F1 of spans; an `I-x` that continues no span begins one.
            strict_f1: F1 of spans; such an `I-x` is outside.
            token_accuracy: fraction of words whose tag is correct.
        """
        gold = [item.labels for item in self.parts[part]]
        counts = [len(tags) for tags in gold]
        guesses = [
            [self.classes[index] for index in sentence]
            for sentence in np.split(predicted, np.cumsum(counts)[:-1])
        ]
        hits = [
            sum(tag == guess for tag, guess in zip(*sentence, strict=True))
            for sentence in zip(gold, guesses, strict=True)
        ]
        examples = Examples(np.array(hits, np.float64), np.array(counts, np.float64), self.identity)
        return {
            "f1": self._f1(gold, guesses, False),
            "strict_f1": self._f1(gold, guesses, True),
            "token_accuracy": scores.fraction(sum(hits), sum(counts), examples),
        }

    def _f1(
        self, gold: Sequence[Sequence[str]], guesses: Sequence[Sequence[str]], strict: bool
    ) -> Score:
        """2 · exact / (predicted + gold), a ratio of sums over sentences; counts the gold spans."""
        counts = np.array(_spans.counts(gold, guesses, strict), np.float64)
        counts[:, 0] *= 2
        spans = sum(len(_spans.spans(tags, strict)) for tags in gold)
        value = float(counts[:, 0].sum() / max(1.0, counts[:, 1].sum()))
        examples = Examples(counts[:, 0], counts[:, 1], self.identity)
        return Score(value, spans, "share", "higher", examples)

    def baselines(self, program: Program) -> dict[str, dict[str, Score]]:
        """The most frequent tag of each word in training, and the most frequent tag of all.

        The first baseline gives words that are not in training the most frequent tag of all.
        """
        tags = collections.defaultdict[str, collections.Counter[str]](collections.Counter)
        for item in self.parts["train"]:
            for word, tag in zip(item.content, item.labels, strict=True):
                tags[word][tag] += 1
        majority = collections.Counter(self.targets["train"].tolist()).most_common(1)[0][0]
        by_word = {
            word: self.classes.index(counter.most_common(1)[0][0]) for word, counter in tags.items()
        }
        words = [word for item in self.parts["test"] for word in item.content]
        return {
            "each word's usual tag": self.baseline(
                np.array([by_word.get(word, majority) for word in words])
            ),
            "majority": self.baseline(self.majority()),
        }
