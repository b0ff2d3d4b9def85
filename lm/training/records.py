"""What a run leaves behind and shows: run.json, metrics.jsonl, and progress on the terminal."""

import contextlib
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import rich.console
import rich.progress

from lm.core.plain import flat, read_json, write_json
from lm.core.plugins import UserError
from lm.training import energy
from lm.training.defaults import defaults
from lm.training.events import Events

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "sentencepiece")
# May differ between a run and its continuation: where and how it runs, not what is computed.
_FREE = (
    "mesh.", "model.attention", "model.head_chunks", "model.remat", "model.scan", "training.microbatches", "data.cache", "data.workers",
    "training.log_every", "training.keep", "training.tensorboard", "training.wandb",
)  # fmt: skip


def free(field: str) -> bool:
    """Whether a field of a run's config, as "mesh.data", may differ between a run and its continuation."""
    return f"{field}.".startswith(_FREE)


def check_same_run(workdir: Path, config: Mapping) -> dict | None:
    """The run.json of the run that this workdir holds, or None for a new workdir.

    Raises:
      UserError: it holds another config, or something that is no run at all.
    """
    path = workdir / "run.json"
    if not path.exists():
        if workdir.exists() and not workdir.is_dir():
            raise UserError(f"--workdir={workdir} is a file; give a directory")
        if workdir.is_dir() and any(
            # The second: a start that was killed before run.json was in place.
            entry.name != "log" and not entry.name.startswith(".run.json.")
            for entry in workdir.iterdir()
        ):
            raise UserError(
                f"--workdir={workdir} holds something that is no run of lm.train; give an empty or new directory"
            )
        return None
    old = read_run(workdir)
    before, now = flat(old["config"]), flat(config)
    younger = defaults(config)

    def same(key: str) -> bool:
        then, today = (
            fields[key] if fields.get(key) not in (None, "") else younger.get(key)
            for fields in (before, now)
        )
        return then == today

    differing = [
        key for key in sorted(before.keys() | now.keys()) if not same(key) and not free(key)
    ]
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
    workdir: Path, record: Mapping | None, fingerprint: str, tokenizer: str
) -> None:
    """Refuses to continue a run on other data.

    Args:
      workdir: of the run. record: its run.json, None for a new run. fingerprint: of text and tokenizer now. tokenizer: its own.
    """
    if record and record["data"]["fingerprint"] != fingerprint:
        before = record["data"].get("tokenizer")
        what = (
            "the tokenizer is the same, the text changed"
            if before == tokenizer
            else f"tokenizer {before} there, {tokenizer} now"
        )
        raise UserError(
            f"--workdir={workdir} was trained on other data: fingerprint {record['data']['fingerprint']} there, {fingerprint} now"
            f" ({what}); give another workdir, or the same data to continue"
        )


def read_run(workdir: Path) -> dict[str, Any]:
    """The record of a run.

    Raises:
      UserError: run.json is missing, damaged or none of lm.train's.
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
    """Makes a run's directory."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--workdir={workdir} cannot be made: {error}; give another directory"
        ) from error


def write_run(workdir: Path, record: Mapping[str, Any]) -> None:
    """Writes workdir/run.json, from process 0 alone."""
    if jax.process_index() == 0:
        write_json(workdir / "run.json", record)


def machine() -> dict[str, Any]:
    """Where this runs."""
    devices = jax.devices()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores: float = len(os.sched_getaffinity(0))
    threads, beside = (os.environ.get(name, "") for name in ("NPROC", energy.SIDE_BY_SIDE))
    if threads.isdigit() and int(threads):
        cores = min(cores, int(threads))  # XLA starts so many threads, where that is said
    elif beside.isdigit() and int(beside) > cores:
        cores = cores / int(beside)  # more workers than cores share them
    return {
        "device": devices[0].device_kind, "platform": devices[0].platform, "devices": len(devices), "processes": jax.process_count(),
        "cores": cores, "memory_gib": round(memory, 1), "python": platform.python_version(),
        "system": platform.platform(),
    }  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of the packages that numbers depend on."""
    from lm.core.version import __version__

    found = {"lm": __version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_revision() -> str:
    """The commit of this code, with "+" if the work tree differs; "unknown" outside a checkout."""
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


class Records:
    """Writes a run's metrics and shows its progress; only process 0 does either.

    Args:
      workdir: where files go. start, total: first step and number of steps. events: what else takes the
      numbers. quiet: show nothing. validates_again: the validation of `start` will be written again.
    """

    def __init__(
        self,
        workdir: Path,
        start: int,
        total: int,
        events: Callable[[], Sequence[Events]],
        quiet: bool = False,
        validates_again: bool = False,
    ):
        self.active = jax.process_index() == 0
        self.quiet = quiet or not self.active
        self.total = total
        self.console = rich.console.Console(stderr=True)
        self.path = workdir / "metrics.jsonl"
        self.events: Sequence[Events] = ()
        self.last_line = 0.0
        if self.active:
            try:
                self._rewind(start, validates_again)
                self.file = self.path.open("a", encoding="utf-8")
            except OSError as error:
                raise UserError(f"cannot write {self.path}: {error}") from error
            self.events = events()
        self.progress = None
        if not self.quiet and self.console.is_terminal:
            columns = [
                rich.progress.TextColumn("{task.description}"), rich.progress.BarColumn(), rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn("{task.fields[status]}"), rich.progress.TimeRemainingColumn(),
            ]  # fmt: skip
            self.progress = rich.progress.Progress(*columns, console=self.console)
            self.task = self.progress.add_task(
                "training", total=total, completed=start, status="compiling"
            )
            self.progress.start()

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Appends a line to metrics.jsonl, and events."""
        if not self.active:
            return
        # NaN and infinity are no JSON.
        clean = {
            name: value if not isinstance(value, float) or math.isfinite(value) else str(value)
            for name, value in values.items()
        }
        try:
            self.file.write(json.dumps({"step": step, "split": split, **clean}) + "\n")
            self.file.flush()
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error}") from error
        numbers = {
            f"{split}/{name}": value
            for name, value in values.items()
            if isinstance(value, float | int)
        }
        for each in self.events:
            each.write(step, numbers)

    def show(self, step: int, loss: float, speed: Mapping[str, float], seconds_left: float) -> None:
        """Moves the bar; without a terminal, prints a line every ten seconds."""
        mfu = f"  MFU {speed['mfu']:.1%}" if "mfu" in speed else ""
        status = f"loss {loss:.4f}  {speed['tokens_per_second']:,.0f} tokens/s{mfu}  input wait {speed['input_wait_share']:.1%}"
        if self.progress:
            self.progress.update(self.task, completed=step, status=status)
        elif not self.quiet and (time.monotonic() - self.last_line > 10 or step == self.total):
            self.last_line = time.monotonic()
            print(
                f"step {step}/{self.total}  {status}  {_duration(seconds_left)} left",
                file=sys.stderr,
                flush=True,
            )

    def say(self, text: str) -> None:
        """Prints above the bar."""
        if not self.quiet:
            self.console.print(text, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Ends the bar and closes files."""
        if self.progress:
            self.progress.stop()
        if self.active:
            with contextlib.suppress(
                OSError
            ):  # a line that a full disk refused: `write` told of it
                self.file.close()
            for each in self.events:
                each.close()

    def _rewind(self, start: int, validates_again: bool) -> None:
        """Drops lines after the step that training continues from, perhaps its validation too: they will be written again."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                told = json.loads(line)
                if (
                    told["step"] < start
                    or told["step"] == start
                    and not (validates_again and told["split"] == "validation")
                ):
                    kept.append(line)
            except ValueError:
                continue  # the last line of a killed run may be cut
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        os.replace(temporary, self.path)


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
