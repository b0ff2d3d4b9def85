"""Measures checkpoints: any task of lm/tasks that suits the model, beside its baselines."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from lm import lookup, program, records
from lm.checkpoint import Checkpoints
from lm.data import corpus as corpora
from lm.data.corpus import Corpus
from lm.lookup import UserError
from lm.plain import write_json
from lm.scores import Examples, Score

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Trained:
    """A checkpoint, ready to be asked."""

    record: dict[str, Any]
    corpus: Corpus
    built: program.Program
    params: Any
    step: int


def load(workdir: str | Path, step: str = "latest", progress: bool = True) -> Trained:
    """Loads a checkpoint of a run of lm.train.

    Args:
      workdir: of the run. step: "latest", "best" (lowest validation loss) or a number. progress: show bars.

    Raises:
      UserError: there is no run or checkpoint, it is damaged, or its corpus is no longer the same.
    """
    workdir = Path(workdir)
    record = records.read_run(workdir)
    checkpoints = Checkpoints(workdir, read_only=True)
    there = checkpoints.steps()
    chosen = {"latest": checkpoints.latest, "best": checkpoints.best}.get(step, lambda: int(step) if step.isdigit() else None)()
    if chosen not in there:
        raise UserError(f"{workdir} has no checkpoint {step!r}; there are: latest, best, {', '.join(map(str, there)) or 'none yet'}")
    config = record["config"]
    corpus = corpora.prepare(config["data"], config["tokenizer"], progress=progress, skip=("length",))
    if corpus.fingerprint != record["data"]["fingerprint"]:
        raise UserError(
            f"the corpus of {workdir} changed since training: fingerprint {record['data']['fingerprint']} then, {corpus.fingerprint} now"
        )
    try:
        built = program.Program(config, corpus.tokenizer)
    except UserError:  # trained on other devices: spread rows over those that are here, whatever batch was trained on
        here = {"mesh": {"data": -1}, "training": config["training"] | {"batch_size": jax.device_count(), "microbatches": 1}}
        built = program.Program(config | here, corpus.tokenizer)
    state, _ = checkpoints.restore(chosen, built.shapes, built.shardings)
    checkpoints.close()
    return Trained(record, corpus, built, state["params"], chosen)


def make_tasks(
    names: Iterable[str], corpus: Corpus, split: str, length: int, options: Mapping[str, Mapping] | None = None
) -> dict[str, Any]:
    """The task plug-ins by name, with their options.

    Args:
      options: by name; "task" among them is the plug-in, where the name is one's own.

    Raises:
      UserError: there is no such task or split, or the corpus cannot serve the task.
    """
    if split not in corpus.stores:
        raise UserError(f"split {split!r} is not one of {', '.join(corpus.stores)}")
    tasks = {}
    for name in names:
        given = (options or {}).get(name, {})
        module = lookup.find("tasks", given.get("task", name))
        config = lookup.configure(module.Config, given, f"tasks.{name}", skip=("task",))
        tasks[name] = module.Task(config, corpus, split, length)
    return tasks


@dataclasses.dataclass(frozen=True)
class Measured:
    """What tasks measured: lines of results.parquet, and what stands behind them by "arm/task/metric"."""

    rows: list[Row] = dataclasses.field(default_factory=list)
    examples: dict[str, Examples] = dataclasses.field(default_factory=dict)

    def __add__(self, other: "Measured") -> "Measured":
        return Measured(self.rows + other.rows, self.examples | other.examples)


def score(tasks: Mapping[str, Any], built: program.Program, params: Any, arm: str, seed: int, kind: str = "model") -> Measured:
    """What every task that suits the model measures."""
    found = Measured()
    for name, task in tasks.items():
        if task.suits(built.objective):
            found += _measured(arm, seed, name, task, task.score(built, params), kind)
    return found


def baselines(tasks: Mapping[str, Any], built: program.Program) -> Measured:
    """What every task's baselines reach; without a seed, which is written -1."""
    found = Measured()
    for task_name, task in tasks.items():
        for name, metrics in task.baselines(built).items():
            kind = "bound" if name in getattr(task, "bounds", ()) else "baseline"
            found += _measured(name, -1, task_name, task, metrics, kind)
    return found


def _measured(arm: str, seed: int, name: str, task: Any, metrics: Mapping[str, Score], kind: str) -> Measured:
    about = {"arm": arm, "seed": seed, "task": name, "kind": kind, "own": not task.shared}
    numbers = ("value", "count", "unit", "better")
    rows = [about | {"metric": metric} | {key: getattr(value, key) for key in numbers} for metric, value in metrics.items()]
    behind = {f"{arm}/{name}/{metric}": value.examples for metric, value in metrics.items() if value.examples is not None}
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
        module = lookup.find("tasks", options.get(name, {}).get("task", name))
        lookup.configure(module.Config, options.get(name, {}), f"tasks.{name}", skip=("task",))
        if names and name not in names:
            raise UserError(f"--set={name}.…: {name} is not among --tasks={','.join(names)}")
    trained = load(workdir, step)
    built, corpus = trained.built, trained.corpus
    tasks: dict[str, Any] = {}
    usual = [name for name in lookup.names("tasks") if not getattr(lookup.find("tasks", name).Task, "by_name", False)]
    for name in names or dict.fromkeys([*usual, *options]):
        try:
            made = make_tasks([name], corpus, split, built.length, options)
        except UserError:
            if names or name in options:
                raise
            continue  # a corpus without labels has no probe; asked for by name it is an error
        if made[name].suits(built.objective):
            tasks |= made
        elif names or name in options:
            raise UserError(f"task {name!r} does not suit objective {trained.record['config']['objective']['name']!r}")
    found = score(tasks, built, trained.params, "model", built.seed)
    untrained = {name: task for name, task in tasks.items() if task.shared}
    found += score(untrained, built, built.init()["params"], "untrained", built.seed, "untrained")
    if with_baselines:
        found += baselines(tasks, built)
    rows = found.rows
    if jax.process_index() == 0:
        write_json(Path(workdir) / f"evaluation-{split}.json", {"step": trained.step, "split": split, "rows": rows})
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
