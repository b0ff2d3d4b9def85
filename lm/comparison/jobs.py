"""Runs jobs in worker processes, shared with other processes and hosts in the same workdir."""

import concurrent.futures
import dataclasses
import json
import os
import time
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lm.comparison.progress import Progress
from lm.comparison.trial_locks import TrialLocks, this_process
from lm.core.plain import write_json
from lm.core.plugins import UserError
from lm.training.meter import Diverged

Outcome = dict[str, Any]  # {"status": "done", "diverged" or "failed", "error": …}
_POLL = 1.0  # seconds


@dataclasses.dataclass(frozen=True)
class Job:
    """A piece of work for one process. Its files record that it has ended.

    Attributes:
      name: name of the job's lock, also used in messages.
      directory: directory of the job's run.
      call: a module-level function, called as `call(*arguments())` in a worker process.
      arguments: function that returns the arguments of `call`; called in the main process when
        the job can start.
      ended: function that returns the outcome recorded in the job's files, or None; called in any
        process.
      after: names of jobs that must end without failing before this one starts.
      trial: whether the job is a training run, which is counted and shown in the progress.
    """

    name: str
    directory: Path
    call: Callable[..., None]
    arguments: Callable[[], tuple]
    ended: Callable[[], Outcome | None]
    after: tuple[str, ...] = ()
    trial: bool = True


def run_all(
    pool: concurrent.futures.Executor,
    jobs: Sequence[Job],
    locks: TrialLocks,
    slots: int,
    progress: Progress,
    on_end: Callable[[str], None] = lambda name: None,
) -> dict[str, Outcome]:
    """Runs all jobs that no other process runs, and waits until all have ended.

    A job that failed before this call is tried once more. A job that fails during this call,
    in any process, is not tried again. The jobs that depend on it count as failed and are not run.

    Args:
      pool: worker processes.
      jobs: jobs in order of priority.
      locks: locks of the workdir.
      slots: number of jobs to run at a time.
      progress: progress display, which receives the outcomes of trials.
      on_end: function to call with the name of each job that ends; an exception from it ends
        `run_all`.

    Returns:
      The outcome of each job, by name.
    """
    failed_before = {job.name: _failure(locks, job.name).get("id") for job in jobs}
    outcomes: dict[str, Outcome] = {}
    running: dict[concurrent.futures.Future[Outcome], Job] = {}

    def end(job: Job, outcome: Outcome) -> None:
        outcomes[job.name] = outcome
        if job.trial:
            progress.ended(job.name, outcome)
        on_end(job.name)

    first = True
    while True:
        running_names = {job.name for job in running.values()}
        waiting = [
            job for job in jobs if job.name not in outcomes and job.name not in running_names
        ]
        for job in waiting:
            failure = _failure(locks, job.name)
            is_new = failure.get("id") != failed_before[job.name]
            outcome = job.ended() or (failure if failure and is_new else None)
            failed = [
                name for name in job.after if outcomes.get(name, {}).get("status") == "failed"
            ]
            if not outcome and failed:
                reason = _last_line(outcomes[failed[0]])
                outcome = {
                    "status": "failed",
                    "error": f"not run, because {failed[0]} failed: {reason}",
                }
            if outcome:
                progress.finished_before += first and job.trial
                end(job, outcome)
        if first:
            progress.print_finished_before()
        first = False
        if not running and len(outcomes) == len(jobs):
            return outcomes
        owners = {}
        for job in waiting:
            if job.name in outcomes or not all(name in outcomes for name in job.after):
                continue
            owner = locks.owner(job.name)
            if owner:
                owners[job.name] = owner
            elif len(running) < slots:
                future = pool.submit(
                    perform,
                    locks.directory,
                    job.name,
                    job.directory,
                    job.ended,
                    job.call,
                    job.arguments(),
                )
                running[future] = job
        progress.update(owners)
        if not running:
            time.sleep(_POLL)
            continue
        done, _ = concurrent.futures.wait(
            running, timeout=_POLL, return_when=concurrent.futures.FIRST_COMPLETED
        )
        for future in done:
            job, outcome = running.pop(future), future.result()
            if outcome["status"] != "taken":
                end(job, outcome)


def perform(
    locks: Path,
    name: str,
    directory: Path,
    ended: Callable[[], Outcome | None],
    call: Callable[..., None],
    arguments: tuple,
) -> Outcome:
    """Runs a job in a worker process, unless another process holds its lock.

    Args:
      locks: directory of the locks.
      name: name of the job.
      directory: directory of the job's run, for error.json.
      ended: function that returns the recorded outcome, as in `Job`.
      call: the function that does the work, as in `Job`.
      arguments: arguments of `call`.

    Returns:
      The outcome; {"status": "taken"} if another process holds the lock.
    """
    lease = TrialLocks(locks).take(name)
    if lease is None:
        return {"status": "taken"}
    # Another process has the job now. Ending this one breaks the pool, which is reported.
    lease.lost = lambda: os._exit(1)
    with lease:
        outcome = ended()
        if outcome:
            return outcome
        try:
            call(*arguments)
        except SystemExit as stop:
            # After SIGTERM the run has been saved. The pool would swallow this exception, and the
            # worker would wait for work from a dead parent.
            os._exit(stop.code if isinstance(stop.code, int) else 1)
        except Diverged as error:
            (directory / "error.json").unlink(missing_ok=True)  # of an earlier attempt
            return {"status": "diverged", "error": str(error)}
        except Exception as error:
            # Whatever fails in one trial is recorded, and the others go on.
            text = str(error) if isinstance(error, UserError) else traceback.format_exc()
            outcome = {
                "status": "failed",
                "error": text,
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
            if (directory / "run.json").exists():
                write_json(directory / "error.json", outcome)
            record = outcome | {"id": uuid.uuid4().hex, "by": this_process()}
            write_json(_failure_path(locks, name), record)
            return outcome
        (directory / "error.json").unlink(missing_ok=True)  # of an earlier attempt
        _failure_path(locks, name).unlink(missing_ok=True)
        return {"status": "done"}


def failure_messages(outcomes: Mapping[str, Outcome]) -> list[str]:
    """A line for each job that failed or diverged."""
    return [
        f"{name} {outcome['status']}: {_last_line(outcome)}"
        for name, outcome in outcomes.items()
        if outcome["status"] != "done"
    ]


def _last_line(outcome: Outcome) -> str:
    lines = str(outcome.get("error") or "").strip().splitlines()
    return lines[-1] if lines else ""


def _failure_path(locks: Path, name: str) -> Path:
    return locks / f"{name}.failed"


def _failure(locks: TrialLocks, name: str) -> Outcome:
    """The last failure of a job; empty if it has not failed."""
    try:
        failure = json.loads(_failure_path(locks.directory, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return failure if isinstance(failure, dict) else {}
