"""Progress over all trials of a directory, whoever computes them."""

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

from lm.comparison.claims import shown


class Progress:
    """A live table of all trials, or a line as each ends where there is no terminal.

    Args:
      trials: name → directory of the run. console: to print on.

    Attributes:
      before: how many had ended when this process came.
    """

    def __init__(self, trials: Mapping[str, Path], console: rich.console.Console):
        self.trials, self.console = trials, console
        self.outcomes: dict[str, Mapping[str, Any]] = {}
        self.live = (
            rich.live.Live(console=console, refresh_per_second=2) if console.is_terminal else None
        )
        self.began = self.last = time.time()
        self.before = 0
        self.told = False  # of those before

    def __enter__(self) -> "Progress":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.stop()

    def say_before(self) -> None:
        """Says how many trials need not be computed."""
        self.told = True
        if self.before:
            self.console.print(
                f"{self.before} of {len(self.trials)} runs were finished before", highlight=False
            )

    def ended(self, name: str, outcome: Mapping[str, Any]) -> None:
        """Tells of a trial that ended."""
        self.outcomes[name] = outcome
        if self.told and not self.live:
            last = self._last(name)
            loss = f"loss {last['loss']:.4f}" if "loss" in last else ""
            self._line(f"{name} {outcome['status']} {loss}")

    def update(self, owners: Mapping[str, Mapping[str, Any]]) -> None:
        """Draws the state of every trial; `owners`: other processes, by the trials that they compute."""
        if self.live:
            self.live.update(self._table(owners))
        elif time.time() - self.last > 30:
            self.last = time.time()
            running = {name: self._last(name) for name in self.trials if name not in self.outcomes}
            active = [
                f"{name} {last['tokens']:,} tokens, loss {last['loss']:.3f}"
                + (f" ({shown(dict(owners[name]))})" if name in owners else "")
                for name, last in running.items()
                if last
            ]
            self._line("; ".join(active))

    def _line(self, text: str) -> None:
        print(
            f"[{len(self.outcomes)}/{len(self.trials)}, {time.time() - self.began:.0f} s] {text}",
            file=sys.stderr,
            flush=True,
        )

    def _table(self, owners: Mapping[str, Mapping[str, Any]]) -> rich.table.Table:
        table = rich.table.Table(box=None, pad_edge=False)
        for column in ("run", "state", "tokens", "loss", "tokens/s"):
            table.add_column(column, justify="left" if column in ("run", "state") else "right")
        for name in self.trials:
            last = self._last(name)
            if name in self.outcomes:
                state = str(self.outcomes[name]["status"])
            elif name in owners:
                state = f"running on {shown(dict(owners[name]))}"
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
        seconds, done = time.time() - self.began, len(self.outcomes) - self.before
        left = (
            f", about {seconds / done * (len(self.trials) - len(self.outcomes)) / 60:.0f} minutes left"
            if done > 0
            else ""
        )
        table.caption = f"{len(self.outcomes)} of {len(self.trials)} done in {seconds:.0f} s{left}"
        return table

    def _last(self, name: str) -> dict[str, Any]:
        """The newest training line of a run's metrics."""
        with contextlib.suppress(OSError, ValueError):
            for line in reversed(
                (self.trials[name] / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-20:]
            ):
                if (found := json.loads(line)).get("split") == "train":
                    return found
        return {}
