"""Runs a comparison: each arm with each seed at one budget and on the same tasks; then a report."""

import functools
import hashlib
import json
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rich.console

from lm import report
from lm.comparison import arms, budgets, record, trial, tuning, workers
from lm.comparison.experiment import Experiment, check_comparisons, parse, with_field
from lm.comparison.jobs import Job, Outcome, failure_messages, run_all
from lm.comparison.progress import Progress
from lm.comparison.trial_locks import TrialLocks, owner_name, this_process
from lm.core.plain import read_json, write_json
from lm.core.plugins import UserError
from lm.report.number_format import duration

_NOTE_EVERY = 30.0  # seconds between updates of the session in the record


def compare(config: Mapping[str, Any], workdir: str | Path, command: str, source: str) -> int:
    """Runs an experiment, together with other processes in the same workdir, and writes the report.

    Args:
      config: the experiment, as nested dicts (experiments/*.py).
      workdir: a new directory, or the workdir of the same experiment. Finished runs are kept and
        interrupted ones resumed.
      command: the command line, for the report.
      source: name of the config file, for the report.

    Returns:
      Exit status: 0, or 1 if some runs failed. A run that diverged is a result.

    Raises:
      UserError: the experiment is invalid; raised before anything is trained.
    """
    experiment, workdir, began = parse(config), Path(workdir), time.time()
    locks = TrialLocks(workdir / record.LOCKS)
    old = record.read(workdir)
    record.check_same(workdir, old, experiment)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir={workdir} cannot be written: {error}") from error
    arms.prepare_corpora(experiment.runs)
    report_before = _report_id(locks)
    count = len(experiment.runs) * (len(experiment.seeds) + len(experiment.tuning.factors))
    slots = workers.number(experiment.plain["workers"], count)
    with workers.pool(slots) as pool:
        counted, about = arms.check(pool, experiment, old)
        planned = budgets.plan(experiment.budget, counted, experiment.times)
        with locks.holding("record"):
            old = record.read(workdir)
            record.check_same(workdir, old, experiment)
            _check_same_data(workdir, old, about["data"])
            record.check_planned(workdir, old, planned)
            content = record.make(
                experiment,
                counted,
                planned,
                about,
                old,
                workers=slots,
                command=command,
                config=source,
            )
            if experiment.tuning.factors:
                steps = {arm: plan["steps"] for arm, plan in planned.items()}
                content["tuning"] = tuning.record(experiment, workdir, steps)
            write_json(record.path(workdir), content)
            record.note_session(workdir, began)
        jobs = _jobs(experiment, workdir, content)
        on_end = functools.partial(
            _on_end, experiment, workdir, content, locks, began, [time.time()]
        )
        trials = {job.name: job.directory for job in jobs if job.trial}
        with Progress(trials, rich.console.Console(stderr=True)) as progress:
            outcomes = run_all(pool, jobs, locks, slots, progress, on_end)
    print(_write_report(experiment, workdir, locks, jobs, outcomes, began, report_before))
    for message in failure_messages(outcomes):
        print(message, file=sys.stderr)
    return 1 if any(outcome["status"] == "failed" for outcome in outcomes.values()) else 0


def _check_same_data(workdir: Path, old: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Checks that the corpus is that of earlier sessions."""
    before, now = old.get("data", data)["fingerprint"], data["fingerprint"]
    if before != now:
        raise UserError(
            f"--workdir={workdir} was compared on other data: fingerprint {before} there,"
            f" {now} now (the corpus or its tokenizer changed); give another --workdir"
        )


def _jobs(experiment: Experiment, workdir: Path, content: Mapping[str, Any]) -> list[Job]:
    """All jobs: baselines, then tuning, then main runs.

    Main runs are ordered by seed, so that an interrupted comparison has all arms of the first
    seeds.
    """
    tasks, split, name = experiment.tasks, experiment.split, experiment.plain["name"]
    steps = {arm: plan["steps"] for arm, plan in content["planned"].items()}
    path, first = workdir / "baselines.json", next(iter(experiment.runs.values()))
    jobs = [
        Job(
            name="baselines",
            directory=workdir,
            call=trial.baselines,
            arguments=lambda: (path, first, tasks, split),
            ended=functools.partial(trial.baselines_ended, path),
            trial=False,
        )
    ]
    tuned: dict[str, list[str]] = {arm: [] for arm in experiment.runs}
    for index in range(len(experiment.tuning.factors)):
        for arm in experiment.runs:
            directory = tuning.directory(workdir, arm, index)
            job = Job(
                name=f"tuning-{directory.name}",
                directory=directory,
                call=trial.train,
                arguments=functools.partial(
                    _tuning_arguments, experiment, directory, arm, index, steps[arm]
                ),
                ended=functools.partial(trial.ended, directory, False),
            )
            tuned[arm].append(job.name)
            jobs.append(job)
    masks = {arm: described["mask"] for arm, described in content["arms"].items()}
    untrained = {
        arm: model
        for arm, (model, evaluates) in record.untrained(experiment.runs, masks).items()
        if evaluates
    }
    for seed in experiment.seeds:
        for arm in experiment.runs:
            directory = _run_directory(workdir, arm, seed)
            with_samples = seed == experiment.seeds[0]
            rest = (name, tasks, split, untrained.get(arm, ""), with_samples)
            jobs.append(
                Job(
                    name=directory.name,
                    directory=directory,
                    call=trial.run,
                    arguments=functools.partial(
                        _run_arguments, experiment, workdir, directory, arm, seed, steps[arm], rest
                    ),
                    ended=functools.partial(trial.ended, directory, True),
                    after=tuple(tuned[arm]),
                )
            )
    return jobs


def _run_directory(workdir: Path, arm: str, seed: int) -> Path:
    return workdir / "runs" / f"{arm}-seed{seed}"


def _tuning_arguments(
    experiment: Experiment, directory: Path, arm: str, index: int, steps: int
) -> tuple:
    """Arguments of `trial.train` for a trial of tuning."""
    return directory, tuning.config(experiment, arm, index, steps), experiment.plain["name"]


def _run_arguments(
    experiment: Experiment,
    workdir: Path,
    directory: Path,
    arm: str,
    seed: int,
    steps: int,
    rest: tuple,
) -> tuple:
    """Arguments of `trial.run` for a main run, with the value that the arm's tuning selected."""
    config = with_field(experiment.runs[arm], "training.steps", steps) | {"seed": seed}
    if experiment.tuning.factors:
        value = tuning.selected_value(experiment, workdir, arm)
        config = with_field(config, experiment.tuning.field, value)
    return directory, arm, seed, config, *rest


def _on_end(
    experiment: Experiment,
    workdir: Path,
    content: Mapping[str, Any],
    locks: TrialLocks,
    began: float,
    last_note: list[float],
    name: str,
) -> None:
    """Handles the end of a job: updates the session, and checks hypotheses after the baselines.

    Args:
      experiment: the experiment.
      workdir: workdir of the comparison.
      content: the record.
      locks: locks of the workdir.
      began: start of the session, in seconds since the epoch.
      last_note: one element, the time of the last update, which is changed here.
      name: name of the job.
    """
    if time.time() > last_note[0] + _NOTE_EVERY:
        with locks.holding("record"):
            record.note_session(workdir, began)
        last_note[0] = time.time()
    if name == "baselines" and (workdir / "baselines.json").exists():
        names = record.models(content["arms"])
        check_comparisons(experiment.hypotheses, names, record.baselines(workdir))


def _report_path(locks: TrialLocks) -> Path:
    return locks.directory / "report.json"


def _report_id(locks: TrialLocks) -> str:
    """Identifies the last report that any process has written; "" if there is none."""
    path = _report_path(locks)
    return read_json(path, "the last report's summary")["id"] if path.exists() else ""


def _write_report(
    experiment: Experiment,
    workdir: Path,
    locks: TrialLocks,
    jobs: Sequence[Job],
    outcomes: Mapping[str, Outcome],
    began: float,
    report_before: str,
) -> str:
    """Writes results and report, unless another process has written the same.

    Args:
      experiment: the experiment.
      workdir: workdir of the comparison.
      locks: locks of the workdir.
      jobs: all jobs.
      outcomes: outcomes of the jobs.
      began: start of the session, in seconds since the epoch.
      report_before: `_report_id` at the start of the session.

    Returns:
      The report's main results, for the terminal.
    """
    runs = [job.directory for job in jobs if job.call is trial.run]
    failures = {
        name: f"{outcome['status']}: {outcome.get('error', '')}"
        for name, outcome in outcomes.items()
        if outcome["status"] != "done"
    }
    with locks.holding("report"):
        with locks.holding("record"):
            content = record.finish(workdir, experiment, runs, began, failures)
        state = [
            (job.name, outcomes[job.name]["status"], _modified(job.directory / "scores.json"))
            for job in jobs
        ]
        digest = hashlib.sha256(json.dumps([experiment.plain, state]).encode()).hexdigest()
        if _report_id(locks) != report_before:
            other = read_json(_report_path(locks), "the last report's summary")
            if other["digest"] == digest:
                return f"{other['text']} (written by {owner_name(other['by'])})"
        directories = [
            _run_directory(workdir, arm, seed)
            for seed in content["seeds"]
            for arm in content["arms"]
        ]
        record.write_results(workdir, directories)
        text = _summary(report.write(workdir), content, jobs, outcomes)
        summary = {"id": uuid.uuid4().hex, "digest": digest, "by": this_process(), "text": text}
        write_json(_report_path(locks), summary)
    return text


def _summary(
    written: report.Report,
    content: Mapping[str, Any],
    jobs: Sequence[Job],
    outcomes: Mapping[str, Outcome],
) -> str:
    """The report's headline and verdicts, what tuning selected, and how many runs are done."""
    lines = ["", written.headline]
    lines += [
        f"  {hypothesis.verdict:>14}  {hypothesis.text}: {hypothesis.measured}"
        f" {hypothesis.interval}"
        for hypothesis in written.hypotheses
    ]
    if "tuning" in content:
        lines += ["", *tuning.notes(content["tuning"])]
    trials = [job for job in jobs if job.trial]
    done = sum(outcomes[job.name]["status"] == "done" for job in trials)
    lines += [
        "",
        f"{done} of {len(trials)} runs in {duration(content['seconds'])}",
        f"report: {written.html.resolve()}",
    ]
    return "\n".join(lines)


def _modified(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0
