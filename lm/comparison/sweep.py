"""Runs a sweep: one run for each combination of values and seed, shared between processes; then a table and a picture."""

import dataclasses
import functools
import itertools
import json
import math
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rich.console

from lm.comparison import ranges, selection, trial, workers
from lm.comparison.claims import Claims
from lm.comparison.experiment import with_field
from lm.comparison.jobs import Job, complaints, run_all
from lm.comparison.progress import Progress
from lm.comparison.ranges import Range
from lm.core.plain import flat, plain, read_json, write_json
from lm.core.plugins import UserError

Arm = dict[
    str, Any
]  # {"index", "values": {field: value}, "runs": [{"seed", "value", "better", "status"}], "mean", "spread"}


@dataclasses.dataclass(frozen=True)
class Options:
    """metric: "validation.loss" or "task.metric". sampler: grid, random or optuna. trials: combinations of the last two. seed: of what they
    draw. workers: runs side by side. split: that a task measures on."""

    metric: str = "validation.loss"
    sampler: str = "grid"
    trials: int = 0
    seed: int = 0
    workers: int = 0
    split: str = "validation"


def sweep(config: Mapping, workdir: str | Path, swept: Mapping[str, str], options: Options) -> int:
    """Runs what is missing, writes sweep.json, sweep.md and sweep.png, and prints the table.

    Args:
      config: of a run. swept: values by field, as typed (lm/comparison/ranges.py); "seed" among them is averaged over.

    Returns:
      Exit status: 0, or 1 if some runs failed.

    Raises:
      UserError: the sweep cannot work; before anything is computed.
    """
    base, workdir = plain(config), Path(workdir)
    found = ranges.fields(swept, base)
    if not found:
        raise UserError(
            "nothing is swept; give --sweep.FIELD=VALUES, as --sweep.optimizer.learning_rate=1e-3,3e-3"
        )
    seeds = list(found.pop("seed", Range("list", (base["seed"],))).values)
    tasks = selection.tasks(options.metric)
    selection.check_comparable(options.metric, found)
    if options.sampler != "grid" and options.trials < 1:
        raise UserError(
            f"--sampler={options.sampler} needs --trials=NUMBER: how many combinations to try"
        )
    if options.sampler == "grid" and options.trials:
        raise UserError(
            f"--trials={options.trials} is for --sampler=random or optuna; a grid tries all combinations"
        )
    combinations = _combinations(found, options)
    about = {
        "config": base,
        "sweep": dict(swept),
        "metric": options.metric,
        "sampler": options.sampler,
        "sampler_seed": options.seed,
    }
    about |= {"split": options.split}
    _check_same(workdir, about)
    claims = Claims(workdir / ".claims")
    from lm.data import corpus as corpora

    corpora.prepare(base["data"], base["tokenizer"])
    count = len(combinations) if combinations is not None else options.trials
    slots = workers.number(options.workers, count * len(seeds))
    console = rich.console.Console(stderr=True)
    with workers.pool(slots) as pool:
        # Built without training, so that what cannot work is said at once.
        first = combinations[0] if combinations else {}
        pool.submit(
            trial.check, "sweep", _run_config(base, first, seeds[0]), tasks, options.split, 0.0
        ).result()
        for checked in [
            pool.submit(selection.check, each, options.metric, options.split)
            for each in _kinds(base, found, combinations)
        ]:
            checked.result()
        _fix(workdir, about)
        if combinations is None:
            from lm.comparison import optuna_search

            with claims.holding("study"):
                study = optuna_search.Study(workdir, found, options.seed)
            make, cost = (
                functools.partial(_jobs, workdir, base, seeds, tasks, options),
                functools.partial(_cost, workdir, seeds, options.metric),
            )
            outcomes = study.run(pool, claims, make, options.trials, slots, console, cost)
            combinations = study.combinations()
        else:
            jobs = [
                job
                for index, values in combinations.items()
                for job in _jobs(workdir, base, seeds, tasks, options, index, values)
            ]
            with Progress({job.name: job.directory for job in jobs}, console) as show:
                outcomes = run_all(pool, jobs, claims, slots, show)
    arms = [
        _arm(workdir, index, values, seeds, options.metric)
        for index, values in combinations.items()
    ]
    with claims.holding("report"):
        text = write(workdir, arms, found, seeds, options)
    print(text)
    for complaint in complaints(outcomes):
        print(complaint, file=sys.stderr)
    return 1 if any(outcome["status"] == "failed" for outcome in outcomes.values()) else 0


def _combinations(found: Mapping[str, Range], options: Options) -> dict[int, dict[str, Any]] | None:
    """All that will be tried, numbered; None where an external tuner says so as it goes."""
    if options.sampler == "grid":
        return dict(enumerate(ranges.grid(found)))
    if options.sampler == "random":
        return dict(enumerate(ranges.sample(found, options.trials, options.seed)))
    from lm.comparison import optuna_search

    optuna_search.check_installed()
    return None


def _kinds(
    base: Mapping[str, Any],
    found: Mapping[str, Range],
    combinations: Mapping[int, dict[str, Any]] | None,
) -> list[dict[str, Any]]:
    """A run's config for each objective and model that will be tried; of ranges that a tuner draws from, one value."""
    if combinations is None:
        rng = random.Random(0)
        listed = [
            each.values
            if each.kind == "list" and field.startswith(("objective.", "model."))
            else (each.draw(rng),)
            for field, each in found.items()
        ]
        tried = [dict(zip(found, values, strict=True)) for values in itertools.product(*listed)]
    else:
        tried = list(combinations.values())
    configs = [_run_config(base, values, base["seed"]) for values in tried]
    return list(
        {
            json.dumps([each["objective"], each["model"]], sort_keys=True, default=str): each
            for each in configs
        }.values()
    )


def _check_same(workdir: Path, about: Mapping[str, Any]) -> None:
    """Refuses a workdir of another sweep, or of something else. More trials may be asked for."""
    path = workdir / "sweep.json"
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file; give a directory")
    if path.exists():
        before = read_json(path, "the record of a sweep")
        old, new = (
            flat({key: before.get(key) for key in about}),
            flat(json.loads(json.dumps(about))),
        )
        lines = [
            f"  {key}: {old.get(key)!r} there, {new.get(key)!r} now"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]
        if lines:
            raise UserError(
                f"--workdir={workdir} holds another sweep:\n"
                + "\n".join(lines[:12])
                + "\ngive another --workdir"
            )
    elif workdir.is_dir() and any(
        entry.name != ".claims" and not entry.name.startswith(".sweep")
        for entry in workdir.iterdir()
    ):
        raise UserError(
            f"--workdir={workdir} holds something that is no sweep; give an empty or new directory"
        )


def _fix(workdir: Path, about: Mapping[str, Any]) -> None:
    """Writes down what is swept, once it is known to work, unless another process has."""
    _check_same(workdir, about)
    if (workdir / "sweep.json").exists():
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir={workdir} cannot be written: {error}") from error
    write_json(workdir / "sweep.json", about)


def _run_config(base: Mapping[str, Any], values: Mapping[str, Any], seed: int) -> dict[str, Any]:
    config = dict(base)
    for field, value in values.items():
        config = with_field(config, field, value)
    return config | {"seed": seed}


def _directory(workdir: Path, index: int, seed: int) -> Path:
    return workdir / "runs" / f"{index:03d}-seed{seed}"


def _jobs(
    workdir: Path,
    base: Mapping[str, Any],
    seeds: list[int],
    tasks: Mapping,
    options: Options,
    index: int,
    values: Mapping[str, Any],
) -> list[Job]:
    """The runs of one combination."""
    jobs = []
    for seed in seeds:
        where, config = _directory(workdir, index, seed), _run_config(base, values, seed)
        ended = functools.partial(trial.ended, where, bool(tasks))
        if tasks:
            arguments: tuple = (
                where,
                f"{index:03d}",
                seed,
                config,
                workdir.name,
                tasks,
                options.split,
                "",
                False,
            )
            jobs.append(
                Job(where.name, where, trial.run, functools.partial(tuple, arguments), ended)
            )
        else:
            jobs.append(
                Job(
                    where.name,
                    where,
                    trial.train,
                    functools.partial(tuple, (where, config, workdir.name)),
                    ended,
                )
            )
    return jobs


def _arm(
    workdir: Path, index: int, values: Mapping[str, Any], seeds: list[int], metric: str
) -> Arm:
    """What a combination reached: the mean over the seeds that have a value, only where all that ended well do."""
    runs = []
    for seed in seeds:
        where = _directory(workdir, index, seed)
        record = (
            read_json(where / "run.json", "the record of a run")
            if (where / "run.json").exists()
            else {}
        )
        value, better = selection.value(where, record, metric)
        runs.append(
            {
                "seed": seed,
                "status": record.get("status", "failed"),
                "value": value,
                "better": better,
            }
        )
    known = [run["value"] for run in runs if run["value"] is not None]
    whole = len(known) == len(seeds)  # a seed that diverged speaks against its combination
    mean = sum(known) / len(known) if whole else None
    spread = (
        math.sqrt(sum((value - mean) ** 2 for value in known) / (len(known) - 1))
        if mean is not None and len(known) > 1
        else None
    )
    return {"index": index, "values": dict(values), "runs": runs, "mean": mean, "spread": spread}


def _cost(workdir: Path, seeds: list[int], metric: str, index: int) -> float | None:
    """What a tuner makes small, whichever direction the metric has."""
    arm = _arm(workdir, index, {}, seeds, metric)
    return None if arm["mean"] is None else selection.cost(arm["mean"], selection.direction([arm]))


def write(
    workdir: Path, arms: list[Arm], found: Mapping[str, Range], seeds: list[int], options: Options
) -> str:
    """Adds the results to sweep.json, and writes sweep.md and sweep.png; returns the table, the best first."""
    better = selection.direction(arms)
    ranked = sorted(
        arms, key=lambda arm: (arm["mean"] is None, selection.cost(arm["mean"] or 0.0, better))
    )
    best = ranked[0] if ranked and ranked[0]["mean"] is not None else None
    record = read_json(workdir / "sweep.json", "the record of a sweep")
    write_json(
        workdir / "sweep.json",
        record | {"seeds": seeds, "arms": arms, "best": best, "better": better},
    )
    lines = [
        "| " + " | ".join([*found, options.metric, "over seeds", "runs"]) + " |",
        "|" + " --- |" * (len(found) + 3),
    ]
    for arm in ranked:
        values = ranges.texts([arm["values"][field] for field in found])
        mean = "" if arm["mean"] is None else f"{arm['mean']:.5g}"
        spread = "" if arm["spread"] is None else f"± {arm['spread']:.2g}"
        states = ", ".join(dict.fromkeys(run["status"] for run in arm["runs"]))
        lines.append("| " + " | ".join([*values, mean, spread, states]) + " |")
    if best:
        values = best["values"]
        said = f"best by {options.metric} ({better} is better): " + " ".join(
            f"--config.{field}={values[field]}" for field in found
        )
        edges = [
            field
            for field, each in found.items()
            if each.values and len(each.values) > 1 and _at_edge(values[field], each)
        ]
        said += "".join(
            f"\n{field} is best at an end of what was tried; a better value may lie beyond"
            for field in edges
        )
    else:
        said = "no combination ended well with all its seeds"
    table = "\n".join(lines)
    head = f"# Sweep of {', '.join(found) or 'seeds'}\n\n{said}\n\n![{options.metric} by field](sweep.png)\n\n"
    (workdir / "sweep.md").write_text(
        f"{head}{table}\n\nMean over seeds {', '.join(map(str, seeds))}; ± is their standard deviation.\n",
        encoding="utf-8",
    )
    if best and found:
        draw(workdir / "sweep.png", arms, found, options.metric, better)
    return f"{table}\n\n{said}\nwritten: {workdir / 'sweep.md'}"


def _at_edge(value: Any, tried: Range) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and value in (min(tried.values), max(tried.values))
    )


def draw(
    path: Path, arms: list[Arm], found: Mapping[str, Range], metric: str, better: str | None
) -> None:
    """A panel for each field: every combination's mean, with a line through the best at each value."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(found), 3.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    choose = max if better == "higher" else min
    for axes, (field, each) in zip(
        figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True
    ):
        points = [(arm["values"][field], arm["mean"]) for arm in arms if arm["mean"] is not None]
        numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x, _ in points)
        points = sorted(points) if numbers else [(str(x), y) for x, y in points]
        tops: dict[Any, list[float]] = {}
        for x, y in points:
            tops.setdefault(x, []).append(y)
        axes.plot(
            list(tops),
            [choose(ys) for ys in tops.values()],
            color="#0072B2",
            linewidth=1.2,
            alpha=0.6 if len(tops) < len(points) else 1,
        )
        axes.scatter(
            [x for x, _ in points], [y for _, y in points], color="#D55E00", s=18, zorder=3
        )
        xs = [x for x, _ in points if numbers and x > 0]
        if each.kind == "log" or (
            each.kind == "list" and numbers and len(xs) == len(points) and max(xs) >= 8 * min(xs)
        ):
            axes.set_xscale("log")
        axes.set_xlabel(field)
        axes.set_ylabel(metric)
        axes.grid(True, alpha=0.3)
    figure.savefig(path.with_suffix(".part.png"))
    path.with_suffix(".part.png").replace(path)
