"""Computes what is missing of many jobs, together with whatever other processes and hosts work in the same directory."""

import concurrent.futures
import dataclasses
import os
import time
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lm.comparison.claims import Claims, me
from lm.comparison.progress import Progress
from lm.core.plain import read_json, write_json
from lm.core.plugins import UserError

Outcome = dict[str, Any]  # {"status": "done", "diverged" or "failed", "error": …}
_POLL = 1.0  # seconds


@dataclasses.dataclass(frozen=True)
class Job:
    """A piece of work that one process does, and that its files tell of when it is done.

    Attributes:
      name: of its claim, and in messages. directory: of its run. call: a function of a module, called in a worker process with
        `arguments()`, which is asked here when the job can start. ended: called anywhere; its outcome if its files are there.
      after: names of jobs that must have ended well before. trial: whether it is one, to be counted and shown.
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
    claims: Claims,
    slots: int,
    show: Progress,
    on_end: Callable[[str], None] = lambda name: None,
) -> dict[str, Outcome]:
    """Waits until all jobs have ended, here or elsewhere, computing whatever nobody else does.

    A job that failed before this process came is tried again, once; one that fails meanwhile, here or elsewhere, has ended. What comes
    after it fails, too.

    Args:
      slots: how many at once. on_end: is told the name of each job that ended; what it raises ends all.

    Returns:
      Each job's outcome.
    """
    before = {job.name: _failure(claims, job.name).get("id") for job in jobs}
    outcomes: dict[str, Outcome] = {}
    flying: dict[concurrent.futures.Future, Job] = {}

    def end(job: Job, outcome: Outcome) -> None:
        outcomes[job.name] = outcome
        if job.trial:
            show.ended(job.name, outcome)
        on_end(job.name)

    first = True
    while True:
        at_work = {job.name for job in flying.values()}
        waiting = [job for job in jobs if job.name not in outcomes and job.name not in at_work]
        for job in waiting:
            failure = _failure(claims, job.name)
            found = job.ended() or (
                failure if failure and failure.get("id") != before[job.name] else None
            )
            failed = [
                name for name in job.after if outcomes.get(name, {}).get("status") == "failed"
            ]
            if not found and failed:
                found = {
                    "status": "failed",
                    "error": f"not run, because {failed[0]} failed: {_last_line(outcomes[failed[0]])}",
                }
            if found:
                show.before += first and job.trial
                end(job, found)
        if first:
            show.say_before()
        first = False
        if not flying and len(outcomes) == len(jobs):
            return outcomes
        owners = {}
        for job in waiting:
            if job.name in outcomes or not all(name in outcomes for name in job.after):
                continue
            owner = claims.owner(job.name)
            if owner:
                owners[job.name] = owner
            elif len(flying) < slots:
                future = pool.submit(
                    perform,
                    claims.directory,
                    job.name,
                    job.directory,
                    job.ended,
                    job.call,
                    job.arguments(),
                )
                flying[future] = job
        show.update(owners)
        if not flying:
            time.sleep(_POLL)
        done = (
            concurrent.futures.wait(
                flying, timeout=_POLL, return_when=concurrent.futures.FIRST_COMPLETED
            )[0]
            if flying
            else ()
        )
        for future in done:
            job, outcome = flying.pop(future), future.result()
            if outcome["status"] != "taken":
                end(job, outcome)


def perform(
    claims: Path,
    name: str,
    directory: Path,
    ended: Callable[[], Outcome | None],
    call: Callable[..., None],
    arguments: tuple,
) -> Outcome:
    """Does a job, in a worker process, unless another process was quicker.

    Args:
      claims: the directory of claims. name: of the job. directory: of its run, for error.json. ended, call, arguments: see Job.

    Returns:
      The outcome; {"status": "taken"} if another process holds the claim.
    """
    from lm.training.loop import Diverged

    lease = Claims(claims).take(name)
    if lease is None:
        return {"status": "taken"}
    lease.lost = lambda: os._exit(
        1
    )  # whoever has it now must not be disturbed; the pool ends, and says so
    with lease:
        there = ended()
        if there:
            return there
        try:
            call(*arguments)
        except SystemExit as stop:  # SIGTERM came and the run is saved; the pool would swallow this, and wait for work from a dead parent
            os._exit(stop.code if isinstance(stop.code, int) else 1)
        except Diverged as error:
            (directory / "error.json").unlink(missing_ok=True)  # of an earlier try
            return {"status": "diverged", "error": str(error)}
        except (
            Exception
        ) as error:  # one trial's fault must not end the others: it is reported, and not counted
            text = str(error) if isinstance(error, UserError) else traceback.format_exc()
            outcome = {
                "status": "failed",
                "error": text,
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
            if (directory / "run.json").exists():
                write_json(directory / "error.json", outcome)
            write_json(_failure_path(claims, name), outcome | {"id": uuid.uuid4().hex, "by": me()})
            return outcome
        (directory / "error.json").unlink(missing_ok=True)  # of an earlier try
        _failure_path(claims, name).unlink(missing_ok=True)
        return {"status": "done"}


def complaints(outcomes: Mapping[str, Outcome]) -> list[str]:
    """A line for each job that did not end well."""
    return [
        f"{name} {of['status']}: {_last_line(of)}"
        for name, of in outcomes.items()
        if of["status"] != "done"
    ]


def _last_line(outcome: Outcome) -> str:
    lines = str(outcome.get("error") or "").strip().splitlines()
    return lines[-1] if lines else ""


def _failure_path(claims: Path, name: str) -> Path:
    return claims / f"{name}.failed"


def _failure(claims: Claims, name: str) -> Outcome:
    """How a job failed last; empty if it did not."""
    path = _failure_path(claims.directory, name)
    if not path.exists():
        return {}
    try:
        found = read_json(path, "how a trial failed")
    except UserError:  # it is being tried again just now
        return {}
    return found if isinstance(found, dict) else {}
