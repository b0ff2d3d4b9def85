"""Tuning: short trials of an arm that select the value of one field for its main runs."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm.comparison.experiment import Experiment, tuned_value, with_field


def directory(workdir: Path, arm: str, index: int) -> Path:
    """The directory of a trial.

    Args:
      workdir: workdir of the comparison.
      arm: name of the arm.
      index: index of the trial's factor.
    """
    return workdir / "tuning" / f"{arm}-{index}"


def config(experiment: Experiment, arm: str, index: int, steps: int) -> dict[str, Any]:
    """Returns the run config of a trial.

    Args:
      experiment: the experiment.
      arm: name of the arm.
      index: index of the factor.
      steps: number of steps of a main run of the arm.
    """
    run, tuning = experiment.runs[arm], experiment.tuning
    run = with_field(run, tuning.field, tuned_value(run, tuning, index, arm))
    return with_field(run, "training.steps", max(1, round(tuning.share * steps))) | {
        "seed": tuning.seed
    }


def trials(experiment: Experiment, workdir: Path, arm: str) -> list[dict[str, Any]]:
    """Returns the state of an arm's trials, in the order of factors.

    Args:
      experiment: the experiment.
      workdir: workdir of the comparison.
      arm: name of the arm.

    Returns:
      {"value", "loss", "status"} for each trial. The loss is the run's last validation loss, or
      None.
    """
    states = []
    for index in range(len(experiment.tuning.factors)):
        value = tuned_value(experiment.runs[arm], experiment.tuning, index, arm)
        run = directory(workdir, arm, index)
        record = _read(run / "run.json")
        status = str(record.get("status") or "waiting")
        if status == "running" and (run / "error.json").exists():
            status = "failed"
        loss = record.get("final", {}).get("loss") if status == "done" else None
        states.append(
            {
                "value": value,
                "loss": loss if loss is not None and math.isfinite(loss) else None,
                "status": status,
            }
        )
    return states


def select(own: float | int, tried: list[dict[str, Any]]) -> float | int:
    """Selects a value by the lowest loss.

    Args:
      own: the arm's own value, which is selected if no trial has a loss.
      tried: trials, as `trials` returns them; of equal losses, the first is selected.
    """
    scored = [trial for trial in tried if trial["loss"] is not None]
    return min(scored, key=lambda trial: trial["loss"])["value"] if scored else own


def edge(value: float | int, tried: list[dict[str, Any]]) -> str:
    """Returns "lowest" or "highest" if the value is at that end of the tried values, else "".

    A better value may then be beyond that end.

    Args:
      value: the selected value.
      tried: trials, as `trials` returns them.
    """
    values = sorted(trial["value"] for trial in tried)
    if len(values) < 2 or value not in (values[0], values[-1]):
        return ""
    return "lowest" if value == values[0] else "highest"


def record(experiment: Experiment, workdir: Path, steps: Mapping[str, int]) -> dict[str, Any]:
    """Returns the section "tuning" of comparison.json.

    Args:
      experiment: the experiment.
      workdir: workdir of the comparison.
      steps: number of steps of a main run, by arm.

    Returns:
      The trials so far; once all trials of an arm have ended, also its selected value and whether
      this value is at an edge.
    """
    tuning = experiment.tuning
    tried = {arm: trials(experiment, workdir, arm) for arm in experiment.runs}
    ended = [
        arm
        for arm, states in tried.items()
        if all(trial["status"] in ("done", "diverged") for trial in states)
    ]
    selected = {arm: selected_value(experiment, workdir, arm) for arm in ended}
    edges = {arm: edge(selected[arm], tried[arm]) for arm in ended}
    return {
        "field": tuning.field,
        "share": tuning.share,
        "seed": tuning.seed,
        "factors": list(tuning.factors),
        "steps": {arm: max(1, round(tuning.share * count)) for arm, count in steps.items()},
        "trials": tried,
        "chosen": selected,
        "edges": {arm: which for arm, which in edges.items() if which},
    }


def selected_value(experiment: Experiment, workdir: Path, arm: str) -> float | int:
    """Returns the value of the tuned field for an arm's main runs.

    Args:
      experiment: the experiment.
      workdir: workdir of the comparison; all trials of the arm have ended.
      arm: name of the arm.

    Returns:
      The selected value; without tuning, the arm's own value.
    """
    own = _own(experiment, arm)
    return select(own, trials(experiment, workdir, arm)) if experiment.tuning.factors else own


def notes(section: Mapping[str, Any]) -> list[str]:
    """Describes the selected values, one line per arm.

    Args:
      section: the section that `record` returns.
    """
    field, lines = section["field"], []
    for arm, tried in section["trials"].items():
        if arm not in section["chosen"]:
            continue
        losses = ", ".join(
            f"{trial['value']:.4g} → "
            + (trial["status"] if trial["loss"] is None else format(trial["loss"], ".4f"))
            for trial in tried
        )
        which = section["edges"].get(arm)
        at_edge = f": the {which} tried, so a better one may lie beyond" if which else ""
        none_ended = all(trial["loss"] is None for trial in tried)
        none = "; none ended well, so it keeps its own" if none_ended else ""
        lines.append(f"{arm}: {field} {section['chosen'][arm]:.4g}{at_edge}{none} ({losses})")
    return lines


def _own(experiment: Experiment, arm: str) -> Any:
    value: Any = experiment.runs[arm]
    for part in experiment.tuning.field.split("."):
        value = value[part]
    return value


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
