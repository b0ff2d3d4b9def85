"""Optuna as the sampler of a sweep (the extra `optuna`): it proposes combinations from those that ended, over the same ranges.

Its study lies in the workdir as a journal, so a sweep continues, and processes and hosts share it: each proposes from what all have tried.
"""

import concurrent.futures
import importlib.util
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import rich.console

from lm.comparison.claims import Claims
from lm.comparison.jobs import Job, Outcome, run_all
from lm.comparison.progress import Progress
from lm.comparison.ranges import Range
from lm.core.plugins import UserError


def check_installed() -> None:
    """Raises UserError where Optuna is missing."""
    if importlib.util.find_spec("optuna") is None:
        raise UserError("--sampler=optuna needs Optuna: pip install 'lm[optuna]'")


class Study:
    """An Optuna study over ranges.

    Args:
      workdir: of the sweep. ranges: by field. seed: of what it draws. Less is better: which direction a metric has is
        known only when a run is measured.
    """

    def __init__(self, workdir: Path, ranges: Mapping[str, Range], seed: int):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.ranges, self.seed, self.states = ranges, seed, optuna.trial.TrialState
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the journal is marked as new, and so may change
            storage = optuna.storages.JournalStorage(
                optuna.storages.journal.JournalFileBackend(str(workdir / "optuna.log"))
            )
            self.study = optuna.create_study(
                storage=storage, study_name="costs", direction="minimize", load_if_exists=True
            )

    def run(
        self,
        pool: concurrent.futures.Executor,
        claims: Claims,
        jobs: Callable[[int, Mapping[str, Any]], list[Job]],
        trials: int,
        slots: int,
        console: rich.console.Console,
        cost: Callable[[int], float | None],
    ) -> dict[str, Outcome]:
        """Runs trials until there are as many as wanted, `slots` combinations at a time.

        Args:
          jobs: makes the runs of a combination. cost: what it reached, the less the better; None where it diverged or
            failed.
        """
        outcomes: dict[str, Outcome] = {}
        while True:
            # One process at a time looks what is missing and proposes it, so that no more than `trials` are made.
            with claims.holding("study"):
                for number, values, running in self._trials():
                    if running and len(values) < len(
                        self.ranges
                    ):  # its process was killed while it proposed
                        self.study.tell(number, state=self.states.FAIL)
                whole = self._whole()
                at_work = sum(running for _, _, running in whole)
                for _ in range(max(0, min(trials - len(whole), slots - at_work))):
                    self._propose()
                waiting = [(number, values) for number, values, running in self._whole() if running]
            if not waiting:
                return outcomes
            made = [job for number, values in waiting for job in jobs(number, values)]
            with Progress({job.name: job.directory for job in made}, console) as show:
                outcomes |= run_all(pool, made, claims, slots, show)
            with claims.holding("study"):
                running_now = {number for number, _, running in self._trials() if running}
                for number in running_now & {
                    number for number, _ in waiting
                }:  # the others another process has told
                    reached = cost(number)
                    self.study.tell(
                        number, reached, state=self.states.FAIL if reached is None else None
                    )

    def combinations(self) -> dict[int, dict[str, Any]]:
        """Of all trials, by their numbers."""
        return {number: values for number, values, _ in self._whole()}

    def _trials(self) -> list[tuple[int, dict[str, Any], bool]]:
        """(number, values, whether it runs) of all trials."""
        found = self.study.get_trials(deepcopy=False)
        return [
            (each.number, dict(each.params), each.state == self.states.RUNNING) for each in found
        ]

    def _whole(self) -> list[tuple[int, dict[str, Any], bool]]:
        """Those that have a value for each field."""
        return [each for each in self._trials() if len(each[1]) == len(self.ranges)]

    def _propose(self) -> None:
        """Opens a trial with a value for each field; it counts as running until it is told."""
        import optuna

        # Seeded by the trial, not by the process: else each process would begin with the same draws. Several propose at once: a run that
        # is still on its way counts as a bad one, so that they do not all try the same.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.study.sampler = optuna.samplers.TPESampler(
                seed=100_003 * self.seed + len(self._trials()), constant_liar=True
            )
        trial = self.study.ask()
        for field, each in self.ranges.items():
            if each.kind in ("log", "lin"):
                trial.suggest_float(field, each.low, each.high, log=each.kind == "log")
            elif each.kind == "int":
                step = each.values[1] - each.values[0] if len(each.values) > 1 else 1
                trial.suggest_int(field, each.values[0], each.values[-1], step=step)
            else:
                trial.suggest_categorical(field, list(each.values))
