"""An experiment as experiments/*.py declares it, checked: what can be known to be wrong is said before anything runs."""

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
# With others of model and training a run may cost another number of tokens or FLOPs than the plan says.
_KEEPS_BUDGET = ("model.dropout", "model.init_std", "model.embedding_std", "model.norm_epsilon")
CHANGES_LOSS = (
    "objective.",
    "tokenizer.",
    "data.",
)  # with these fields the validation loss is another quantity
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")  # of an arm: it becomes part of a file's name


@dataclasses.dataclass(frozen=True)
class Tuning:
    """The trials that choose a value for each arm, equally many for all.

    Attributes:
      field: of the run config, none that changes what the validation loss is, or what a run costs. factors: of each arm's own value, one
        trial each; none: no tuning. share: of the budget that a trial gets. seed: of the trials, none of the main runs'.
    """

    field: str = "optimizer.learning_rate"
    factors: tuple[float, ...] = ()
    share: float = 0.25
    seed: int = 1000

    def __post_init__(self):
        if len(set(self.factors)) != len(self.factors) or not all(
            0 < factor < math.inf for factor in self.factors
        ):
            raise ValueError(f"factors={self.factors} must be different numbers above 0")
        if not 0 < self.share <= 1:
            raise ValueError(f"share={self.share} must be a share of the budget above 0, 1 at most")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative")
        if self.field.startswith(CHANGES_LOSS):
            raise ValueError(
                f"field={self.field!r} changes what the validation loss is, by which trials are chosen, so their losses cannot be compared;"
                " tune a field of optimizer or model.dropout, or give each value an arm of its own"
            )
        if (
            self.field.startswith(("model.", "training.", "mesh."))
            and self.field not in _KEEPS_BUDGET
        ):
            raise ValueError(
                f"field={self.field!r} may change what a run costs, so its trials would have unequal budgets, and its arm another than the"
                f" others; tune a field of optimizer or one of {', '.join(_KEEPS_BUDGET)}, or give each value an arm of its own"
            )


@dataclasses.dataclass(frozen=True)
class Energy:
    """watts: of one device, instead of what is measured; 0 for what is measured or known of it. pue: of the data centre. grid_kg_per_kwh:
    CO2e of its electricity."""

    watts: float = 0.0
    pue: float = 1.1
    grid_kg_per_kwh: float = 0.4

    def __post_init__(self):
        if self.watts < 0 or self.pue < 1 or self.grid_kg_per_kwh < 0:
            raise ValueError(
                "watts and grid_kg_per_kwh must not be negative, and pue must be 1 or more"
            )


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What is asked, of whom, by what.

    Attributes:
      plain: all of it as nested dicts and lists. runs: the run config of each arm, still without steps. times: of the budget, that each
        arm gets. tasks: a name → options, with the
        plug-in's name under "task".
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


def parse(config: Mapping) -> Experiment:
    """Checks an experiment as far as that needs no corpus.

    Raises:
      UserError: a part of it is missing or cannot work.
    """
    given = plain(config)
    missing = [
        name for name in ("name", "seeds", "budget", "split", "tasks", "arms") if name not in given
    ]
    if missing:
        raise UserError(
            f"an experiment needs {', '.join('config.' + name for name in missing)} (experiments/objectives.py has them all)"
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
                f"config.tuning.seed={tuning.seed} is a seed of the main runs; tuning must not choose on what is reported"
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
        _measured("config.scaling", given["scaling"], tasks)
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
            _hypothesis(number, each, times, tasks)
            for number, each in enumerate(given["hypotheses"])
        ],
        energy=plugins.configure(Energy, given.get("energy") or {}, "config.energy"),
    )


def with_field(config: Mapping[str, Any], field: str, value: Any) -> dict[str, Any]:
    """A nested config with another value at a path such as "optimizer.learning_rate"."""
    head, _, rest = field.partition(".")
    return dict(config) | {head: with_field(config[head], rest, value) if rest else value}


def tuned_value(run: Mapping[str, Any], tuning: Tuning, index: int, arm: str = "") -> float | int:
    """The value of the tuned field in trial `index` of an arm; a whole number where the arm's own is one."""
    own = flat(run).get(tuning.field)
    if isinstance(own, bool) or not isinstance(own, int | float):
        raise UserError(
            f"config.tuning.field={tuning.field!r} is no number in arm {arm!r}: it is {own!r} there"
        )
    value = own * tuning.factors[index]
    return max(1, round(value)) if isinstance(own, int) else value


def known_names(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each task of the experiment {"task": plug-in, "shared", "metrics"}, for comparison.json."""
    found = {}
    for name, options in tasks.items():
        task = plugins.find("tasks", options["task"]).Task
        found[name] = {
            "task": options["task"],
            "shared": task.shared,
            "metrics": list(task.metrics),
        }
    return found


def check_compared(
    hypotheses: list[dict], models: set[str], baselines: Mapping[tuple[str, str], set[str]]
) -> None:
    """Refuses hypotheses that compare with what nobody measures, and arms with the name of a baseline, once all that is measured is known.

    Args:
      models: arms and untrained models. baselines: who else has a score, by (task, metric).
    """
    if twice := sorted(models & set().union(*baselines.values())):
        raise UserError(
            f"the arm {twice[0]!r} has the name of a baseline, so that its scores could not be told apart; give it another name"
        )
    for each in hypotheses:
        there = models | baselines.get((each["task"], each["metric"]), set())
        if each.get("compare") and each["compare"] not in there:
            raise UserError(
                f"the hypothesis {each['text']!r} compares with {each['compare']!r}, which is no arm, untrained model or baseline with a"
                f" score on {each['task']} {each['metric']}; there are: {', '.join(sorted(there)) or 'none'}"
            )


def _set(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a section's fields that were given a value."""
    return {name: value for name, value in fields.items() if value is not None}


def _run(arm: str, described: Any, shared: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The run config of an arm, with what is shared by all over its own."""
    if not _NAME.fullmatch(arm):
        raise UserError(
            f"config.arms.{arm!r}: an arm's name is made of letters, digits and _ . + -, since it names files"
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
            f"arm {arm!r}: {' and '.join(f'{name}={size}' for name, size in sizes.items())} must be at least 1"
        )
    return run | {"training": run["training"] | {"tokens": 0, "steps": 1000}}


def _times(arm: str, described: Mapping[str, Any]) -> float:
    """How many times the budget an arm gets."""
    times = described.get("times", 1.0)
    if isinstance(times, bool) or not isinstance(times, int | float) or not 0 < times < math.inf:
        raise UserError(
            f"config.arms.{arm}.times={times!r} must be a number above 0: how many times config.budget.value the arm gets"
        )
    return float(times)


def _tasks(given: Any) -> dict[str, dict[str, Any]]:
    """Tasks by their own names, each with its plug-in under "task" and its options."""
    if not isinstance(given, Mapping):
        given = {name: {} for name in given}
    tasks = {}
    for name, options in given.items():
        if not _NAME.fullmatch(name) or not isinstance(options, Mapping):
            raise UserError(
                f"config.tasks.{name}={options!r} should be a mapping of options, under a name of letters, digits and _ . + -"
            )
        tasks[name] = {"task": name} | dict(options)
        module = plugins.find("tasks", tasks[name]["task"])
        plugins.configure(module.Config, tasks[name], f"config.tasks.{name}", skip=("task",))
    return tasks


def _hypothesis(
    number: int, given: Any, times: Mapping[str, float], tasks: Mapping[str, Mapping]
) -> dict[str, Any]:
    where = f"config.hypotheses[{number}]"
    needed = ("text", "arm", "task", "metric", "op", "value")
    absent = [name for name in needed if not isinstance(given, dict) or name not in given]
    if absent:
        raise UserError(f"{where} needs {', '.join(absent)}")
    each = {"compare": ""} | given
    where += f" ({each['text']})"
    value = each["value"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{where}: value={value!r} should be a finite number")
    _among(f"{where}: arm", each["arm"], list(times))
    _measured(where, each, tasks)
    _among(f"{where}: op", each["op"], OPERATIONS)
    if each["op"] in _NEED_OTHER and not each["compare"]:
        raise UserError(
            f"{where}: op={each['op']!r} needs compare: the arm, baseline or untrained model to compare with"
        )
    own, other = times[each["arm"]], times.get(each["compare"])
    if other is not None and own != other:
        raise UserError(
            f"{where}: {each['arm']!r} gets {own:g} times the budget and {each['compare']!r} {other:g} times; only arms of equal"
            " budgets are compared"
        )
    return each


def _measured(where: str, given: Mapping[str, Any], tasks: Mapping[str, Mapping]) -> None:
    """Refuses a task that is not asked, and a metric that it does not have."""
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
