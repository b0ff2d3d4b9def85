"""Checks of all arms of an experiment, before anything is trained.

An arm is one configuration of a comparison, trained with every seed.
"""

import concurrent.futures
import math
import os
from collections.abc import Mapping
from typing import Any

from lm.comparison import record, trial
from lm.comparison.budgets import Accounting
from lm.comparison.experiment import Experiment
from lm.core.plugins import UserError
from lm.data import corpus as corpora


def prepare_corpora(runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Trains tokenizers and encodes text once, with progress bars, before the workers need them.

    Args:
      runs: run config of each arm, by name.
    """
    for config in runs.values():
        corpora.prepare(config["data"], config["tokenizer"])


def check(
    pool: concurrent.futures.Executor,
    experiment: Experiment,
    old: Mapping[str, Any],
    any_devices: bool = False,
) -> tuple[dict[str, Accounting], dict[str, Any]]:
    """Builds each arm in a worker process, without training, and constructs the tasks.

    Args:
      pool: worker processes.
      experiment: the experiment.
      old: record of earlier sessions; its counts are reused. It may be empty.
      any_devices: whether to accept meshes that do not match the devices of this host.

    Returns:
      The amounts that a step of each arm processes, by arm; and a dict with "data", "machine",
      "versions" and "git".

    Raises:
      UserError: an arm or task is invalid, the arms have different corpora, or a hypothesis cannot
        be tested.
    """
    budget, options = experiment.budget, list(experiment.tasks.values())
    precision = (
        budget.tolerance / 4 if budget.matched == "loss_tokens" and budget.tolerance else math.inf
    )
    futures: dict[str, concurrent.futures.Future] = {}
    for arm, run in experiment.runs.items():
        counted = old.get("arms", {}).get(arm, {}).get("loss_tokens_per_row")
        tasks = experiment.tasks if not futures else {}
        futures[arm] = pool.submit(
            trial.check,
            arm,
            run,
            tasks,
            experiment.split,
            counted,
            any_devices,
            options,
            precision,
        )
    checked = {arm: future.result() for arm, future in futures.items()}
    arms = {arm: accounting for arm, (accounting, _) in checked.items()}
    if len({about["data"]["fingerprint"] for _, about in checked.values()}) > 1:
        raise UserError(
            "the arms read different corpora or tokenizers, so they cannot share evaluation tasks;"
            " give all arms the same data and tokenizer"
        )
    suits = {
        arm: dict(zip(experiment.tasks, about["suits"], strict=True))
        for arm, (_, about) in checked.items()
    }
    _check_hypotheses(experiment, arms, suits)
    _, about = next(iter(checked.values()))
    about["machine"] |= {"cores": len(os.sched_getaffinity(0))}  # a worker has a part of them
    return arms, {key: value for key, value in about.items() if key != "suits"}


def _check_hypotheses(
    experiment: Experiment,
    arms: Mapping[str, Accounting],
    suits: Mapping[str, Mapping[str, bool]],
) -> None:
    """Checks that tasks of hypotheses suit their arms, and that their untrained models exist."""
    masks = {arm: counted.mask for arm, counted in arms.items()}
    untrained = {name for name, _ in record.untrained(experiment.runs, masks).values()}
    for hypothesis in experiment.hypotheses:
        text, task, compare = (hypothesis[key] for key in ("text", "task", "compare"))
        unsuited = [
            arm for arm in (hypothesis["arm"], compare) if not suits.get(arm, {}).get(task, True)
        ]
        if unsuited:
            able = [arm for arm in experiment.runs if suits[arm][task]]
            raise UserError(
                f"the hypothesis {text!r} is about {task} of {unsuited[0]!r}, but that task does"
                f" not suit its objective; arms that it suits: {', '.join(able) or 'none'}"
            )
        if compare.startswith("untrained") and compare not in untrained:
            raise UserError(
                f"the hypothesis {text!r} compares with {compare!r}; the untrained models of this"
                f" experiment are: {', '.join(sorted(untrained))}"
            )
