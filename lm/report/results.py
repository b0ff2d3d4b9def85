"""Cached scores and differences of a comparison, and display names of tasks and metrics."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lm.report import scores
from lm.report.comparison import Comparison, Row
from lm.report.scores import Score
from lm.stats import hypothesis_tests
from lm.stats.intervals import Estimate

TASKS = {
    "causal": "next token",
    "suffix": "second half of a text",
    "masked": "masked token",
    "denoising": "masked spans",
    "next_sentence": "next sentence",
    "sentence_order": "sentence order",
    "probe": "linear probe",
    "minimal_pairs": "minimal pairs",
    "last_word": "last word",
    "recall": "associative recall",
    "brackets": "nested brackets",
    "grammar": "probabilistic grammar",
}
# Caveats for comparisons between arms, by task plug-in.
NOTES = {
    "last_word": "Masked models are given the number of pieces in the last word; other models are"
    " not."
}
METRICS = {
    "nll": "negative log-likelihood",
    "ce": "cross-entropy",
    "accuracy_first": "accuracy of the first answer",
}
_TOKENS = ("causal", "suffix", "masked", "denoising")
# Up to this many arms, all pairs are compared; otherwise each arm with the reference.
_ALL_PAIRS = 6
_UNTRAINED = "untrained "
INTERVAL = ("95 % interval", "r")  # column of a table


@dataclass(frozen=True, slots=True)
class Gap:
    """The paired difference first - second of two arms on one metric.

    Attributes:
      first: name of the first arm.
      second: name of the second arm, or of a baseline or untrained model.
      estimate: the difference with its interval.
      p: two-sided p of the difference against 0; None without an interval.
      effect: effect size, Hedges' g; None without a deviation over seeds.
    """

    first: str
    second: str
    estimate: Estimate
    p: float | None
    effect: float | None


class Results:
    """The scores of a comparison.

    Attributes:
      comparison: records of the comparison.
      workdir: directory of the comparison.
      score: (arm, task, metric) -> `Score`, or None without a score.
      gap: (first, second, task, metric) -> `Gap`, or None if there is nothing to pair.
      entries: (task, own=None) -> names with a score on a task; see `scores.entries`.
    """

    def __init__(self, comparison: Comparison, workdir: Path) -> None:
        self.comparison, self.workdir = comparison, workdir
        rows: dict[tuple[str, str], list[Row]] = {}
        for row in comparison.rows:
            rows.setdefault((row.task, row.metric), []).append(row)
        # Scores are searched among the rows of their own metric only.
        self._parts = {
            key: dataclasses.replace(comparison, rows=metric_rows)
            for key, metric_rows in rows.items()
        }
        self.score = functools.cache(self._score)
        self.gap = functools.cache(self._gap)
        self.entries = functools.cache(functools.partial(scores.entries, comparison))

    def _score(self, arm: str, task: str, metric: str) -> Score | None:
        part = self._parts.get((task, metric))
        return scores.score(part, arm, task, metric) if part else None

    def _gap(self, first: str, second: str, task: str, metric: str) -> Gap | None:
        one, other = self.score(first, task, metric), self.score(second, task, metric)
        gap = scores.contrast(one, other) if one and other else None
        return Gap(first, second, gap.estimate, gap.p, gap.effect) if gap else None

    def metrics(self, own: bool, parts: bool = False) -> dict[str, list[str]]:
        """Returns the metrics by task.

        Args:
          own: True for the tasks of the arms' own objectives, False for tasks shared by all arms.
          parts: True for metrics of a subset of the examples, such as
            "accuracy/anaphor_agreement", False for metrics of all examples.
        """
        by_task = {}
        for task, names in self._metrics[own].items():
            if selected := [name for name in names if ("/" in name) == parts]:
                by_task[task] = selected
        return by_task

    @functools.cached_property
    def _metrics(self) -> dict[bool, dict[str, list[str]]]:
        return {own: scores.metrics(self.comparison, own) for own in (False, True)}

    def row(self, task: str, metric: str) -> Row:
        """Returns one row of a metric, for its unit and direction.

        Args:
          task: name of the task.
          metric: name of the metric.
        """
        return self._parts[task, metric].rows[0]

    def rows(self, task: str, metric: str) -> list[Row]:
        """Returns all rows of a metric.

        Args:
          task: name of the task.
          metric: name of the metric.
        """
        return self._parts[task, metric].rows

    def arms(self, task: str, metric: str) -> list[str]:
        """Returns the arms with a score over at least one seed, in the comparison's order.

        Args:
          task: name of the task.
          metric: name of the metric.
        """
        return [
            arm
            for arm in self.comparison.arms
            if (score := self.score(arm, task, metric)) and score.estimate.n
        ]

    def index(self, arm: str) -> int | None:
        """Returns the arm's index, which determines its color, line style and marker.

        Returns None for a baseline or untrained model.
        """
        arms = list(self.comparison.arms)
        return arms.index(arm) if arm in arms else None

    def reference(self, arms: list[str]) -> str:
        """Returns the experiment's reference arm if it is among `arms`, otherwise the first arm."""
        reference = self.comparison.record.get("reference")
        return reference if reference in arms else arms[0]

    def pairs(self, task: str, metric: str) -> list[tuple[str, str]]:
        """Returns the pairs of arms to compare.

        These are all pairs of a few arms, or each of many arms with the reference. Arms with
        different multiples of the budget are not compared.

        Args:
          task: name of the task.
          metric: name of the metric.

        Returns:
          (first, second) names of each pair of arms.
        """
        pairs: list[tuple[str, str]] = []
        for arms in self.groups(self.arms(task, metric)).values():
            reference = self.reference(arms)
            pairs += (
                itertools.combinations(arms, 2)
                if len(arms) <= _ALL_PAIRS
                else [(arm, reference) for arm in arms if arm != reference]
            )
        return pairs

    def groups(self, arms: list[str]) -> dict[float, list[str]]:
        """Returns `arms` by their multiple of the budget: the arms of a group are comparable."""
        groups = {
            multiple: [arm for arm in arms if arm in group]
            for multiple, group in sorted(self.comparison.arms_by_multiple().items())
        }
        return {multiple: group for multiple, group in groups.items() if group}

    def budget_note(self, arms: list[str]) -> str:
        """Returns a caveat if `arms` have different multiples of the budget, otherwise ""."""
        several = len(self.groups([arm for arm in arms if arm in self.comparison.arms])) > 1
        return (
            " Arms with different multiples of the budget are shown together; compare only arms"
            " with the same multiple."
            if several
            else ""
        )

    @property
    def has_shared_task(self) -> bool:
        """Whether the experiment has a task shared by all arms, as all older records have."""
        tasks = self.comparison.record.get("tasks") or {}
        return not tasks or any(task.get("shared", True) for task in tasks.values())

    def untrained(self, arm: str) -> str:
        """Returns the name of the untrained model that an arm is compared with."""
        description = self.comparison.arms[arm]
        return str(description.get("untrained") or _UNTRAINED + str(description.get("model")))

    def plug_in(self, task: str) -> str:
        """Returns the plug-in of a task, which may have another name in the experiment."""
        return str((self.comparison.record.get("tasks") or {}).get(task, {}).get("task") or task)

    def task_notes(self, tasks: Iterable[str]) -> str:
        """Returns the caveats of these tasks, to be appended to a caption; "" without caveats."""
        tasks = list(tasks)
        notes = [NOTES.get(self.plug_in(task), "") for task in tasks]
        notes += [
            f"{sentence(task_name(task))}: {note}."
            for task in tasks
            for note in self.comparison.notes.get(task, ())
        ]
        return "".join(f" {note}" for note in dict.fromkeys(notes) if note)

    def diverged(self, *arms: str) -> str:
        """Returns how many runs of these arms diverged, as text; "" if no run diverged."""
        return scores.diverged(self.comparison, *arms)

    def better(self, gap: Gap, direction: str) -> bool | None:
        """Returns whether the first arm is better than the second.

        Args:
          gap: the difference first - second.
          direction: whether "lower" or "higher" values of the metric are better.

        Returns:
          None if the interval includes zero, or if runs diverged: the remaining runs are not a
          random sample.
        """
        if self.diverged(gap.first, gap.second):
            return None
        higher, lower = (
            side(gap.estimate, 0.0) == hypothesis_tests.SUPPORTED
            for side in (hypothesis_tests.above, hypothesis_tests.below)
        )
        return higher == (direction == "higher") if higher or lower else None

    def counts_tokens(self, task: str) -> bool:
        """Returns whether the examples of a task are tokens."""
        return self.plug_in(task) in _TOKENS


def task_name(task: str) -> str:
    """Returns the display name of a task."""
    return TASKS.get(task, task.replace("_", " "))


def sentence(text: str) -> str:
    """Returns the text with an initial capital letter."""
    return text[:1].upper() + text[1:]


def metric_name(metric: str) -> str:
    """Returns the display name of a metric."""
    return METRICS.get(metric, metric.replace("_", " "))


def unit_suffix(unit: str) -> str:
    """Returns the unit to be appended to a name: " (%)", " (nats/token)" or "".

    Args:
      unit: unit of a score, as in `lm.stats.scores.Score`; "share" marks a fraction.
    """
    return " (%)" if unit == "share" else f" ({unit})" if "/" in unit else ""
