"""metrics.jsonl, events and progress on the terminal. Only process 0 writes and prints."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import rich.console
import rich.progress

from lm.core import files
from lm.core.plugins import UserError
from lm.training.events import Events

_INTERVAL = 10.0  # seconds between lines of progress, without a terminal


class RunLog:
    """Writes a run's metrics and shows its progress."""

    def __init__(
        self,
        workdir: Path,
        start: int,
        total: int,
        events: Callable[[], Sequence[Events]],
        quiet: bool = False,
        validates_again: bool = False,
    ):
        """Opens metrics.jsonl, and removes the lines after the step from which training continues.

        Args:
          workdir: directory of the run.
          start: step from which training continues; 0 for a new run.
          total: number of steps of the run.
          events: function that opens further writers of the metrics.
          quiet: whether to print nothing.
          validates_again: whether the validation at `start` will be written again.

        Raises:
          UserError: the file cannot be written.
        """
        self.active = jax.process_index() == 0
        self.quiet = quiet or not self.active
        self.total = total
        self.console = rich.console.Console(stderr=True)
        self.path = workdir / "metrics.jsonl"
        self.events: Sequence[Events] = ()
        self.printed_at = 0.0
        if self.active:
            try:
                self._rewind(start, validates_again)
                self.file = self.path.open("a", encoding="utf-8")
            except OSError as error:
                raise UserError(f"cannot write {self.path}: {error}") from error
            self.events = events()
        self.progress: rich.progress.Progress | None = None
        if not self.quiet and self.console.is_terminal:
            columns = (
                rich.progress.TextColumn("{task.description}"),
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn("{task.fields[status]}"),
                rich.progress.TimeRemainingColumn(),
            )
            self.progress = rich.progress.Progress(*columns, console=self.console)
            self.task = self.progress.add_task(
                "training", total=total, completed=start, status="compiling"
            )
            self.progress.start()

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Appends a line to metrics.jsonl, and writes events.

        Args:
          step: number of the step.
          split: "train" or "validation".
          values: metrics by name.

        Raises:
          UserError: the file cannot be written.
        """
        if not self.active:
            return
        # JSON has no NaN and no infinity.
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
        for writer in self.events:
            writer.write(step, numbers)

    def update(
        self, step: int, loss: float, speed: Mapping[str, float], seconds_left: float
    ) -> None:
        """Moves the progress bar; without a terminal, prints a line every ten seconds.

        Args:
          step: number of the step.
          loss: training loss.
          speed: result of `Speed.values`.
          seconds_left: expected seconds until the run ends; NaN if unknown.
        """
        mfu = f"  MFU {speed['mfu']:.1%}" if "mfu" in speed else ""
        status = (
            f"loss {loss:.4f}  {speed['tokens_per_second']:,.0f} tokens/s{mfu}"
            f"  input wait {speed['input_wait_share']:.1%}"
        )
        if self.progress:
            self.progress.update(self.task, completed=step, status=status)
        elif not self.quiet and (
            time.monotonic() - self.printed_at > _INTERVAL or step == self.total
        ):
            self.printed_at = time.monotonic()
            print(
                f"step {step}/{self.total}  {status}  {_clock(seconds_left)} left",
                file=sys.stderr,
                flush=True,
            )

    def print(self, text: str) -> None:
        """Prints above the progress bar."""
        if not self.quiet:
            self.console.print(text, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Ends the progress bar and closes files."""
        if self.progress:
            self.progress.stop()
        if self.active:
            with contextlib.suppress(OSError):  # a full disk: `write` has raised it already
                self.file.close()
            for writer in self.events:
                writer.close()

    def _rewind(self, start: int, validates_again: bool) -> None:
        """Drops lines that will be written again: after `start`, perhaps its validation."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
                if row["step"] < start or (
                    row["step"] == start and not (validates_again and row["split"] == "validation")
                ):
                    kept.append(line)
            except ValueError:
                continue  # the last line of a killed run may be cut
        with files.replacing(self.path) as file:
            file.write("".join(line + "\n" for line in kept))


def _clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss; "?" if unknown."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
