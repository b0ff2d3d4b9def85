"""Runs a sweep: a run for each combination of values and seed, shared between processes."""

import dataclasses
import functools
import itertools
import json
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rich.console

from lm.comparison import (
    arms,
    optuna_search,
    ranges,
    record,
    selection,
    sweep_results,
    trial,
    workers,
)
from lm.comparison.experiment import with_field
from lm.comparison.jobs import Job, failure_messages, run_all
from lm.comparison.progress import Progress
from lm.comparison.ranges import Range
from lm.comparison.trial_locks import TrialLocks
from lm.core.plain import flat, read_json, write_json
from lm.core.plugins import UserError
from lm.training.defaults import defaults, differences


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a sweep.

    Attributes:
      metric: metric to rank by: "validation.loss" or "task.metric".
      sampler: "grid", "random" or "optuna".
      trials: number of combinations of "random" and "optuna".
      seed: seed of "random" and "optuna".
      workers: number of runs at a time; 0 for a default (`lm.comparison.workers.number`).
      split: split that a task evaluates on.
    """

    metric: str = "validation.loss"
    sampler: str = "grid"
    trials: int = 0
    seed: int = 0
    workers: int = 0
    split: str = "validation"


def sweep(
    config: Mapping[str, Any], workdir: str | Path, given: Mapping[str, str], options: Options
) -> int:
    """Runs a sweep, together with other processes in the same workdir, and prints the results.

    Writes sweep.json, sweep.md and sweep.png.

    Args:
      config: a run config, as nested dicts.
      workdir: a new directory, or the workdir of the same sweep. Finished runs are kept and
        interrupted ones resumed.
      given: swept field → its values as written on the command line (lm/comparison/ranges.py).
        Results are averaged over the values of "seed".
      options: options of the sweep.

    Returns:
      Exit status: 0, or 1 if some runs failed.

    Raises:
      UserError: the sweep is invalid; raised before anything is trained.
    """
    workdir = Path(workdir)
    swept = ranges.fields(given, config)
    if not swept:
        raise UserError(
            "nothing is swept; give --sweep.FIELD=VALUES, such as"
            " --sweep.optimizer.learning_rate=1e-3,3e-3"
        )
    seeds = list(swept.pop("seed", Range("list", (config["seed"],))).values)
    tasks = selection.tasks(options.metric)
    selection.check_comparable(options.metric, swept)
    combinations = _combinations(swept, options)
    about = {
        "config": config,
        "sweep": dict(given),
        "metric": options.metric,
        "sampler": options.sampler,
        "sampler_seed": options.seed,
        "split": options.split,
    }
    _check_same(workdir, about)
    locks = TrialLocks(workdir / record.LOCKS)
    arms.prepare_corpora({"sweep": config})
    count = len(combinations) if combinations is not None else options.trials
    slots = workers.number(options.workers, count * len(seeds))
    console = rich.console.Console(stderr=True)
    with workers.pool(slots) as pool:
        # Build programs without training, so that an invalid sweep fails at once.
        first = _run_config(config, combinations[0] if combinations else {}, seeds[0])
        pool.submit(trial.check, "sweep", first, tasks, options.split, 0.0).result()
        checks = [
            pool.submit(selection.check, run, options.metric, options.split)
            for run in _distinct(config, swept, combinations)
        ]
        for check in checks:
            check.result()
        _create(workdir, about)
        make = functools.partial(_jobs, workdir, config, seeds, tasks, options)
        if combinations is None:
            with locks.holding("study"):
                study = optuna_search.Study(workdir, swept, options.seed)
            cost = functools.partial(sweep_results.cost, workdir, seeds, options.metric)
            outcomes = study.run(pool, locks, make, options.trials, slots, console, cost)
            combinations = study.combinations()
        else:
            jobs = [job for index, values in combinations.items() for job in make(index, values)]
            with Progress({job.name: job.directory for job in jobs}, console) as progress:
                outcomes = run_all(pool, jobs, locks, slots, progress)
    results = [
        sweep_results.collect(workdir, index, values, seeds, options.metric)
        for index, values in combinations.items()
    ]
    with locks.holding("report"):
        text = sweep_results.write(workdir, results, swept, seeds, options.metric)
    print(text)
    for message in failure_messages(outcomes):
        print(message, file=sys.stderr)
    return 1 if any(outcome["status"] == "failed" for outcome in outcomes.values()) else 0


def _combinations(swept: Mapping[str, Range], options: Options) -> dict[int, dict[str, Any]] | None:
    """All combinations by number; None if Optuna proposes them during the sweep."""
    if options.sampler == "grid":
        if options.trials:
            raise UserError(
                f"--trials={options.trials} is for --sampler=random or optuna; a grid has all"
                " combinations"
            )
        return dict(enumerate(ranges.grid(swept)))
    if options.trials < 1:
        raise UserError(
            f"--sampler={options.sampler} needs --trials=NUMBER: how many combinations to try"
        )
    if options.sampler == "random":
        return dict(enumerate(ranges.sample(swept, options.trials, options.seed)))
    optuna_search.check_installed()
    return None


def _distinct(
    config: Mapping[str, Any],
    swept: Mapping[str, Range],
    combinations: Mapping[int, dict[str, Any]] | None,
) -> list[dict[str, Any]]:
    """A run config for each distinct objective and model that the sweep tries.

    If Optuna draws values from a range, one value represents all.
    """
    if combinations is None:
        rng = random.Random(0)
        lists = [
            values.values
            if values.kind == "list" and field.startswith(("objective.", "model."))
            else (values.draw(rng),)
            for field, values in swept.items()
        ]
        tried = [dict(zip(swept, values, strict=True)) for values in itertools.product(*lists)]
    else:
        tried = list(combinations.values())
    runs = [_run_config(config, values, config["seed"]) for values in tried]
    by_kind = {
        json.dumps([run["objective"], run["model"]], sort_keys=True, default=str): run
        for run in runs
    }
    return list(by_kind.values())


def _check_same(workdir: Path, about: Mapping[str, Any]) -> None:
    """Checks that a workdir is new or of the same sweep; the number of trials may differ."""
    path = workdir / "sweep.json"
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file; give a directory")
    if path.exists():
        before = read_json(path, "the record of a sweep")
        old = flat({key: before.get(key) for key in about})
        new = flat(json.loads(json.dumps(about)))
        run_defaults = {f"config.{key}": value for key, value in defaults(about["config"]).items()}
        lines = [
            f"  {key}: {old.get(key)!r} there, {new.get(key)!r} now"
            for key in differences(old, new, run_defaults)
        ]
        if lines:
            raise UserError(
                f"--workdir={workdir} holds another sweep:\n"
                + "\n".join(lines[:12])
                + "\ngive another --workdir"
            )
    elif workdir.is_dir() and any(
        entry.name != record.LOCKS and not entry.name.startswith(".sweep")
        for entry in workdir.iterdir()
    ):
        raise UserError(
            f"--workdir={workdir} contains files that are not of a sweep; give an empty or new"
            " directory"
        )


def _create(workdir: Path, about: Mapping[str, Any]) -> None:
    """Writes sweep.json, unless another process has written it."""
    _check_same(workdir, about)
    if (workdir / "sweep.json").exists():
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir={workdir} cannot be written: {error}") from error
    write_json(workdir / "sweep.json", about)


def _run_config(config: Mapping[str, Any], values: Mapping[str, Any], seed: int) -> dict[str, Any]:
    run = dict(config)
    for field, value in values.items():
        run = with_field(run, field, value)
    return run | {"seed": seed}


def _jobs(
    workdir: Path,
    config: Mapping[str, Any],
    seeds: Sequence[int],
    tasks: trial.Tasks,
    options: Options,
    index: int,
    values: Mapping[str, Any],
) -> list[Job]:
    """The runs of one combination."""
    jobs = []
    for seed in seeds:
        directory = sweep_results.directory(workdir, index, seed)
        run = _run_config(config, values, seed)
        arm, experiment = f"{index:03d}", workdir.name
        arguments: tuple = (directory, run, experiment)
        if tasks:
            arguments = (directory, arm, seed, run, experiment, tasks, options.split, "", False)
        jobs.append(
            Job(
                name=directory.name,
                directory=directory,
                call=trial.run if tasks else trial.train,
                arguments=functools.partial(tuple, arguments),
                ended=functools.partial(trial.ended, directory, bool(tasks)),
            )
        )
    return jobs
