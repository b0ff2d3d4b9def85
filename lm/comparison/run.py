"""Runs an experiment: every arm with every seed at one budget, measured alike, several side by side; and its report."""

import functools
import hashlib
import json
import math
import os
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rich.console

from lm.comparison import budgets, record, trial, tuning, workers
from lm.comparison.budgets import Accounting
from lm.comparison.claims import Claims, me, shown
from lm.comparison.experiment import Experiment, check_compared, parse, with_field
from lm.comparison.jobs import Job, Outcome, complaints, run_all
from lm.comparison.progress import Progress
from lm.core.plain import read_json, write_json
from lm.core.plugins import UserError

_NOTED_EVERY = 30.0  # seconds between notes of how far a session came


def compare(config: Mapping, workdir: str | Path, command: str, source: str) -> int:
    """Runs what is missing of the experiment, together with other processes in the same workdir, then writes results and report.

    Args:
      config: as an experiments/*.py file gives it. workdir: new, or of the same experiment: finished runs are kept, others continue.
      command, source: the command line and the config's name, for the report.

    Returns:
      Exit status: 0, or 1 if some runs failed. One that diverged is a result.

    Raises:
      UserError: the experiment cannot work; before anything is computed.
    """
    experiment, workdir, began = parse(config), Path(workdir), time.time()
    claims = Claims(workdir / record.HIDDEN)
    old = record.read(workdir)
    record.check_same(workdir, old, experiment)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir={workdir} cannot be written: {error}") from error
    prepare_corpora(experiment.runs)
    written = _report_id(claims)
    trials = len(experiment.runs) * (len(experiment.seeds) + len(experiment.tuning.factors))
    slots = workers.number(experiment.plain["workers"], trials)
    with workers.pool(slots) as pool:
        arms, about = check_arms(pool, experiment, old)
        planned = budgets.plan(experiment.budget, arms, experiment.times)
        with claims.holding("record"):
            old = record.read(workdir)
            record.check_same(workdir, old, experiment)
            then, now = old.get("data", about["data"])["fingerprint"], about["data"]["fingerprint"]
            if then != now:
                raise UserError(
                    f"--workdir={workdir} was compared on other data: fingerprint {then} there,"
                    f" {now} now (the corpus or its tokenizer changed); give another --workdir"
                )
            record.check_planned(workdir, old, planned)
            made = record.make(
                experiment, arms, planned, about, old, workers=slots, command=command, config=source
            )
            if experiment.tuning.factors:
                made["tuning"] = tuning.record(
                    experiment, workdir, {arm: plan["steps"] for arm, plan in planned.items()}
                )
            write_json(record.path(workdir), made)
            record.note_session(workdir, began)
        jobs = _jobs(experiment, workdir, made)
        with Progress(
            {job.name: job.directory for job in jobs if job.trial},
            rich.console.Console(stderr=True),
        ) as show:
            on_end = functools.partial(
                _job_ended, experiment, workdir, made, claims, began, [time.time()]
            )
            outcomes = run_all(pool, jobs, claims, slots, show, on_end)
    print(_write(experiment, workdir, claims, jobs, outcomes, began, written))
    for complaint in complaints(outcomes):
        print(complaint, file=sys.stderr)
    return 1 if any(outcome["status"] == "failed" for outcome in outcomes.values()) else 0


def prepare_corpora(runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Builds tokenizer and stores once, with a progress bar, before the workers need them."""
    from lm.data import corpus as corpora

    for config in runs.values():
        corpora.prepare(config["data"], config["tokenizer"])


def check_arms(
    pool: Any, experiment: Experiment, old: Mapping[str, Any], anywhere: bool = False
) -> tuple[dict[str, Accounting], dict]:
    """What a step of each arm amounts to, and what the comparison is about, from workers; the tasks are made on trial.

    Args:
      old: the workdir's record, which knows what was counted before. anywhere: whether the arms' meshes may be for another machine.

    Raises:
      UserError: an arm or task cannot work, the arms have no corpus in common, or a hypothesis names an untrained model that is none.
    """
    futures: dict[str, Any] = {}
    budget, asked = experiment.budget, list(experiment.tasks.values())
    precision = (
        budget.tolerance / 4 if budget.matched == "loss_tokens" and budget.tolerance else math.inf
    )
    for arm, run in experiment.runs.items():
        counted = old.get("arms", {}).get(arm, {}).get("loss_tokens_per_row")
        tasks = experiment.tasks if not futures else {}
        futures[arm] = pool.submit(
            trial.check, arm, run, tasks, experiment.split, counted, anywhere, asked, precision
        )
    found = {arm: future.result() for arm, future in futures.items()}
    arms = {arm: accounting for arm, (accounting, _) in found.items()}
    if len({about["data"]["fingerprint"] for _, about in found.values()}) > 1:
        raise UserError(
            "the arms read different corpora or tokenizers, so no yardstick can be shared; give all arms the same data and tokenizer"
        )
    names = {
        name
        for name, _ in record.untrained(
            experiment.runs, {arm: of.mask for arm, of in arms.items()}
        ).values()
    }
    suiting = {
        arm: dict(zip(experiment.tasks, about["suits"], strict=True))
        for arm, (_, about) in found.items()
    }
    for each in experiment.hypotheses:
        unsuited = [
            arm
            for arm in (each["arm"], each["compare"])
            if not suiting.get(arm, {}).get(each["task"], True)
        ]
        if unsuited:
            able = [arm for arm in experiment.runs if suiting[arm][each["task"]]]
            raise UserError(
                f"the hypothesis {each['text']!r} asks {unsuited[0]!r} for {each['task']}, which its objective cannot be asked;"
                f" arms that can: {', '.join(able) or 'none'}"
            )
        if each["compare"].startswith("untrained") and each["compare"] not in names:
            raise UserError(
                f"the hypothesis {each['text']!r} compares with {each['compare']!r}; the untrained models here are:"
                f" {', '.join(sorted(names))}"
            )
    _, about = next(iter(found.values()))
    about["machine"] |= {
        "cores": len(os.sched_getaffinity(0))
    }  # of all workers: each has a part of them
    return arms, {key: value for key, value in about.items() if key != "suits"}


def _jobs(experiment: Experiment, workdir: Path, made: Mapping[str, Any]) -> list[Job]:
    """Baselines, then tuning, then main runs, seed by seed, so that an interruption leaves whole seeds."""
    tasks, split, name = experiment.tasks, experiment.split, experiment.plain["name"]
    steps = {arm: plan["steps"] for arm, plan in made["planned"].items()}
    path, first = workdir / "baselines.json", next(iter(experiment.runs.values()))
    ended = functools.partial(trial.baselines_ended, path)
    jobs = [
        Job(
            "baselines",
            workdir,
            trial.baselines,
            lambda: (path, first, tasks, split),
            ended,
            trial=False,
        )
    ]
    tuned: dict[str, list[str]] = {arm: [] for arm in experiment.runs}
    for index in range(len(experiment.tuning.factors)):
        for arm in experiment.runs:
            where = tuning.directory(workdir, arm, index)
            tuned[arm].append(f"tuning-{where.name}")
            arguments = functools.partial(
                _tuning_arguments, experiment, where, arm, index, steps[arm]
            )
            jobs.append(
                Job(
                    tuned[arm][-1],
                    where,
                    trial.train,
                    arguments,
                    functools.partial(trial.ended, where, False),
                )
            )
    measures = {
        arm: untrained for arm, (untrained, owns) in _untrained(experiment, made).items() if owns
    }
    for seed in experiment.seeds:
        for arm in experiment.runs:
            where = workdir / "runs" / f"{arm}-seed{seed}"
            rest = (name, tasks, split, measures.get(arm, ""), seed == experiment.seeds[0])
            arguments = functools.partial(
                _run_arguments, experiment, workdir, where, arm, seed, steps[arm], rest
            )
            jobs.append(
                Job(
                    where.name,
                    where,
                    trial.run,
                    arguments,
                    functools.partial(trial.ended, where, True),
                    tuple(tuned[arm]),
                )
            )
    return jobs


def _tuning_arguments(
    experiment: Experiment, where: Path, arm: str, index: int, steps: int
) -> tuple:
    return where, tuning.config(experiment, arm, index, steps), experiment.plain["name"]


def _run_arguments(
    experiment: Experiment, workdir: Path, where: Path, arm: str, seed: int, steps: int, rest: tuple
) -> tuple:
    """Of a main run, at the value that its arm's tuning chose."""
    config = with_field(experiment.runs[arm], "training.steps", steps) | {"seed": seed}
    if experiment.tuning.factors:
        config = with_field(
            config, experiment.tuning.field, tuning.chosen_value(experiment, workdir, arm)
        )
    return where, arm, seed, config, *rest


def _untrained(experiment: Experiment, made: Mapping[str, Any]) -> dict[str, tuple[str, bool]]:
    return record.untrained(experiment.runs, {arm: of["mask"] for arm, of in made["arms"].items()})


def _job_ended(
    experiment: Experiment, workdir: Path, made: Mapping[str, Any], claims: Claims, began: float, noted: list[float], ended: str
) -> None:  # fmt: skip
    """Notes how far this session came. Once baselines are there, all names that a hypothesis can compare with are known.

    Args:
      noted: when that was done last.
    """
    if time.time() > noted[0] + _NOTED_EVERY:
        with claims.holding("record"):
            record.note_session(workdir, began)
        noted[0] = time.time()
    if ended == "baselines" and (workdir / "baselines.json").exists():
        check_compared(
            experiment.hypotheses, record.models(made["arms"]), record.baselines(workdir)
        )


def _report_path(claims: Claims) -> Path:
    return claims.directory / "report.json"


def _report_id(claims: Claims) -> str:
    """Which writing of the report was the last, by any process."""
    path = _report_path(claims)
    return read_json(path, "what the report says")["id"] if path.exists() else ""


def _write(
    experiment: Experiment,
    workdir: Path,
    claims: Claims,
    jobs: list[Job],
    outcomes: Mapping[str, Outcome],
    began: float,
    before: str,
) -> str:
    """Writes results and report, unless another process has written the same meanwhile; returns what it says first.

    Args:
      before: `_report_id` when this process came.
    """
    runs = [job.directory for job in jobs if job.call is trial.run]
    with claims.holding("report"):
        with claims.holding("record"):
            failures = {
                name: f"{of['status']}: {of.get('error', '')}"
                for name, of in outcomes.items()
                if of["status"] != "done"
            }
            made = record.finish(workdir, experiment, runs, began, failures)
        state = [
            (job.name, outcomes[job.name]["status"], _modified(job.directory / "scores.json"))
            for job in jobs
        ]
        digest = hashlib.sha256(json.dumps([experiment.plain, state]).encode()).hexdigest()
        if _report_id(claims) != before:
            other = read_json(_report_path(claims), "what the report says")
            if other["digest"] == digest:
                return f"{other['text']} (written by {shown(other['by'])})"
        record.write_results(
            workdir,
            [
                workdir / "runs" / f"{arm}-seed{seed}"
                for seed in made["seeds"]
                for arm in made["arms"]
            ],
        )
        from lm import report

        written = report.write(workdir)
        lines = ["", written.headline]
        lines += [
            f"  {each.verdict:>14}  {each.text}: {each.measured} {each.interval}"
            for each in written.hypotheses
        ]
        if "tuning" in made:
            lines += ["", *tuning.notes(made["tuning"])]
        done = sum(outcomes[job.name]["status"] == "done" for job in jobs if job.trial)
        lines += [
            "",
            f"{done} of {sum(job.trial for job in jobs)} runs in {made['seconds'] / 60:.1f} minutes",
            f"report: {written.html.resolve()}",
        ]
        text = "\n".join(lines)
        write_json(
            _report_path(claims),
            {"id": uuid.uuid4().hex, "digest": digest, "by": me(), "text": text},
        )
    return text


def _modified(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0
