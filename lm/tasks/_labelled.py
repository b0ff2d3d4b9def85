"""Shared by tasks with labels: a linear probe, fine-tuning, and baselines on labelled examples."""

import collections
import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import TypeAlias, TypeVar

import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Array, Float, Int64, Integer
from scipy import sparse

from lm.core.plugins import NotApplicable, UserError
from lm.core.protocols import Batch, Model, Objective, Params
from lm.data import labelled
from lm.data.corpus import Corpus
from lm.finetuning import tuner
from lm.finetuning.tuner import Rows, Tuner
from lm.nn import heads
from lm.nn.layers import DropoutKeys
from lm.parallel import sharding
from lm.stats import scores
from lm.stats.scores import Score
from lm.tasks import _bags, _labelled_rows, _reading, _text
from lm.tasks._labelled_rows import SPECIALS, Item
from lm.training.program import Program

MASKS = ("own", "bidirectional")
STRENGTHS = (0.003, 0.03, 0.3, 3.0)  # inverse regularizations, one of which the dev part selects
PROBED = 6000  # maximum number of targets to fit a regression on; more words add little
PARTS = ("train", "dev", "test")

Parts = dict[str, list[Item]]  # by PARTS
Features: TypeAlias = np.ndarray | sparse.csr_matrix  # [N, F]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Options(labelled.Files, tuner.Recipe):
    """Options of files (lm/data/labelled.py), fine-tuning (lm/finetuning/tuner.py), and amounts.

    Attributes:
      train_most: maximum number of training examples, the same in every run; 0 means all.
      dev_most: maximum number of examples to select by; 0 means all.
      test_most: maximum number of examples to evaluate on; 0 means all.
      longest: maximum number of tokens of an example. A longer text is cut; a longer sentence of
        tagged words continues in another row.
      masks: attention masks for fine-tuning a model: its "own", and "bidirectional" if the model
        also has a bidirectional mask.
    """

    train_most: int = 800
    dev_most: int = 200
    test_most: int = 1000
    longest: int = 62
    masks: tuple[str, ...] = MASKS

    def __post_init__(self) -> None:
        labelled.Files.__post_init__(self)
        tuner.Recipe.__post_init__(self)
        for field in ("train_most", "dev_most", "test_most"):
            if getattr(self, field) < 0:
                raise ValueError(f"{field}={getattr(self, field)} must not be negative (0: all)")
        if self.longest < 4:
            raise ValueError(f"longest={self.longest} must be at least 4 tokens")
        if not self.masks or not set(self.masks) <= set(MASKS):
            raise ValueError(f"masks={self.masks} should be one or both of {', '.join(MASKS)}")


class LabelledTask:
    """Trains on labelled examples and evaluates on others.

    A subclass sets `kind`, `metrics`, `selection_metric` and `tuned_only`. It defines `features`,
    `measure` and `baselines`, and `corpus_parts` if the corpus itself has examples.

    Attributes:
      kind: "text", "pair" or "words".
      selection_metric: metric by which learning rate, epoch and regularization are selected.
      tuned_only: metrics that are reported for the fine-tuned model only.
      parts: part → its examples.
      classes: the labels, sorted.
      targets: part → class of each text, pair or word, one example after another.
      pieces: part → contents of the rows, one piece per row.
      identity: hash of the examples of the test part.
    """

    kind = ""
    metrics: tuple[str, ...] = ()
    selection_metric = ""
    tuned_only: tuple[str, ...] = ()
    shared = True
    by_name = True  # runs on request only, because it trains
    bounds: tuple[str, ...] = ()
    notes: Sequence[str] = ()

    def __init__(self, config: Options, corpus: Corpus, split: str, length: int):
        try:
            import sklearn  # noqa: F401
        except ImportError:
            raise NotApplicable(
                "tasks with labels need scikit-learn: pip install -e '.[tasks]'"
            ) from None
        self.config, self.corpus, self.split, self.length = config, corpus, split, length
        self.name = type(self).__module__.rsplit(".", 1)[-1]
        self.longest = min(length, config.longest + SPECIALS[self.kind])
        everything = self._file_parts() if config.path else self.corpus_parts()
        self.classes = self.class_names(everything)
        rng = np.random.default_rng(0)
        most = (config.train_most, config.dev_most, config.test_most)
        self.parts: Parts = {
            part: sample(everything[part], count, rng)
            for part, count in zip(PARTS, most, strict=True)
        }
        number = {label: index for index, label in enumerate(self.classes)}
        self.targets: dict[str, np.ndarray] = {
            part: np.array([number[label] for item in items for label in item.labels])
            for part, items in self.parts.items()
        }
        if len(set(self.targets["train"].tolist())) < 2:
            raise NotApplicable(
                f"{self.name} needs examples of at least two labels to learn from; there are:"
                f" {', '.join(self.classes)}"
            )
        self.pieces = {
            part: _labelled_rows.split(items, self.kind, self.longest)
            for part, items in self.parts.items()
        }
        self.identity = scores.identity(
            self.name,
            *(part for item in self.parts["test"] for part in (item.content, tuple(item.labels))),
        )
        self._tuner: Tuner | None = None

    def corpus_parts(self) -> Parts:
        """Examples from the corpus itself, used if no files are given."""
        raise NotImplementedError

    def class_names(self, parts: Parts) -> list[str]:
        """All labels, sorted.

        Raises:
          UserError: the test part has a label that no training example has.
        """
        labels = {
            part: {label for item in items for label in item.labels}
            for part, items in parts.items()
        }
        if unseen := sorted(labels["test"] - labels["train"]):
            raise UserError(
                f"{self.name}: no training example has the label {', '.join(unseen[:5])}, which is"
                " in the test part"
            )
        return sorted(labels["train"] | labels["dev"])

    def features(
        self, model: Model, batch: Batch, dropout_keys: DropoutKeys | None
    ) -> Float[Array, "B P F"]:
        """The inputs of the new head for each of P targets of a row, float32."""
        raise NotImplementedError

    def measure(self, part: str, predicted: Integer[np.ndarray, "M"]) -> dict[str, Score]:
        """Evaluates predicted classes.

        Args:
          part: "train", "dev" or "test".
          predicted: the class of each of the M targets of the part.

        Returns:
          {metric: Score}.
        """
        raise NotImplementedError

    @staticmethod
    def suits(objective: Objective) -> bool:
        """Every model can be fine-tuned."""
        return True

    def score(self, program: Program, params: Params) -> dict[str, Score]:
        """Evaluates the fine-tuned model and a linear probe.

        Returns:
          {metric: Score}, with the metrics of `measure` under three names:
            metric: fine-tuned under a bidirectional mask if the model has one, else as metric_own.
            metric_own: fine-tuned under the mask of the model's training.
            probe_metric: a logistic regression on the model's features, which are not trained.
        """
        # The untrained model comes after the trained one and shares its compiled step.
        if self._tuner is None or self._tuner.program is not program:
            self._tuner = Tuner(program, self.features, len(self.classes), self.config)
        own_rows = {part: self.rows(part, program, False) for part in PARTS}
        probe = self.measure("test", self._probe(self._tuner, params, own_rows))
        has_second_mask = (
            not _reading.is_bidirectional(program.objective)
            and "prefix" in program.architecture.masks
        )
        tuned: dict[str, dict[str, Score]] = {}
        for mask in self.config.masks:
            if mask == "bidirectional" and has_second_mask:
                rows = {part: self.rows(part, program, True) for part in PARTS}
            elif mask == "bidirectional" and tuned:
                continue  # the model's own mask is bidirectional, or its only mask
            else:
                rows = own_rows
            tuned[mask] = self.measure("test", self._tune(self._tuner, params, rows))
        main = tuned.get("bidirectional") or tuned["own"]
        return self.named(main, tuned.get("own", None if has_second_mask else main), probe)

    def _probe(
        self, tuner: Tuner, params: Params, rows: dict[str, Rows]
    ) -> Integer[np.ndarray, "M"]:
        """Classes of the test part's targets by a regression on features that are not trained."""
        features = [
            _at_targets(tuner.frozen(params, rows[part]), rows[part]).astype(np.float64)
            for part in PARTS
        ]
        center, spread = features[0].mean(0), features[0].std(0) + 1e-6
        return self.regress([(part - center) / spread for part in features])

    def _tune(
        self, tuner: Tuner, params: Params, rows: dict[str, Rows]
    ) -> Integer[np.ndarray, "M"]:
        """Classes of the test part's targets by the fine-tuned model."""
        tuned = tuner.run(
            params, rows["train"], rows["dev"], functools.partial(self._select, rows["dev"])
        )
        logits_NPC = tuner.logits(tuned.params, tuned.head, rows["test"])
        return _at_targets(logits_NPC, rows["test"]).argmax(-1)

    def _select(self, dev: Rows, logits_NPC: Float[np.ndarray, "N P C"]) -> float:
        predicted = _at_targets(logits_NPC, dev).argmax(-1)
        return self.measure("dev", predicted)[self.selection_metric].value

    def named(
        self, main: dict[str, Score], own: dict[str, Score] | None, probe: dict[str, Score]
    ) -> dict[str, Score]:
        """Metrics under the names that `score` returns.

        Args:
          main: metrics under the bidirectional mask if there is one, else under the model's own.
          own: metrics under the model's own mask; None if it was not requested.
          probe: metrics of the linear probe.
        """
        result = dict(main)
        for form, metrics in (("{}_own", own or {}), ("probe_{}", probe)):
            for name, value in metrics.items():
                if name not in self.tuned_only:
                    result[form.format(name)] = value
        return result

    def baseline(self, predicted: Integer[np.ndarray, "M"]) -> dict[str, Score]:
        """Scores of a baseline's predictions on the test part, under all names of metrics."""
        metrics = self.measure("test", predicted)
        return self.named(metrics, metrics, metrics)

    def regress(self, features: Sequence[Features]) -> Integer[np.ndarray, "M"]:
        """Classes of the test part's targets by logistic regression.

        Args:
          features: features of the targets of train, dev and test: three arrays [M, F], dense or
            sparse.
        """
        from sklearn.linear_model import LogisticRegression

        train, dev, test = features

        def fit(strength: float) -> LogisticRegression:
            return LogisticRegression(C=strength, max_iter=2000, tol=1e-3).fit(
                train[:PROBED], self.targets["train"][:PROBED]
            )

        def value(fitted: LogisticRegression) -> tuple[float, float]:
            """The selection metric on dev; at ties the log-likelihood, with a floor of 1e-6."""
            p_MC = np.zeros((dev.shape[0], len(self.classes)))
            p_MC[:, fitted.classes_] = fitted.predict_proba(dev)
            log_p = np.log(p_MC[np.arange(len(p_MC)), self.targets["dev"]] + 1e-6).mean()
            metrics = self.measure("dev", fitted.predict(dev))
            return metrics[self.selection_metric].value, float(log_p)

        return max(map(fit, STRENGTHS), key=value).predict(test)

    def majority(self) -> Int64[np.ndarray, "M"]:
        """The most frequent class of training, for each target of the test part."""
        most_common = collections.Counter(self.targets["train"].tolist()).most_common(1)[0][0]
        return np.full(len(self.targets["test"]), most_common)

    def bags(self, unit: int) -> list[sparse.csr_matrix]:
        """Bags of tokens of one unit of each example in train, dev and test, each [N, V]."""
        return [
            _bags.log_counts(
                [item.units[unit] for item in self.parts[part]], self.corpus.tokenizer.size
            )
            for part in PARTS
        ]

    def rows(self, part: str, program: Program, bidirectional: bool) -> Rows:
        """Lays out the examples of a part (lm/tasks/_labelled_rows.py).

        Args:
          part: "train", "dev" or "test".
          program: the model's program.
          bidirectional: whether a decoder reads the row bidirectionally. Otherwise it reads the row
            under the mask of its training, which may also be bidirectional.
        """
        pieces = [piece for items in self.pieces.values() for piece in items]
        rows = _labelled_rows.lay_out(
            self.pieces[part],
            self.targets[part],
            program.objective,
            self.corpus.tokenizer,
            self.kind,
            self._width(program),
            max(piece.count for piece in pieces),
        )
        if "prefix" in program.architecture.masks:
            rows["prefix"] = rows["segments"] * np.int32(
                bidirectional or _reading.is_bidirectional(program.objective)
            )
        return rows

    def _width(self, program: Program) -> int:
        """Positions of a row: the smallest number that fits all parts and that the mesh divides."""
        pieces = [piece for items in self.pieces.values() for piece in items]
        most = max(sum(map(len, piece.units)) for piece in pieces) + SPECIALS[self.kind]
        step = math.lcm(8, sharding.parts("sequence", program.mesh))
        width = -(-most // step) * step
        return width if width <= self.length else self.length

    def _file_parts(self) -> Parts:
        """Examples of the files, encoded."""
        examples = labelled.read(self.config, self.kind, self.split, f"tasks.{self.name}")
        if examples.note:
            logging.warning("%s: %s", self.name, examples.note)
            self.notes = (examples.note,)
        parts: Parts = {}
        for part in PARTS:
            texts = list(
                dict.fromkeys(text for example in getattr(examples, part) for text in example.texts)
            )
            encoded = _text.encode(self.corpus.tokenizer, texts)
            ids = dict(zip(texts, map(self.encoded, texts, encoded), strict=True))
            parts[part] = [
                Item([ids[text] for text in example.texts], example.labels, example.texts)
                for example in getattr(examples, part)
            ]
        return parts

    def encoded(self, text: str, ids: list[int]) -> Int64[np.ndarray, "n"]:
        """The ids of a text as an array; [UNK] if there are none."""
        return np.asarray(ids or [self.corpus.tokenizer.unk], np.int64)


def states(model: Model, batch: Batch, dropout_keys: DropoutKeys | None) -> Float[Array, "B T D"]:
    """The model's last hidden state of each position, in float32.

    Args:
      model: the model.
      batch: rows of texts.
      dropout_keys: keys of the step; None without dropout.
    """
    return model.features(batch, dropout_keys).astype(jnp.float32)


def text_mean(
    model: Model, batch: Batch, dropout_keys: DropoutKeys | None
) -> Float[Array, "B 1 D"]:
    """The mean of a row's last hidden states.

    Args:
      model: the model.
      batch: rows of texts.
      dropout_keys: keys of the step; None without dropout.
    """
    return heads.mean(states(model, batch, dropout_keys), batch["segments"][:, None, :] > 0)


def unit_means(
    model: Model, batch: Batch, dropout_keys: DropoutKeys | None, count: int
) -> Float[Array, "B {count} D"]:
    """The mean of the last hidden states of each unit of a row.

    Args:
      model: the model.
      batch: a batch with `units`, int32 [B, T]: the number of each token's unit, from 1.
      dropout_keys: keys of dropout; None disables it.
      count: maximum number of units of a row.
    """
    return heads.mean(
        states(model, batch, dropout_keys),
        batch["units"][:, None, :] == jnp.arange(1, count + 1)[None, :, None],
    )


def class_scores(
    targets: Integer[np.ndarray, "M"], predicted: Integer[np.ndarray, "M"], identity: str
) -> dict[str, Score]:
    """Evaluates predicted classes.

    Args:
      targets: true class of each of M targets, [M].
      predicted: predicted class of each target, [M].
      identity: hash of the examples.

    Returns:
      {metric: Score}, fractions from 0 to 1:
        accuracy: fraction of targets whose class is predicted.
        macro_f1: mean F1 of all classes that are a target or predicted.
    """
    hits = targets == predicted
    examples = scores.Examples(hits.astype(np.float64), np.ones(len(hits)), identity)
    f1 = []
    for label in np.union1d(targets, predicted):
        correct = int((hits & (targets == label)).sum())
        f1.append(2 * correct / int((targets == label).sum() + (predicted == label).sum()))
    return {
        "accuracy": scores.fraction(int(hits.sum()), len(hits), examples),
        "macro_f1": Score(float(np.mean(f1)), len(hits), "share", "higher"),
    }


def sample(items: Sequence[T], most: int, rng: np.random.Generator) -> list[T]:
    """Up to `most` of the items, in random order.

    Args:
      items: the items to choose from.
      most: maximum number of items; 0 means all.
      rng: generator of the random order.
    """
    order = rng.permutation(len(items))
    return [items[at] for at in (order[:most] if most else order)]


def _at_targets(values_NPF: Float[np.ndarray, "N P F"], rows: Rows) -> Float[np.ndarray, "M F"]:
    """The values at the rows' targets, one row after another."""
    return values_NPF[rows["weights"] > 0]
