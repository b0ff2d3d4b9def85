"""Parses the experiments of experiments/*.py, and rejects invalid ones before anything runs."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from lm.comparison.budgets import Budget
from lm.core import plugins
from lm.core.plain import flat, plain
from lm.core.plugins import UserError

OPERATIONS = ("above", "below", "ratio_above", "ratio_below", "intervals_apart_above")
_NEED_OTHER = ("ratio_above", "ratio_below", "intervals_apart_above")
# Fields of the model that change neither the tokens nor the FLOPs of a run.
_KEEPS_BUDGET = ("model.dropout", "model.init_std", "model.embedding_std", "model.norm_epsilon")
# Fields that change what the validation loss measures.
CHANGES_LOSS = ("objective.", "tokenizer.", "data.")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")  # of arms and tasks; part of file names


@dataclasses.dataclass(frozen=True)
class Tuning:
    """Trials that select the value of a field for each arm; all arms have equally many trials.

    Attributes:
      field: path of a field in the run config. The field changes neither the quantity that the
        validation loss measures nor the cost of a run.
      factors: multiples of the arm's own value, one for each trial; empty for no tuning.
      share: fraction of the budget that a trial gets.
      seed: seed of the trials, not a seed of the main runs.
    """

    field: str = "optimizer.learning_rate"
    factors: tuple[float, ...] = ()
    share: float = 0.25
    seed: int = 1000

    def __post_init__(self) -> None:
        if len(set(self.factors)) != len(self.factors) or not all(
            0 < factor < math.inf for factor in self.factors
        ):
            raise ValueError(f"factors={self.factors} must be different numbers above 0")
        if not 0 < self.share <= 1:
            raise ValueError(
                f"share={self.share} must be a fraction of the budget, above 0 and at most 1"
            )
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative")
        if self.field.startswith(CHANGES_LOSS):
            raise ValueError(
                f"field={self.field!r} changes what the validation loss measures, which selects"
                " between trials, so their losses cannot be compared; tune a field of optimizer or"
                " model.dropout, or give each value an arm of its own"
            )
        if (
            self.field.startswith(("model.", "training.", "mesh."))
            and self.field not in _KEEPS_BUDGET
        ):
            raise ValueError(
                f"field={self.field!r} may change what a run costs, so that trials and arms would"
                " have unequal budgets; tune a field of optimizer or one of"
                f" {', '.join(_KEEPS_BUDGET)}, or give each value an arm of its own"
            )


@dataclasses.dataclass(frozen=True)
class Energy:
    """Assumptions for energy and emissions.

    Attributes:
      watts: power of one device in watts, instead of the measured power; 0 for the measured power
        or, without a measurement, the published power of the device.
      pue: power usage effectiveness of the data center.
      grid_kg_per_kwh: CO2e of the data center's electricity, in kg per kWh.
    """

    watts: float = 0.0
    pue: float = 1.1
    grid_kg_per_kwh: float = 0.4

    def __post_init__(self) -> None:
        if self.watts < 0 or self.pue < 1 or self.grid_kg_per_kwh < 0:
            raise ValueError(
                "watts and grid_kg_per_kwh must not be negative, and pue must be 1 or more"
            )


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A checked experiment.

    Attributes:
      plain: the experiment as nested dicts and lists.
      seeds: seeds of the main runs.
      split: name of the held-out split on which tasks evaluate.
      budget: budget of a run.
      tuning: trials that select a value before the main runs.
      tasks: options of each task, by its name; the option "task" names the plug-in.
      runs: run config of each arm (one configuration, trained with every seed); its number of
        steps is not set yet.
      times: multiple of the budget that each arm gets, by arm.
      hypotheses: one dict per hypothesis, with the keys "text", "arm", "task", "metric", "op",
        "value" and "compare".
      energy: assumptions for energy and emissions.
    """

    plain: dict[str, Any]
    seeds: list[int]
    split: str
    budget: Budget
    tuning: Tuning
    tasks: dict[str, dict[str, Any]]
    runs: dict[str, dict[str, Any]]
    times: dict[str, float]
    hypotheses: list[dict[str, Any]]
    energy: Energy


def parse(config: Mapping[str, Any]) -> Experiment:
    """Parses an experiment and checks everything that needs no corpus.

    Args:
      config: the experiment, as nested dicts (experiments/*.py).

    Raises:
      UserError: a part is missing or invalid.
    """
    given = plain(config)
    missing = [
        name for name in ("name", "seeds", "budget", "split", "tasks", "arms") if name not in given
    ]
    if missing:
        raise UserError(
            f"an experiment needs {', '.join('config.' + name for name in missing)}"
            " (experiments/objectives.py has them all)"
        )
    given = {"question": "", "workers": 0, "reference": "", "hypotheses": []} | given
    seeds = given["seeds"]
    if (
        not seeds
        or len(set(seeds)) != len(seeds)
        or not all(isinstance(seed, int) and seed >= 0 for seed in seeds)
    ):
        raise UserError(f"config.seeds={seeds!r} must be different whole numbers from 0")
    shared = {section: _set(fields) for section, fields in (given.get("shared") or {}).items()}
    runs = {arm: _run(arm, described, shared) for arm, described in given["arms"].items()}
    if not runs:
        raise UserError("config.arms is empty: a comparison needs at least one arm")
    reference = given["reference"]
    if reference and reference not in runs:
        raise UserError(f"config.reference={reference!r} is no arm; arms: {', '.join(runs)}")
    tuning = plugins.configure(Tuning, given.get("tuning") or {}, "config.tuning")
    if tuning.factors:
        if tuning.seed in seeds:
            raise UserError(
                f"config.tuning.seed={tuning.seed} is a seed of the main runs; tuning must not"
                " select on runs that are reported"
            )
        for arm, run in runs.items():
            tuned_value(run, tuning, 0, arm)
    tasks, times = (
        _tasks(given["tasks"]),
        {arm: _times(arm, described) for arm, described in given["arms"].items()},
    )
    if given.get("scaling"):
        absent = [name for name in ("task", "metric") if name not in given["scaling"]]
        if absent:
            raise UserError(f"config.scaling needs {', '.join(absent)}: what the law is fitted to")
        _check_metric("config.scaling", given["scaling"], tasks)
    return Experiment(
        plain=given,
        seeds=seeds,
        split=given["split"],
        budget=plugins.configure(Budget, given["budget"], "config.budget"),
        tuning=tuning,
        tasks=tasks,
        runs=runs,
        times=times,
        hypotheses=[
            _hypothesis(number, hypothesis, times, tasks)
            for number, hypothesis in enumerate(given["hypotheses"])
        ],
        energy=plugins.configure(Energy, given.get("energy") or {}, "config.energy"),
    )


def with_field(config: Mapping[str, Any], field: str, value: Any) -> dict[str, Any]:
    """Returns a copy of a nested config with a new value of one field.

    Args:
      config: nested dicts, which are not changed.
      field: path of the field, such as "optimizer.learning_rate".
      value: the new value.
    """
    head, _, rest = field.partition(".")
    return dict(config) | {head: with_field(config[head], rest, value) if rest else value}


def tuned_value(run: Mapping[str, Any], tuning: Tuning, index: int, arm: str = "") -> float | int:
    """Returns the value of the tuned field in a trial; whole if the arm's own value is whole.

    Args:
      run: run config of the arm.
      tuning: tuning of the experiment.
      index: index of the factor.
      arm: name of the arm, for messages.

    Raises:
      UserError: the field is not a number in this arm.
    """
    own = flat(run).get(tuning.field)
    if isinstance(own, bool) or not isinstance(own, int | float):
        raise UserError(
            f"config.tuning.field={tuning.field!r} is no number in arm {arm!r}, but {own!r}"
        )
    value = own * tuning.factors[index]
    return max(1, round(value)) if isinstance(own, int) else value


def describe_tasks(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns {"task": plug-in, "shared", "metrics"} of each task by name, for comparison.json."""
    described = {}
    for name, options in tasks.items():
        task = plugins.find("tasks", options["task"]).Task
        described[name] = {
            "task": options["task"],
            "shared": task.shared,
            "metrics": list(task.metrics),
        }
    return described


def check_comparisons(
    hypotheses: list[dict[str, Any]],
    models: set[str],
    baselines: Mapping[tuple[str, str], set[str]],
) -> None:
    """Checks that hypotheses compare with existing scores, once the baselines are evaluated.

    Args:
      hypotheses: hypotheses of the experiment.
      models: names of arms and untrained models.
      baselines: names of the baselines that have a score, by (task, metric).

    Raises:
      UserError: a hypothesis compares with something that has no score, or an arm has the name of a
        baseline.
    """
    if twice := sorted(models & set().union(*baselines.values())):
        raise UserError(
            f"the arm {twice[0]!r} has the name of a baseline, whose scores it would be confused"
            " with; give it another name"
        )
    for hypothesis in hypotheses:
        task, metric = hypothesis["task"], hypothesis["metric"]
        other = hypothesis.get("compare")
        names = models | baselines.get((task, metric), set())
        if other and other not in names:
            raise UserError(
                f"the hypothesis {hypothesis['text']!r} compares with {other!r}, which is no arm,"
                f" untrained model or baseline with a score on {task} {metric};"
                f" there are: {', '.join(sorted(names)) or 'none'}"
            )


def _set(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a section that have a value."""
    return {name: value for name, value in fields.items() if value is not None}


def _run(arm: str, described: Any, shared: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The run config of an arm, in which shared fields replace its own."""
    if not _NAME.fullmatch(arm):
        raise UserError(
            f"config.arms.{arm!r}: names of arms have letters, digits and _ . + - only, since files"
            " are named after them"
        )
    absent = [
        name
        for name in ("label", "describe", "run")
        if not isinstance(described, dict) or name not in described
    ]
    if absent:
        raise UserError(f"config.arms.{arm} needs {', '.join(absent)}")
    run = described["run"]
    for section, fields in shared.items():
        unknown = [name for name in fields if name not in run.get(section, {})]
        if unknown:
            raise UserError(
                f"config.shared.{section}.{unknown[0]}: a run of arm {arm!r} has no such field"
            )
        run = run | {section: run[section] | fields} if fields else run
    sizes = {
        f"{section}.{name}": run[section][name]
        for section, name in (("training", "batch_size"), ("data", "length"))
    }
    if min(sizes.values()) < 1:
        raise UserError(
            f"arm {arm!r}: {' and '.join(f'{name}={size}' for name, size in sizes.items())} must be"
            " at least 1"
        )
    return run | {"training": run["training"] | {"tokens": 0, "steps": 1000}}


def _times(arm: str, described: Mapping[str, Any]) -> float:
    """The multiple of the budget that an arm gets."""
    times = described.get("times", 1.0)
    if isinstance(times, bool) or not isinstance(times, int | float) or not 0 < times < math.inf:
        raise UserError(
            f"config.arms.{arm}.times={times!r} must be a number above 0: the multiple of"
            " config.budget.value that the arm gets"
        )
    return float(times)


def _tasks(given: Any) -> dict[str, dict[str, Any]]:
    """Options of the tasks by name, with the plug-in under "task"."""
    if not isinstance(given, Mapping):
        given = {name: {} for name in given}
    tasks = {}
    for name, options in given.items():
        if not _NAME.fullmatch(name) or not isinstance(options, Mapping):
            raise UserError(
                f"config.tasks.{name}={options!r} should be a mapping of options, under a name of"
                " letters, digits and _ . + -"
            )
        tasks[name] = {"task": name} | dict(options)
        module = plugins.find("tasks", tasks[name]["task"])
        plugins.configure(module.Config, tasks[name], f"config.tasks.{name}", skip=("task",))
    return tasks


def _hypothesis(
    number: int, given: Any, times: Mapping[str, float], tasks: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    where = f"config.hypotheses[{number}]"
    needed = ("text", "arm", "task", "metric", "op", "value")
    absent = [name for name in needed if not isinstance(given, dict) or name not in given]
    if absent:
        raise UserError(f"{where} needs {', '.join(absent)}")
    hypothesis = {"compare": ""} | given
    where += f" ({hypothesis['text']})"
    value = hypothesis["value"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{where}: value={value!r} should be a finite number")
    arm, compare, op = hypothesis["arm"], hypothesis["compare"], hypothesis["op"]
    _among(f"{where}: arm", arm, list(times))
    _check_metric(where, hypothesis, tasks)
    _among(f"{where}: op", op, OPERATIONS)
    if op in _NEED_OTHER and not compare:
        raise UserError(
            f"{where}: op={op!r} needs compare, the arm, baseline or untrained model to compare"
            " with"
        )
    own, other = times[arm], times.get(compare)
    if other is not None and own != other:
        raise UserError(
            f"{where}: {arm!r} gets {own:g} times the budget and {compare!r} {other:g} times; only"
            " arms of equal budgets are compared"
        )
    return hypothesis


def _check_metric(
    where: str, given: Mapping[str, Any], tasks: Mapping[str, Mapping[str, Any]]
) -> None:
    """Checks that the experiment has the task, and the task the metric."""
    _among(f"{where}: task", given["task"], list(tasks))
    _among(
        f"{where}: metric",
        given["metric"],
        plugins.find("tasks", tasks[given["task"]]["task"]).Task.metrics,
    )


def _among(what: str, value: Any, valid: Any) -> None:
    try:
        plugins.choice(what, value, valid)
    except ValueError as error:
        raise UserError(str(error)) from error
