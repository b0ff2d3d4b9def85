"""A comparison's scores and differences, each computed once however many sections ask for it; and the names of tasks and metrics."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lm.report import scores
from lm.report.read import Comparison, Row
from lm.report.scores import Score
from lm.stats import intervals
from lm.stats.intervals import Estimate

TASKS = {
    "causal": "next token", "suffix": "second half of a text", "masked": "masked token", "denoising": "words behind sentinels",
    "next_sentence": "next sentence", "sentence_order": "sentence order", "probe": "linear probe", "minimal_pairs": "minimal pairs",
    "last_word": "last word", "recall": "associative recall", "brackets": "nested brackets", "grammar": "probabilistic grammar",
}  # fmt: skip
# What a reader must know to compare the arms on a task, by the kind of the task.
NOTES = {
    "last_word": "Masked models are told how many pieces the last word has, the others are not."
}
METRICS = {
    "nll": "negative log-likelihood",
    "ce": "cross-entropy",
    "accuracy_first": "accuracy of the first answer",
}
_TOKENS = ("causal", "suffix", "masked", "denoising")
_ALL_PAIRS = 6  # arms up to which every pair is shown; of more, each is compared with the experiment's reference
_UNTRAINED = "untrained "


@dataclass(frozen=True, slots=True)
class Gap:
    """The paired difference of two arms on one metric, with its p-value and effect size where they are known."""

    first: str
    second: str
    estimate: Estimate
    p: float | None
    effect: float | None


class Results:
    """What was measured in a workdir.

    Attributes:
      comparison: what `read` found. workdir: where.
      score(arm, task, metric): its `Score`, or None. gap(first, second, task, metric): a `Gap`, None where there is nothing to pair.
      who(task, own=None): who has a score on a task, as `scores.who` orders them.
    """

    def __init__(self, comparison: Comparison, workdir: Path):
        self.comparison, self.workdir = comparison, workdir
        rows: dict[tuple[str, str], list[Row]] = {}
        for row in comparison.rows:
            rows.setdefault((row.task, row.metric), []).append(row)
        # Scores are looked for among the rows of their own metric only.
        self._parts = {
            key: dataclasses.replace(comparison, rows=found) for key, found in rows.items()
        }
        self.score = functools.cache(self._score)
        self.gap = functools.cache(self._gap)
        self.who = functools.cache(functools.partial(scores.who, comparison))

    def _score(self, arm: str, task: str, metric: str) -> Score | None:
        part = self._parts.get((task, metric))
        return scores.score(part, arm, task, metric) if part else None

    def _gap(self, first: str, second: str, task: str, metric: str) -> Gap | None:
        one, other = self.score(first, task, metric), self.score(second, task, metric)
        found = scores.contrast(one, other) if one and other else None
        return Gap(first, second, found.estimate, found.p, found.effect) if found else None

    def metrics(self, own: bool, parts: bool = False) -> dict[str, list[str]]:
        """The metrics of each task, its own or the shared ones. `parts`: those of a part of the examples ("accuracy/anaphor_agreement")."""
        found = {}
        for task, names in self._metrics[own].items():
            if chosen := [name for name in names if ("/" in name) == parts]:
                found[task] = chosen
        return found

    @functools.cached_property
    def _metrics(self) -> dict[bool, dict[str, list[str]]]:
        return {own: scores.metrics(self.comparison, own) for own in (False, True)}

    def row(self, task: str, metric: str) -> Row:
        """One row of a metric, for its unit and direction."""
        return self._parts[task, metric].rows[0]

    def rows(self, task: str, metric: str) -> list[Row]:
        return self._parts[task, metric].rows

    def arms(self, task: str, metric: str) -> list[str]:
        """The arms that have a score on a metric over at least one seed, in the comparison's order."""
        return [
            arm
            for arm in self.comparison.arms
            if (found := self.score(arm, task, metric)) and found.estimate.n
        ]

    def index(self, arm: str) -> int | None:
        """The arm's place, which gives its colour, line style and marker; None for a baseline or untrained model."""
        arms = list(self.comparison.arms)
        return arms.index(arm) if arm in arms else None

    def reference(self, arms: list[str]) -> str:
        """Of `arms`, the one that others are held against: the experiment's, or the first."""
        wanted = self.comparison.about.get("reference")
        return wanted if wanted in arms else arms[0]

    def pairs(self, task: str, metric: str) -> list[tuple[str, str]]:
        """Who is compared with whom: few arms each with each, of many each with the reference; none with one that has another budget."""
        found: list[tuple[str, str]] = []
        for arms in self.groups(self.arms(task, metric)).values():
            reference = self.reference(arms)
            found += (
                itertools.combinations(arms, 2)
                if len(arms) <= _ALL_PAIRS
                else [(arm, reference) for arm in arms if arm != reference]
            )
        return found

    def groups(self, arms: list[str]) -> dict[float, list[str]]:
        """Those of `arms` that get the same multiple of the budget, and so may be compared, by that multiple."""
        groups = {
            times: [arm for arm in arms if arm in alike]
            for times, alike in sorted(self.comparison.by_times().items())
        }
        return {times: alike for times, alike in groups.items() if alike}

    def mixed(self, arms: list[str]) -> str:
        """What to say below a table or picture of arms with different budgets; "" for others."""
        several = len(self.groups([arm for arm in arms if arm in self.comparison.arms])) > 1
        return (
            " Arms that get other multiples of the budget stand beside each other: compare those of one multiple."
            if several
            else ""
        )

    @property
    def shares(self) -> bool:
        """Whether the experiment asks a task that all arms share; older records do not say, and did."""
        tasks = self.comparison.about.get("tasks") or {}
        return not tasks or any(task.get("shared", True) for task in tasks.values())

    def untrained(self, arm: str) -> str:
        """The untrained model that an arm is held against."""
        about = self.comparison.arms[arm]
        return str(about.get("untrained") or _UNTRAINED + str(about.get("model")))

    def plug_in(self, task: str) -> str:
        """The kind of a task that has a name of its own in the experiment."""
        return str((self.comparison.about.get("tasks") or {}).get(task, {}).get("task") or task)

    def note(self, tasks: Iterable[str]) -> str:
        """What must be known to compare arms on these tasks, to go after a caption; "" where there is nothing."""
        tasks = list(tasks)
        notes = [NOTES.get(self.plug_in(task), "") for task in tasks]
        notes += [
            f"{sentence(task_name(task))}: {note}."
            for task in tasks
            for note in self.comparison.notes.get(task, ())
        ]
        return "".join(f" {note}" for note in dict.fromkeys(notes) if note)

    def diverged(self, *arms: str) -> str:
        """How many runs of these arms diverged; "" where none did."""
        return scores.diverged(self.comparison, *arms)

    def better(self, gap: Gap, direction: str) -> bool | None:
        """Whether the first is better than the second; None where the interval holds zero, or where runs diverged: those that are left
        are a choice of the outcome."""
        if self.diverged(gap.first, gap.second):
            return None
        higher, lower = (
            side(gap.estimate, 0.0) == intervals.HOLDS
            for side in (intervals.above, intervals.below)
        )
        return higher == (direction == "higher") if higher or lower else None

    def counts_tokens(self, task: str) -> bool:
        return self.plug_in(task) in _TOKENS


def task_name(task: str) -> str:
    return TASKS.get(task, task.replace("_", " "))


def sentence(text: str) -> str:
    """With a capital letter."""
    return text[:1].upper() + text[1:]


def metric_name(metric: str) -> str:
    return METRICS.get(metric, metric.replace("_", " "))
