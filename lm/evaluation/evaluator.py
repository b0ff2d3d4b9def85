"""Measures checkpoints: any task of lm/tasks that suits the model, beside its baselines."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from lm.core import plugins
from lm.core.plain import write_json
from lm.core.plugins import UserError
from lm.data.corpus import SPLITS, Corpus
from lm.inference.load import load_run
from lm.stats.scores import Examples, Score
from lm.training.program import Program

Row = dict[str, Any]


def make_tasks(
    names: Iterable[str],
    corpus: Corpus,
    split: str,
    length: int,
    options: Mapping[str, Mapping] | None = None,
) -> dict[str, Any]:
    """The task plug-ins by name, with their options.

    Args:
      options: by name; "task" among them is the plug-in, where the name is one's own.

    Raises:
      UserError: there is no such task or split, or the corpus cannot serve the task.
    """
    if split not in SPLITS:
        raise UserError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    tasks = {}
    for name in names:
        given = (options or {}).get(name, {})
        module = plugins.find("tasks", given.get("task", name))
        config = plugins.configure(module.Config, given, f"tasks.{name}", skip=("task",))
        tasks[name] = module.Task(config, corpus, split, length)
    return tasks


@dataclasses.dataclass(frozen=True)
class Measured:
    """What tasks measured: lines of results.parquet, and what stands behind them by "arm/task/metric"."""

    rows: list[Row] = dataclasses.field(default_factory=list)
    examples: dict[str, Examples] = dataclasses.field(default_factory=dict)

    def __add__(self, other: "Measured") -> "Measured":
        return Measured(self.rows + other.rows, self.examples | other.examples)


def score(
    tasks: Mapping[str, Any],
    program: Program,
    params: Any,
    arm: str,
    seed: int,
    kind: str = "model",
) -> Measured:
    """What every task that suits the model measures."""
    found = Measured()
    for name, task in tasks.items():
        if task.suits(program.objective):
            found += _measured(arm, seed, name, task, task.score(program, params), kind)
    return found


def baselines(tasks: Mapping[str, Any], program: Program) -> Measured:
    """What every task's baselines reach; without a seed, which is written -1."""
    found = Measured()
    for task_name, task in tasks.items():
        for name, metrics in task.baselines(program).items():
            kind = "bound" if name in getattr(task, "bounds", ()) else "baseline"
            found += _measured(name, -1, task_name, task, metrics, kind)
    return found


def _measured(
    arm: str, seed: int, name: str, task: Any, metrics: Mapping[str, Score], kind: str
) -> Measured:
    about = {"arm": arm, "seed": seed, "task": name, "kind": kind, "own": not task.shared}
    numbers = ("value", "count", "unit", "better")
    rows = [
        about | {"metric": metric} | {key: getattr(value, key) for key in numbers}
        for metric, value in metrics.items()
    ]
    behind = {
        f"{arm}/{name}/{metric}": value.examples
        for metric, value in metrics.items()
        if value.examples is not None
    }
    return Measured(rows, behind)


def evaluate(
    workdir: str | Path,
    split: str,
    names: list[str],
    step: str,
    with_baselines: bool = True,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Row]:
    """Scores a checkpoint and writes workdir/evaluation-<split>.json.

    Args:
      workdir: of a run. split: "validation" or "test". names: tasks; none means all that suit, but those `by_name`. step: as for `load`.
      with_baselines: also measure the baselines. options: of tasks, by name, as for `make_tasks`.

    Raises:
      UserError: a task does not exist or does not suit the model, or the checkpoint cannot be loaded.
    """
    options = options or {}
    for name in dict.fromkeys([*names, *options]):
        module = plugins.find("tasks", options.get(name, {}).get("task", name))
        plugins.configure(module.Config, options.get(name, {}), f"tasks.{name}", skip=("task",))
        if names and name not in names:
            raise UserError(f"--set={name}.…: {name} is not among --tasks={','.join(names)}")
    trained = load_run(workdir, step)
    program, corpus = trained.program, trained.corpus
    tasks: dict[str, Any] = {}
    usual = [
        name
        for name in plugins.names("tasks")
        if not getattr(plugins.find("tasks", name).Task, "by_name", False)
    ]
    for name in names or dict.fromkeys([*usual, *options]):
        try:
            made = make_tasks([name], corpus, split, program.length, options)
        except UserError:
            if names or name in options:
                raise
            continue  # a corpus without labels has no probe; asked for by name it is an error
        if made[name].suits(program.objective):
            tasks |= made
        elif names or name in options:
            raise UserError(
                f"task {name!r} does not suit objective {trained.record['config']['objective']['name']!r}"
            )
    found = score(tasks, program, trained.params, "model", program.seed)
    untrained = {name: task for name, task in tasks.items() if task.shared}
    found += score(
        untrained, program, program.init()["params"], "untrained", program.seed, "untrained"
    )
    if with_baselines:
        found += baselines(tasks, program)
    rows = found.rows
    if jax.process_index() == 0:
        write_json(
            Path(workdir) / f"evaluation-{split}.json",
            {"step": trained.step, "split": split, "rows": rows},
        )
    return rows


def table(rows: list[Row]) -> str:
    """Rows as text: a line for each task and metric, the model first, then what it is read against."""
    lines: dict[tuple[str, str], list[Row]] = {}
    for line in rows:
        lines.setdefault((line["task"], line["metric"]), []).append(line)
    width = max(len(f"{task} {metric}") for task, metric in lines)
    shown = []
    for (task, metric), cells in lines.items():
        values = "   ".join(f"{cell['arm']} {_number(cell)}" for cell in cells)
        shown.append(
            f"{task + ' ' + metric:<{width}}   {values}   ({cells[0]['unit']}, {cells[0]['better']} is better, n={cells[0]['count']:,})"
        )
    return "\n".join(shown)


def _number(cell: Row) -> str:
    return f"{cell['value']:.1%}" if cell["unit"] == "share" else f"{cell['value']:.4g}"
