"""The records of a comparison, as `lm.report.read` reads them."""

import math
from dataclasses import dataclass, field
from typing import Any

from lm.stats.scores import Examples

DONE = "done"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of results.parquet.

    Attributes:
      arm: name of the arm, baseline or untrained model.
      seed: seed of the run; -1 for none.
      task: name of the task.
      metric: name of the metric.
      value: the score.
      count: number of test examples or tokens behind the score.
      unit: unit of the score, as in `lm.stats.scores.Score`.
      better: "lower" or "higher".
      kind: "model", "untrained", "baseline" or "bound".
      own: whether the task is the arm's own objective, not one shared by all arms.
      error: standard error over test examples, if the file has this column.
    """

    arm: str
    seed: int
    task: str
    metric: str
    value: float
    count: int
    unit: str
    better: str
    kind: str
    own: bool
    error: float | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One trial.

    Attributes:
      arm: name of the arm.
      seed: seed of the trial.
      status: "done" (trained and scored), "failed", "diverged", or the state of an unfinished run.
      record: content of run.json.
      validation: (tokens seen, loss) of each validation, in order.
    """

    arm: str
    seed: int
    status: str
    record: dict[str, Any]
    validation: list[tuple[int, float]]

    @property
    def done(self) -> bool:
        """Whether the trial is trained and scored."""
        return self.status == DONE

    def number(self, key: str) -> float | None:
        """Returns the finite number under a key of the record; None if there is none."""
        value = self.record.get(key)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            return None
        return float(value)


@dataclass(frozen=True, slots=True)
class Comparison:
    """All inputs of a report.

    Attributes:
      record: content of comparison.json.
      arms: description of each arm, by name.
      seeds: seeds of the main runs.
      runs: all runs, by arm and seed.
      rows: scores of finished runs, baselines and untrained models.
      problems: descriptions of missing and skipped inputs.
      examples_by_key: per-example values by (seed, "arm/task/metric"); seed -1 for baselines.
      notes: notes of any run on a task's files, by task.
    """

    record: dict[str, Any]
    arms: dict[str, dict[str, Any]]
    seeds: list[int]
    runs: list[Run]
    rows: list[Row]
    problems: list[str] = field(default_factory=list)
    examples_by_key: dict[tuple[int, str], Examples] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def examples(self, arm: str, seed: int, task: str, metric: str) -> Examples | None:
        """Returns a score's per-example values; None if they were not stored.

        Args:
          arm: name of the arm, baseline or untrained model.
          seed: seed of the run.
          task: name of the task.
          metric: name of the metric.
        """
        return self.examples_by_key.get((seed, f"{arm}/{task}/{metric}"))

    def finished(self, arm: str) -> list[Run]:
        """Returns the finished runs of an arm."""
        return [run for run in self.runs if run.arm == arm and run.done]

    def arms_by_multiple(self) -> dict[float, list[str]]:
        """Returns the arms by their multiple of the budget."""
        groups: dict[float, list[str]] = {}
        for arm, description in self.arms.items():
            groups.setdefault(float(description.get("times") or 1.0), []).append(arm)
        return groups

    def label(self, arm: str) -> str:
        """Returns the display name of an arm, baseline or untrained model."""
        return str(self.arms.get(arm, {}).get("label") or arm)
