"""Progress of all trials of a workdir, whichever process runs them."""

import contextlib
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rich.console
import rich.live
import rich.table

from lm.comparison.trial_locks import owner_name
from lm.report.number_format import duration


class Progress:
    """A live table of all trials; without a terminal, a line for each trial that ends.

    Args:
      trials: directory of each trial's run, by name of the trial.
      console: console to print to.

    Attributes:
      outcomes: outcome of each trial that ended, by name.
      finished_before: number of trials that had ended when this process started.
    """

    def __init__(self, trials: Mapping[str, Path], console: rich.console.Console) -> None:
        self.trials, self.console = trials, console
        self.outcomes: dict[str, Mapping[str, Any]] = {}
        self.finished_before = 0
        self._live = (
            rich.live.Live(console=console, refresh_per_second=2) if console.is_terminal else None
        )
        self._started = self._last_print = time.time()
        self._earlier_printed = False  # whether print_finished_before was called

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.stop()

    def print_finished_before(self) -> None:
        """Prints how many trials need not run again."""
        self._earlier_printed = True
        if self.finished_before:
            self.console.print(
                f"{self.finished_before} of {len(self.trials)} runs were finished before",
                highlight=False,
            )

    def ended(self, name: str, outcome: Mapping[str, Any]) -> None:
        """Records the outcome of a trial, and prints it unless it had ended before.

        Args:
          name: name of the trial.
          outcome: outcome of the trial, a `lm.comparison.jobs.Outcome`.
        """
        self.outcomes[name] = outcome
        if self._earlier_printed and not self._live:
            last = self._last_metrics(name)
            loss = f"loss {last['loss']:.4f}" if "loss" in last else ""
            self._print(f"{name} {outcome['status']} {loss}")

    def update(self, owners: Mapping[str, Mapping[str, Any]]) -> None:
        """Redraws the table; without a terminal, prints the running trials every 30 seconds.

        Args:
          owners: owner of each trial that another process runs, by name of the trial.
        """
        if self._live:
            self._live.update(self._table(owners))
        elif time.time() - self._last_print > 30:
            self._last_print = time.time()
            unfinished = {
                name: self._last_metrics(name) for name in self.trials if name not in self.outcomes
            }
            active = [
                f"{name} {last['tokens']:,} tokens, loss {last['loss']:.3f}"
                + (f" ({owner_name(dict(owners[name]))})" if name in owners else "")
                for name, last in unfinished.items()
                if last
            ]
            self._print("; ".join(active))

    def _print(self, text: str) -> None:
        seconds = time.time() - self._started
        print(
            f"[{len(self.outcomes)}/{len(self.trials)}, {seconds:.0f} s] {text}",
            file=sys.stderr,
            flush=True,
        )

    def _table(self, owners: Mapping[str, Mapping[str, Any]]) -> rich.table.Table:
        table = rich.table.Table(box=None, pad_edge=False)
        for column in ("run", "state", "tokens", "loss", "tokens/s"):
            table.add_column(column, justify="left" if column in ("run", "state") else "right")
        for name in self.trials:
            last = self._last_metrics(name)
            if name in self.outcomes:
                state = str(self.outcomes[name]["status"])
            elif name in owners:
                state = f"running on {owner_name(dict(owners[name]))}"
            else:
                state = "running" if last else "waiting"
            loss = f"{last['loss']:.4f}" if "loss" in last else ""
            table.add_row(
                name,
                state,
                f"{last.get('tokens', 0):,}",
                loss,
                f"{last.get('tokens_per_second', 0):,.0f}",
            )
        seconds, ended = time.time() - self._started, len(self.outcomes)
        done, rest = ended - self.finished_before, len(self.trials) - ended
        left = f", about {duration(seconds / done * rest)} left" if done > 0 else ""
        table.caption = f"{ended} of {len(self.trials)} done in {seconds:.0f} s{left}"
        return table

    def _last_metrics(self, name: str) -> dict[str, Any]:
        """The last training line of a run's metrics.jsonl; empty if there is none."""
        with contextlib.suppress(OSError, ValueError):
            lines = (self.trials[name] / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            for line in reversed(lines[-20:]):
                if (metrics := json.loads(line)).get("split") == "train":
                    return metrics
        return {}
