"""Evaluates checkpoints on the tasks of lm/tasks that suit them, along with the baselines."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from lm.core import plugins
from lm.core.plain import write_json
from lm.core.plugins import NotApplicable, UserError
from lm.core.protocols import Params, Task
from lm.data.corpus import SPLITS, Corpus
from lm.inference.load import load_run
from lm.stats.scores import Examples, Score
from lm.training.program import Program

Row = dict[str, Any]  # one score: a row of results.parquet
Options = Mapping[str, Mapping[str, Any]]  # by task; "task" names the plug-in if it differs


@dataclasses.dataclass(frozen=True)
class Measurements:
    """Scores of models and baselines.

    Attributes:
      rows: rows of results.parquet.
      examples: the per-example values behind the scores that have them, keyed by
        "arm/task/metric".
    """

    rows: list[Row] = dataclasses.field(default_factory=list)
    examples: dict[str, Examples] = dataclasses.field(default_factory=dict)

    def __add__(self, other: "Measurements") -> "Measurements":
        return Measurements(self.rows + other.rows, self.examples | other.examples)


def make_tasks(
    names: Iterable[str],
    corpus: Corpus,
    split: str,
    length: int,
    options: Options | None = None,
) -> dict[str, Task]:
    """Makes tasks.

    Args:
      names: names of the tasks.
      corpus: text to evaluate on.
      split: "validation" or "test".
      length: positions of a row.
      options: task name → options of the task. The option "task" names the plug-in if it differs
        from the task name.

    Returns:
      The tasks by name.

    Raises:
      NotApplicable: the corpus or its vocabulary lacks something that a task needs.
      UserError: a task or the split does not exist, or an option is unknown or impossible.
    """
    if split not in SPLITS:
        raise UserError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    tasks: dict[str, Task] = {}
    for name in names:
        section = (options or {}).get(name, {})
        module = plugins.find("tasks", section.get("task", name))
        config = plugins.configure(module.Config, section, f"tasks.{name}", skip=("task",))
        tasks[name] = module.Task(config, corpus, split, length)
    return tasks


def score(
    tasks: Mapping[str, Task],
    program: Program,
    params: Params,
    arm: str,
    seed: int,
    kind: str = "model",
) -> Measurements:
    """Scores a model on every task that suits it.

    Args:
      tasks: tasks by name.
      program: the model's program.
      params: the model's parameters.
      arm: name of the arm in the results.
      seed: seed of the model.
      kind: "model" or "untrained".
    """
    measurements = Measurements()
    for name, task in tasks.items():
        if task.suits(program.objective):
            measurements += _measurements(arm, seed, name, task, task.score(program, params), kind)
    return measurements


def baselines(tasks: Mapping[str, Task], program: Program) -> Measurements:
    """Scores every task's baselines, which have no seed and get the seed -1.

    Args:
      tasks: tasks by name.
      program: program of any model, with which the tasks lay out held-out rows.
    """
    measurements = Measurements()
    for task_name, task in tasks.items():
        for name, metrics in task.baselines(program).items():
            kind = "bound" if name in task.bounds else "baseline"
            measurements += _measurements(name, -1, task_name, task, metrics, kind)
    return measurements


def _measurements(
    arm: str, seed: int, name: str, task: Task, metrics: Mapping[str, Score], kind: str
) -> Measurements:
    common = {"arm": arm, "seed": seed, "task": name, "kind": kind, "own": not task.shared}
    fields = ("value", "count", "unit", "better")
    rows = [
        common | {"metric": metric} | {field: getattr(value, field) for field in fields}
        for metric, value in metrics.items()
    ]
    examples = {
        f"{arm}/{name}/{metric}": value.examples
        for metric, value in metrics.items()
        if value.examples is not None
    }
    return Measurements(rows, examples)


def evaluate(
    workdir: str | Path,
    split: str,
    names: Sequence[str],
    step: str,
    with_baselines: bool = True,
    options: Options | None = None,
) -> list[Row]:
    """Evaluates a checkpoint and writes workdir/evaluation-<split>.json.

    Args:
      workdir: directory of the run.
      split: "validation" or "test".
      names: names of the tasks. If empty: all tasks that suit the model and can run on its corpus,
        except tasks that run on request only (`by_name`) and have no options.
      step: step of the checkpoint, in a form that `load_run` accepts.
      with_baselines: whether to score the baselines too.
      options: task name → options of the task; see `make_tasks`.

    Returns:
      The scores of the model, of its initial values on the shared tasks, and of the baselines.

    Raises:
      UserError: a requested task does not exist, does not suit the model or cannot run on its
        corpus; or the checkpoint cannot be loaded.
    """
    options = options or {}
    for name in dict.fromkeys([*names, *options]):
        module = plugins.find("tasks", options.get(name, {}).get("task", name))
        plugins.configure(module.Config, options.get(name, {}), f"tasks.{name}", skip=("task",))
        if names and name not in names:
            raise UserError(f"--set={name}.…: {name} is not among --tasks={','.join(names)}")
    trained = load_run(workdir, step)
    program = trained.program
    objective = trained.record["config"]["objective"]["name"]
    tasks: dict[str, Task] = {}
    for name in names or dict.fromkeys([*_automatic(), *options]):
        is_requested = bool(names) or name in options
        module = plugins.find("tasks", options.get(name, {}).get("task", name))
        if not module.Task.suits(program.objective):
            if is_requested:
                raise UserError(f"task {name!r} does not suit objective {objective!r}")
            continue
        try:
            tasks |= make_tasks([name], trained.corpus, split, program.length, options)
        except NotApplicable:  # for example the probe on a corpus without labels
            if is_requested:
                raise
    measurements = score(tasks, program, trained.params, "model", program.seed)
    shared = {name: task for name, task in tasks.items() if task.shared}
    initial = program.init()["params"]
    measurements += score(shared, program, initial, "untrained", program.seed, "untrained")
    if with_baselines:
        measurements += baselines(tasks, program)
    if jax.process_index() == 0:
        write_json(
            Path(workdir) / f"evaluation-{split}.json",
            {"step": trained.step, "split": split, "rows": measurements.rows},
        )
    return measurements.rows


def _automatic() -> list[str]:
    """Names of the tasks that run without being requested."""
    return [name for name in plugins.names("tasks") if not plugins.find("tasks", name).Task.by_name]


def table(rows: Sequence[Row]) -> str:
    """Formats scores as text: a line per task and metric, with the model before the baselines."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["metric"]), []).append(row)
    width = max(len(f"{task} {metric}") for task, metric in groups)
    lines = []
    for (task, metric), group in groups.items():
        values = "   ".join(f"{row['arm']} {_number(row)}" for row in group)
        first = group[0]
        lines.append(
            f"{task + ' ' + metric:<{width}}   {values}"
            f"   ({first['unit']}, {first['better']} is better, n={first['count']:,})"
        )
    return "\n".join(lines)


def _number(row: Row) -> str:
    return f"{row['value']:.1%}" if row["unit"] == "share" else f"{row['value']:.4g}"
