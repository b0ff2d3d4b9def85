"""Writes and reads the record of a run, run.json; compares it with a config that continues it."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from lm.core.plain import flat, read_json, write_json
from lm.core.plugins import UserError
from lm.core.version import __version__
from lm.training import energy
from lm.training.defaults import defaults, differences

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "sentencepiece")
# Fields that may change when a run continues: where and how it runs, not what it computes.
_MAY_CHANGE = (
    "mesh.",
    "model.attention",
    "model.head_chunks",
    "model.remat",
    "model.scan",
    "training.microbatches",
    "data.cache",
    "data.workers",
    "training.log_every",
    "training.keep",
    "training.tensorboard",
    "training.wandb",
)


def may_change(field: str) -> bool:
    """Whether a field of the config, such as "mesh.data", may change when a run continues."""
    return f"{field}.".startswith(_MAY_CHANGE)


def check_same_run(workdir: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Checks that a workdir is new, or holds a run of the same config.

    An option that was added after the record was written takes its default.

    Args:
      workdir: directory of the run.
      config: config of the run that starts or continues.

    Returns:
      The run's record; None for a new workdir.

    Raises:
      UserError: the workdir holds a run of another config, or something that is not a run.
    """
    path = workdir / "run.json"
    if not path.exists():
        if workdir.exists() and not workdir.is_dir():
            raise UserError(f"--workdir={workdir} is a file; give a directory")
        if workdir.is_dir() and any(
            # ".run.json.…": a start that was killed before run.json was in place.
            entry.name != "log" and not entry.name.startswith(".run.json.")
            for entry in workdir.iterdir()
        ):
            raise UserError(
                f"--workdir={workdir} holds something that is no run of lm.train; give an empty or"
                " new directory"
            )
        return None
    old = read_run(workdir)
    before, now = flat(old["config"]), flat(config)
    differing = [key for key in differences(before, now, defaults(config)) if not may_change(key)]
    if differing:
        lines = [
            f"  config.{key}: {before.get(key)!r} there, {now.get(key)!r} now"
            for key in differing[:12]
        ]
        raise UserError(
            f"--workdir={workdir} holds a run of another config:\n"
            + "\n".join(lines)
            + "\ngive another workdir, or the same config to continue"
        )
    return old


def check_same_data(
    workdir: Path, record: Mapping[str, Any] | None, fingerprint: str, tokenizer: str
) -> None:
    """Checks that a run continues on the data that it began with.

    Args:
      workdir: directory of the run.
      record: content of its run.json; None for a new run.
      fingerprint: current fingerprint of the text and the tokenizer.
      tokenizer: current fingerprint of the tokenizer.

    Raises:
      UserError: the data has changed.
    """
    if record and record["data"]["fingerprint"] != fingerprint:
        before = record["data"].get("tokenizer")
        what = (
            "the tokenizer is the same, the text changed"
            if before == tokenizer
            else f"tokenizer {before} there, {tokenizer} now"
        )
        raise UserError(
            f"--workdir={workdir} was trained on other data: fingerprint"
            f" {record['data']['fingerprint']} there, {fingerprint} now ({what}); give another"
            " workdir, or the same data to continue"
        )


def read_run(workdir: Path) -> dict[str, Any]:
    """Reads the record of a run.

    Raises:
      UserError: run.json is missing, damaged, or was not written by lm.train.
    """
    record = read_json(workdir / "run.json", "the record of a run of lm.train")
    try:
        complete = isinstance(record["config"], dict) and {
            record["status"],
            record["data"]["fingerprint"],
        }
    except (KeyError, TypeError):
        complete = False
    if not complete:
        raise UserError(
            f"{workdir / 'run.json'} is no record of a run of lm.train; give another workdir"
        )
    return record


def make_directory(workdir: Path) -> None:
    """Creates the directory of a run.

    Raises:
      UserError: the directory cannot be created.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--workdir={workdir} cannot be made: {error}; give another directory"
        ) from error


def write_run(workdir: Path, record: Mapping[str, Any]) -> None:
    """Writes workdir/run.json, on process 0 only.

    Args:
      workdir: directory of the run.
      record: content of the file.
    """
    if jax.process_index() == 0:
        write_json(workdir / "run.json", record)


def machine() -> dict[str, Any]:
    """Describes the machine that this process runs on."""
    devices = jax.devices()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores: float = len(os.sched_getaffinity(0))
    threads, workers = (os.environ.get(name, "") for name in ("NPROC", energy.SIDE_BY_SIDE))
    if threads.isdigit() and int(threads):
        cores = min(cores, int(threads))  # XLA starts this many threads
    elif workers.isdigit() and int(workers) > cores:
        cores = cores / int(workers)  # more workers than cores share them
    return {
        "device": devices[0].device_kind,
        "platform": devices[0].platform,
        "devices": len(devices),
        "processes": jax.process_count(),
        "cores": cores,
        "memory_gib": round(memory, 1),
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Versions of the packages that numbers depend on."""
    installed = {"lm": __version__}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            installed[package] = "not installed"
    return installed


def git_revision() -> str:
    """The commit of this code, followed by "+" if the work tree differs; "unknown" without git."""
    try:
        where = Path(__file__).parent
        revision = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=where, capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain"], cwd=where, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return revision + ("+" if dirty else "")
