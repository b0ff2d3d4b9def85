"""What tasks with labels have in common: texts as the model knows its input, a linear probe, fine-tuning, baselines."""

import collections
import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from scipy import sparse

from lm.core import plugins
from lm.core.plugins import NotApplicable, UserError
from lm.core.protocols import Objective
from lm.data import labelled
from lm.finetuning import tuner
from lm.finetuning.tuner import Rows, Tuner
from lm.nn import heads
from lm.parallel import mesh as meshes
from lm.stats import scores
from lm.stats.scores import Score
from lm.tasks import _reading

MASKS = ("own", "bidirectional")
STRENGTHS = (
    0.003,
    0.03,
    0.3,
    3.0,
)  # inverse regularisation of the regressions, chosen by the development set
PROBED = 6000  # places from which a regression learns at most: words are many, and the last ones add little
SPECIALS = {"text": 2, "pair": 3, "words": 2}


@dataclasses.dataclass(frozen=True)
class Options(labelled.Files, tuner.Recipe):
    """Files (lm/data/labelled.py), fine-tuning (lm/finetuning/tuner.py), and how much of it.

    Attributes:
      train_most, dev_most, test_most: the most examples of each part, drawn alike in every run; 0 takes all.
      longest: tokens of an example; a longer text is cut, a longer sentence of tagged words goes on in another row.
      masks: under which a model is fine-tuned: its "own", and "bidirectional" where it has such a mask too.
    """

    train_most: int = 800
    dev_most: int = 200
    test_most: int = 1000
    longest: int = 62
    masks: tuple[str, ...] = MASKS

    def __post_init__(self):
        labelled.Files.__post_init__(self)
        tuner.Recipe.__post_init__(self)
        for field in ("train_most", "dev_most", "test_most"):
            if getattr(self, field) < 0:
                raise ValueError(f"{field}={getattr(self, field)} must not be negative (0: all)")
        if self.longest < 4:
            raise ValueError(f"longest={self.longest} must be at least 4 tokens")
        if not self.masks or not set(self.masks) <= set(MASKS):
            raise ValueError(f"masks={self.masks} should be one or both of {', '.join(MASKS)}")


@dataclasses.dataclass(frozen=True)
class Item:
    """An example: the ids of its one or two texts, or of each of its words; its labels; and what identifies it
    (texts or ids)."""

    units: Sequence[np.ndarray]
    labels: Sequence[str]
    asked: tuple


Parts = dict[str, list[Item]]  # "train", "dev", "test"


class LabelledTask:
    """A subclass names its kind, metrics and features, makes examples from the corpus, measures predictions, and adds baselines.

    Attributes:
      kind: "text", "pair" or "words". parts: the examples. classes: the labels, sorted. answers: of each part, a class for each place
        (a text, a pair, a word), one example after the other. pieces: of each part, the units of each row and how many answers it has.
    """

    kind = ""
    shared = True
    bounds: tuple[str, ...] = ()
    notes: Sequence[str] = ()
    by_name = True  # it trains
    metrics: tuple[str, ...] = ()
    judged = ""  # the metric that choices are made by
    extra: tuple[str, ...] = ()  # metrics that are given for the fine-tuned model alone

    def __init__(self, config: Options, corpus, split: str, length: int):
        try:
            import sklearn  # noqa: F401
        except ImportError:
            raise NotApplicable(
                "yardsticks with labels need scikit-learn: pip install 'lm[tasks]'"
            ) from None
        self.config, self.corpus, self.split, self.length = config, corpus, split, length
        self.name = type(self).__module__.rsplit(".", 1)[-1]
        self.longest = min(length, config.longest + SPECIALS[self.kind])
        self.notes = ()
        whole = self._published() if config.path else self.of_corpus()
        self.classes = self.labels(whole)
        rng = np.random.default_rng(0)
        self.parts: Parts = {}
        for part, most in (
            ("train", config.train_most),
            ("dev", config.dev_most),
            ("test", config.test_most),
        ):
            self.parts[part] = taken(whole[part], most, rng)
        number = {label: index for index, label in enumerate(self.classes)}
        self.answers = {
            part: np.array([number[each] for item in items for each in item.labels])
            for part, items in self.parts.items()
        }
        if len(set(self.answers["train"].tolist())) < 2:
            raise NotApplicable(
                f"{self.name} needs examples of at least two labels to learn from; there are: {', '.join(self.classes)}"
            )
        self.pieces = {part: self._pieces(items) for part, items in self.parts.items()}
        self.asked = scores.identity(
            self.name,
            *(part for item in self.parts["test"] for part in (item.asked, tuple(item.labels))),
        )
        self._tuner: Tuner | None = None

    def of_corpus(self) -> Parts:
        """Examples from the corpus itself, where no files are given."""
        raise NotImplementedError

    def labels(self, parts: Parts) -> list[str]:
        """All classes; what is asked must have been there to learn."""
        known, asked = (
            {label for item in parts[part] for label in item.labels} for part in ("train", "test")
        )
        if asked - known:
            raise UserError(
                f"{self.name}: no training example has the label {', '.join(sorted(asked - known)[:5])}, which the test asks"
            )
        return sorted(known | {label for item in parts["dev"] for label in item.labels})

    def features(self, model, batch, dropout_keys) -> jax.Array:
        """What a head reads: [B, P, F] in float32."""
        raise NotImplementedError

    def measure(self, part: str, predicted: np.ndarray) -> dict[str, Score]:
        """Metrics by name of a predicted class for each place of a part."""
        raise NotImplementedError

    @staticmethod
    def suits(objective: Objective) -> bool:
        return True

    def score(self, program, params) -> dict[str, Score]:
        """Fine-tuned under a bidirectional mask, where the model has one; "_own" under its own; "probe_" by its frozen features."""
        if (
            self._tuner is None or self._tuner.program is not program
        ):  # the untrained model comes after the trained one, and shares its step
            self._tuner = Tuner(program, self.features, len(self.classes), self.config)
        tuner = self._tuner
        own = {part: self.rows(part, program, False) for part in self.parts}
        frozen = [
            tuner.frozen(params, own[part])[own[part]["weights"] > 0].astype(np.float64)
            for part in ("train", "dev", "test")
        ]
        centre, spread = frozen[0].mean(0), frozen[0].std(0) + 1e-6
        probe = self.measure("test", self.regress([(side - centre) / spread for side in frozen]))
        found: dict[str, dict[str, Score]] = {}
        can = not _reading.sees_all(program.objective) and "prefix" in _masks(
            program
        )  # it has another mask, under which it sees all
        for mask in self.config.masks:
            if mask == "bidirectional" and not can and found:
                continue  # its own is that already
            rows = (
                {part: self.rows(part, program, True) for part in self.parts}
                if mask == "bidirectional" and can
                else own
            )
            tuned = tuner.run(
                params, rows["train"], rows["dev"], functools.partial(self._judge, rows["dev"])
            )
            found[mask] = self.measure(
                "test",
                _places(tuner.logits(tuned.params, tuned.head, rows["test"]), rows["test"]).argmax(
                    -1
                ),
            )
        main = found.get("bidirectional") or found["own"]
        return self.named(main, found.get("own", main if not can else None), probe)

    def named(
        self, main: dict[str, Score], own: dict[str, Score] | None, probe: dict[str, Score]
    ) -> dict[str, Score]:
        """The metrics under their names."""
        others = {
            f"{name}_own": score for name, score in (own or {}).items() if name not in self.extra
        }
        return (
            main
            | others
            | {f"probe_{name}": score for name, score in probe.items() if name not in self.extra}
        )

    def baseline(self, predicted: np.ndarray) -> dict[str, Score]:
        """A baseline's predictions on the test part, under all names that a model's have."""
        found = self.measure("test", predicted)
        return self.named(found, found, found)

    def regress(self, sides: list[Any]) -> np.ndarray:
        """Classes of the test part's places by logistic regression.

        Args:
          sides: features of the places of train, dev and test, [N, F] each, dense or sparse.
        """
        from sklearn.linear_model import LogisticRegression

        def fit(strength: float):
            return LogisticRegression(C=strength, max_iter=2000, tol=1e-3).fit(
                sides[0][:PROBED], self.answers["train"][:PROBED]
            )

        def value(fitted) -> tuple[float, float]:
            """The judged metric on dev; among equals the likelihood, where every class has a little."""
            chance = np.zeros((sides[1].shape[0], len(self.classes)))
            chance[:, fitted.classes_] = fitted.predict_proba(sides[1])
            likely = np.log(chance[np.arange(len(chance)), self.answers["dev"]] + 1e-6).mean()
            return self.measure("dev", fitted.predict(sides[1]))[self.judged].value, float(likely)

        return max(map(fit, STRENGTHS), key=value).predict(sides[2])

    def majority(self) -> np.ndarray:
        """The most frequent class of training, for each place of the test part."""
        return np.full(
            len(self.answers["test"]),
            collections.Counter(self.answers["train"].tolist()).most_common(1)[0][0],
        )

    def bags(self, unit: int) -> list[sparse.csr_matrix]:
        """log(1 + count) of the tokens of the unit of each example: [N, V], of train, dev and test."""
        found = []
        for part in ("train", "dev", "test"):
            texts = [item.units[unit] for item in self.parts[part]]
            owner = np.repeat(np.arange(len(texts)), [len(each) for each in texts])
            bag = sparse.coo_matrix(
                (np.ones(len(owner)), (owner, np.concatenate(texts))),
                (len(texts), self.corpus.tokenizer.size),
            ).tocsr()
            bag.data = np.log1p(bag.data)
            found.append(bag)
        return found

    def rows(self, part: str, program, bidirectional: bool) -> Rows:
        """A part's examples as the model knows its input (lm/tasks/_reading.py). `units` numbers the texts or words from 1.

        Args:
          bidirectional: whether a decoder sees the whole row; else its own mask holds, which is all of it where it was trained so.
        """
        first, between, last = _reading.edges(program.objective, self.corpus.tokenizer)
        pieces = self.pieces[part]
        T, P = (
            self._width(program),
            max(count for each in self.pieces.values() for _, count in each),
        )
        rows: Rows = {
            name: np.zeros((len(pieces), T), np.int32)
            for name in ("tokens", "segments", "positions", "units", "types")
        }
        rows |= {
            "targets": np.zeros((len(pieces), P), np.int32),
            "weights": np.zeros((len(pieces), P), np.float32),
        }
        rows["tokens"][:] = self.corpus.tokenizer.pad
        start = 0  # of the row's answers
        for row, (units, count) in enumerate(pieces):
            ids, numbers = list(first), [0] * len(first)
            for number, unit in enumerate(units, 1):
                middle = between if number > 1 and self.kind == "pair" else []
                ids += [*middle, *unit]
                numbers += [0] * len(middle) + [number] * len(unit)
            used = len(ids) + len(last)
            rows["tokens"][row, :used] = ids + last
            rows["units"][row, : len(ids)] = numbers
            rows["segments"][row, :used] = 1
            rows["positions"][row, :used] = np.arange(used)
            if self.kind == "pair":
                rows["types"][row, numbers.index(2) : used] = 1
            rows["targets"][row, :count] = self.answers[part][start : start + count]
            rows["weights"][row, :count] = 1.0
            start += count
        if program.objective.mask != "bidirectional":
            del rows["types"]
        if "prefix" in _masks(program):
            rows["prefix"] = rows["segments"] * np.int32(
                bidirectional or _reading.sees_all(program.objective)
            )
        return rows

    def _judge(self, dev: Rows, logits_NPC: np.ndarray) -> float:
        return self.measure("dev", _places(logits_NPC, dev).argmax(-1))[self.judged].value

    def _width(self, program) -> int:
        """Positions of a row: no more than any part needs, and what the mesh divides."""
        most = (
            max(sum(map(len, units)) for each in self.pieces.values() for units, _ in each)
            + SPECIALS[self.kind]
        )
        step = math.lcm(8, meshes.parts("sequence", program.mesh))
        width = -(-most // step) * step
        return width if width <= self.length else self.length

    def _pieces(self, items: list[Item]) -> list[tuple[list[np.ndarray], int]]:
        """The units of each row, cut to fit, and how many answers it has."""
        room = self.longest - SPECIALS[self.kind]
        if self.kind == "text":
            return [([item.units[0][:room]], 1) for item in items]
        if self.kind == "pair":
            return [(_fitted(item.units[0], item.units[1], room), 1) for item in items]
        found = []
        for item in items:
            row: list[np.ndarray] = []
            for word in item.units:
                if row and sum(map(len, row)) + min(len(word), room) > room:
                    found.append((row, len(row)))
                    row = []
                row.append(word[:room])
            found.append((row, len(row)))
        return found

    def _published(self) -> Parts:
        """Examples of the files, encoded."""
        read = labelled.read(self.config, self.kind, self.split, f"tasks.{self.name}")
        if read.note:
            logging.warning("%s: %s", self.name, read.note)
            self.notes = (read.note,)
        encode = self.corpus.tokenizer.encode_batch
        parts: Parts = {}
        for part, examples in (("train", read.train), ("dev", read.dev), ("test", read.test)):
            texts = list(dict.fromkeys(each for example in examples for each in example.texts))
            ids = dict(zip(texts, map(self.encoded, texts, encode(texts)), strict=True))
            parts[part] = [
                Item([ids[each] for each in example.texts], example.labels, example.texts)
                for example in examples
            ]
        return parts

    def encoded(self, text: str, ids: list[int]) -> np.ndarray:
        """A text's ids; one at least."""
        return np.asarray(ids or [self.corpus.tokenizer.unk], np.int64)


def states(model, batch, dropout_keys) -> jax.Array:
    """Features of each position in float32, [B, T, D]."""
    return model.features(batch, dropout_keys).astype(jnp.float32)


def text_mean(model, batch, dropout_keys) -> jax.Array:
    """Mean of the last hidden states of a row: [B, 1, D]."""
    return heads.mean(states(model, batch, dropout_keys), batch["segments"][:, None, :] > 0)


def unit_means(model, batch, dropout_keys, count: int) -> jax.Array:
    """Mean of the last hidden states of each unit of a row: [B, count, D]."""
    return heads.mean(
        states(model, batch, dropout_keys),
        batch["units"][:, None, :] == jnp.arange(1, count + 1)[None, :, None],
    )


def class_scores(answers: np.ndarray, predicted: np.ndarray, asked: str) -> dict[str, Score]:
    """accuracy; macro_f1, the mean of the F1 of every class that was asked or answered."""
    hits = answers == predicted
    examples = scores.Examples(hits.astype(np.float64), np.ones(len(hits)), asked)
    f1 = []
    for label in np.union1d(answers, predicted):
        right = int((hits & (answers == label)).sum())
        f1.append(2 * right / int((answers == label).sum() + (predicted == label).sum()))
    return {
        "accuracy": scores.fraction(int(hits.sum()), len(hits), examples),
        "macro_f1": Score(float(np.mean(f1)), len(hits), "share", "higher"),
    }


def taken(items: Sequence[Any], most: int, rng: np.random.Generator) -> list[Any]:
    """Up to `most` of the items (0: all), in an order without pattern."""
    order = rng.permutation(len(items))
    return [items[at] for at in (order[:most] if most else order)]


def _places(logits_NPC: np.ndarray, rows: Rows) -> np.ndarray:
    """Scores of the places that are there, one row after the other: [M, C]."""
    return logits_NPC[rows["weights"] > 0]


def _masks(program) -> tuple[str, ...]:
    return plugins.find("models", program.model_name).Model.masks


def _fitted(a: np.ndarray, b: np.ndarray, room: int) -> list[np.ndarray]:
    """Two texts, cut at the end, the longer one first, until both fit."""
    over = len(a) + len(b) - room
    if over <= 0:
        return [a, b]
    short = min(len(a), len(b), room // 2)
    return [a[:short], b[: room - short]] if len(a) <= len(b) else [a[: room - short], b[:short]]
