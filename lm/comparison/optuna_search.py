"""Optuna as the sampler of a sweep (the extra `optuna`): proposes values from earlier results.

The study is a journal in the workdir, so a sweep can be resumed and be shared between processes and
hosts: each process proposes values from the results of all processes.
"""

import concurrent.futures
import importlib.util
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import rich.console

from lm.comparison.jobs import Job, Outcome, run_all
from lm.comparison.progress import Progress
from lm.comparison.ranges import Range
from lm.comparison.trial_locks import TrialLocks
from lm.core.plugins import UserError


def check_installed() -> None:
    """Checks that Optuna is installed.

    Raises:
      UserError: Optuna is not installed.
    """
    if importlib.util.find_spec("optuna") is None:
        raise UserError("--sampler=optuna needs Optuna: pip install -e '.[optuna]'")


class Study:
    """An Optuna study over ranges of fields.

    It minimizes a cost. Whether higher or lower values of a metric are better is known only after a
    run has been evaluated, so the caller converts the metric to a cost.

    Args:
      workdir: workdir of the sweep.
      ranges: range of values by field.
      seed: seed of the sampler.
    """

    def __init__(self, workdir: Path, ranges: Mapping[str, Range], seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._ranges, self._seed, self._states = ranges, seed, optuna.trial.TrialState
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # journal storage is marked as experimental
            storage = optuna.storages.JournalStorage(
                optuna.storages.journal.JournalFileBackend(str(workdir / "optuna.log"))
            )
            self._study = optuna.create_study(
                storage=storage, study_name="costs", direction="minimize", load_if_exists=True
            )

    def run(
        self,
        pool: concurrent.futures.Executor,
        locks: TrialLocks,
        jobs: Callable[[int, Mapping[str, Any]], list[Job]],
        trials: int,
        slots: int,
        console: rich.console.Console,
        cost: Callable[[int], float | None],
    ) -> dict[str, Outcome]:
        """Runs combinations, `slots` at a time, until the study has `trials` of them.

        Args:
          pool: worker processes.
          locks: locks of the workdir.
          jobs: function that makes a combination's jobs from its number and its values by field.
          trials: number of combinations.
          slots: number of jobs to run at a time.
          console: console for the progress.
          cost: function that returns the cost of a combination from its number; None if one of its
            runs diverged or failed.

        Returns:
          The outcome of each job, by name.
        """
        outcomes: dict[str, Outcome] = {}
        while True:
            # One process at a time proposes the missing combinations, so that there are at most
            # `trials`.
            with locks.holding("study"):
                for number, values, running in self._trials():
                    # The trial's process was killed while it proposed values.
                    if running and len(values) < len(self._ranges):
                        self._study.tell(number, state=self._states.FAIL)
                complete = self._complete()
                running_count = sum(running for _, _, running in complete)
                for _ in range(max(0, min(trials - len(complete), slots - running_count))):
                    self._propose()
                waiting = [
                    (number, values) for number, values, running in self._complete() if running
                ]
            if not waiting:
                return outcomes
            batch = [job for number, values in waiting for job in jobs(number, values)]
            with Progress({job.name: job.directory for job in batch}, console) as progress:
                outcomes |= run_all(pool, batch, locks, slots, progress)
            with locks.holding("study"):
                still_open = {number for number, _, running in self._trials() if running}
                # Other processes have reported the rest.
                for number in still_open & {number for number, _ in waiting}:
                    value = cost(number)
                    state = self._states.FAIL if value is None else None
                    self._study.tell(number, value, state=state)

    def combinations(self) -> dict[int, dict[str, Any]]:
        """Values by field of all combinations, by number."""
        return {number: values for number, values, _ in self._complete()}

    def _trials(self) -> list[tuple[int, dict[str, Any], bool]]:
        """(number, values by field, whether it is running) of all trials of the study."""
        return [
            (trial.number, dict(trial.params), trial.state == self._states.RUNNING)
            for trial in self._study.get_trials(deepcopy=False)
        ]

    def _complete(self) -> list[tuple[int, dict[str, Any], bool]]:
        """`_trials` that have a value for each field."""
        return [trial for trial in self._trials() if len(trial[1]) == len(self._ranges)]

    def _propose(self) -> None:
        """Adds a trial with a value for each field; it is running until its cost is reported."""
        import optuna

        # The seed depends on the trial: otherwise each process would begin with the same draws.
        # constant_liar counts running trials as bad, so that parallel proposals differ.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._study.sampler = optuna.samplers.TPESampler(
                seed=100_003 * self._seed + len(self._trials()), constant_liar=True
            )
        trial = self._study.ask()
        for field, values in self._ranges.items():
            if values.kind in ("log", "lin"):
                is_log = values.kind == "log"
                trial.suggest_float(field, values.low, values.high, log=is_log)
            elif values.kind == "int":
                step = values.values[1] - values.values[0] if len(values.values) > 1 else 1
                trial.suggest_int(field, values.values[0], values.values[-1], step=step)
            else:
                trial.suggest_categorical(field, list(values.values))
