"""Which value of the tuned field each arm goes on with, from the runs of its trials."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm.comparison.experiment import Experiment, tuned_value, with_field


def directory(workdir: Path, arm: str, index: int) -> Path:
    """Of a trial; `index` is its factor's."""
    return workdir / "tuning" / f"{arm}-{index}"


def config(experiment: Experiment, arm: str, index: int, steps: int) -> dict[str, Any]:
    """The run config of a trial; `steps`: of a main run."""
    run, tuning = experiment.runs[arm], experiment.tuning
    run = with_field(run, tuning.field, tuned_value(run, tuning, index, arm))
    return with_field(run, "training.steps", max(1, round(tuning.share * steps))) | {
        "seed": tuning.seed
    }


def trials(experiment: Experiment, workdir: Path, arm: str) -> list[dict[str, Any]]:
    """Of an arm, in the order of factors: {"value", "loss", "status"}; the loss is the run's last validation, None without one."""
    found = []
    for index in range(len(experiment.tuning.factors)):
        value = tuned_value(experiment.runs[arm], experiment.tuning, index, arm)
        where = directory(workdir, arm, index)
        record = _read(where / "run.json")
        status = str(record.get("status") or "waiting")
        if status == "running" and (where / "error.json").exists():
            status = "failed"
        loss = record.get("final", {}).get("loss") if status == "done" else None
        found.append(
            {
                "value": value,
                "loss": loss if loss is not None and math.isfinite(loss) else None,
                "status": status,
            }
        )
    return found


def choose(own: float | int, tried: list[dict[str, Any]]) -> float | int:
    """The value of the trial with the lowest loss, the first of equals; an arm's own where none has a loss."""
    scored = [each for each in tried if each["loss"] is not None]
    return min(scored, key=lambda each: each["loss"])["value"] if scored else own


def edge(value: float | int, tried: list[dict[str, Any]]) -> str:
    """ "lowest" or "highest" where the chosen value lies at an end of the grid, so that a better one may lie beyond; else ""."""
    values = sorted(each["value"] for each in tried)
    if len(values) < 2 or value not in (values[0], values[-1]):
        return ""
    return "lowest" if value == values[0] else "highest"


def record(experiment: Experiment, workdir: Path, steps: Mapping[str, int]) -> dict[str, Any]:
    """For comparison.json: the trials so far, what was chosen where all of an arm's have ended, and which choices lie at an edge."""
    tuning = experiment.tuning
    tried = {arm: trials(experiment, workdir, arm) for arm in experiment.runs}
    over = {
        arm: each
        for arm, each in tried.items()
        if all(trial["status"] in ("done", "diverged") for trial in each)
    }
    chosen = {arm: chosen_value(experiment, workdir, arm) for arm in over}
    edges = {arm: edge(chosen[arm], tried[arm]) for arm in over}
    return {
        "field": tuning.field, "share": tuning.share, "seed": tuning.seed, "factors": list(tuning.factors),
        "steps": {arm: max(1, round(tuning.share * count)) for arm, count in steps.items()},
        "trials": tried, "chosen": chosen, "edges": {arm: which for arm, which in edges.items() if which},
    }  # fmt: skip


def chosen_value(experiment: Experiment, workdir: Path, arm: str) -> float | int:
    """What an arm's main runs take, once its trials have ended; its own value without tuning."""
    own = _own(experiment, arm)
    return choose(own, trials(experiment, workdir, arm)) if experiment.tuning.factors else own


def notes(found: Mapping[str, Any]) -> list[str]:
    """What a reader should know of `record`'s choices."""
    field, said = found["field"], []
    for arm, tried in found["trials"].items():
        if arm in found["chosen"]:
            losses = ", ".join(
                f"{each['value']:.4g} → {each['status'] if each['loss'] is None else format(each['loss'], '.4f')}"
                for each in tried
            )
            which = found["edges"].get(arm)
            where = f": the {which} tried, so a better one may lie beyond" if which else ""
            none = (
                "; none ended well, so it keeps its own"
                if all(each["loss"] is None for each in tried)
                else ""
            )
            said.append(f"{arm}: {field} {found['chosen'][arm]:.4g}{where}{none} ({losses})")
    return said


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
