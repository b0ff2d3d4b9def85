"""The record of a comparison, comparison.json, fixed at the first start; and results.parquet."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm.comparison import trial_locks, tuning
from lm.comparison.budgets import Accounting
from lm.comparison.experiment import Experiment, describe_tasks
from lm.core import files, plugins
from lm.core.plain import read_json, write_json
from lm.core.plugins import UserError
from lm.training import records
from lm.training.defaults import defaults, differences

LOCKS = ".claims"  # directory of the locks in a workdir
# Fields of an experiment that may change between sessions: they affect how many runs there are, how
# runs are distributed, or how the report reads them, but no run.
_FREE = ("seeds", "workers", "question", "reference", "energy", "scaling")
_WORDS = (".label", ".describe", ".series")


def path(workdir: Path) -> Path:
    """The path of the record."""
    return workdir / "comparison.json"


def read(workdir: Path) -> dict[str, Any]:
    """Reads the record of a workdir.

    Args:
      workdir: workdir of the comparison.

    Returns:
      The record; empty for a new workdir.

    Raises:
      UserError: the directory does not belong to a comparison, or its record is damaged.
    """
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file; give a directory")
    if not path(workdir).exists():
        if workdir.is_dir() and any(
            entry.name != LOCKS and not entry.name.startswith(".comparison")
            for entry in workdir.iterdir()
        ):
            raise UserError(
                f"--workdir={workdir} contains files that are not of a comparison; give an empty or"
                " new directory"
            )
        return {}
    content = read_json(path(workdir), "the record of a comparison")
    if not isinstance(content, dict) or not isinstance(content.get("experiment"), dict):
        raise UserError(f"{path(workdir)} is no record of a comparison; give another --workdir")
    return content


def check_same(workdir: Path, old: Mapping[str, Any], experiment: Experiment) -> None:
    """Checks that a workdir belongs to the same experiment.

    Seeds may be added and texts changed. Hypotheses were fixed when the comparison first started.

    Args:
      workdir: workdir of the comparison.
      old: record of the workdir; empty for a new workdir.
      experiment: the experiment to compare with the record.

    Raises:
      UserError: the experiments differ; the message lists the fields.
    """
    if not old:
        return
    missing = set(old.get("seeds", ())) - set(experiment.seeds)
    if missing:
        raise UserError(
            f"--workdir={workdir} has runs of the seeds {sorted(missing)}: seeds may be added, not"
            " left out; give another --workdir"
        )
    before, now = _flat(old["experiment"]), _flat(experiment.plain)
    for fields in (before, now):  # older records have no multiples of the budget
        fields |= {
            f"arms.{arm}.times": 1.0 for arm in experiment.runs if f"arms.{arm}.times" not in fields
        }
    # Without tuning, other options of tuning make no difference.
    tuned = any(fields.get("tuning.factors") for fields in (before, now))
    run_defaults = {
        f"arms.{arm}.run.{key}": value
        for arm, run in experiment.runs.items()
        for key, value in defaults(run).items()
    }
    differing = [
        key
        for key in differences(before, now, run_defaults)
        if not _may_differ(key) and not _reworded(workdir, key, old)
        if tuned or not key.startswith("tuning.")
    ]
    if not differing:
        return
    lines = [
        f"  config.{key}: {before.get(key)!r} there, {now.get(key)!r} now" for key in differing[:12]
    ]
    if any(key.startswith("hypotheses") for key in differing):
        lines.append(f"hypotheses were fixed at the first start, {old.get('hypotheses_fixed')}")
    raise UserError(
        "\n".join(
            [f"--workdir={workdir} holds another experiment:", *lines, "give another --workdir"]
        )
    )


def _may_differ(key: str) -> bool:
    """Whether a field may differ between sessions: texts, analysis, and how runs are computed.

    A run may be resumed on other hardware; its own record has the settings that it used.
    """
    if key.startswith(_FREE) or key.endswith(_WORDS):
        return True
    parts = key.split(".")
    if parts[0] == "shared":
        return records.may_change(".".join(parts[1:]))
    # Names of arms may contain dots.
    return parts[0] == "arms" and any(
        part == "run" and records.may_change(".".join(parts[at:]))
        for at, part in enumerate(parts, 1)
    )


def _reworded(workdir: Path, key: str, old: Mapping[str, Any]) -> bool:
    """Whether a field of a hypothesis may differ: its text, and a `compare` without any score.

    A hypothesis that compares with nothing has no verdict yet.
    """
    parts = key.split(".")
    if parts[0] != "hypotheses" or len(parts) != 3:
        return False
    if parts[2] == "text":
        return True
    if (
        parts[2] != "compare"
        or not (workdir / "baselines.json").exists()
        or int(parts[1]) >= len(old["hypotheses"])
    ):
        return False
    hypothesis = old["hypotheses"][int(parts[1])]
    task, metric = hypothesis["task"], hypothesis["metric"]
    names = models(old["arms"]) | baselines(workdir).get((task, metric), set())
    return hypothesis["compare"] not in names


def models(arms: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Returns the names of the arms of a record and of their untrained models."""
    return {name for arm, described in arms.items() for name in (arm, described["untrained"])}


def baselines(workdir: Path) -> dict[tuple[str, str], set[str]]:
    """Returns the names of the baselines by (task, metric), once they have been evaluated."""
    names: dict[tuple[str, str], set[str]] = {}
    for row in read_json(workdir / "baselines.json", "the baselines' scores")["rows"]:
        names.setdefault((row["task"], row["metric"]), set()).add(row["arm"])
    return names


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flattens nested mappings and lists of them to paths; empty ones, other lists are values."""
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        value = {str(index): item for index, item in enumerate(value)}
    if not isinstance(value, Mapping) or not value:
        return {prefix.rstrip("."): value}
    return {
        path: leaf
        for key, item in value.items()
        for path, leaf in _flat(item, f"{prefix}{key}.").items()
    }


def untrained(
    runs: Mapping[str, Mapping[str, Any]], masks: Mapping[str, str]
) -> dict[str, tuple[str, bool]]:
    """Assigns an untrained model to each arm, for comparison.

    There is one untrained model for each combination of architecture, shape and mask.
    The result does not depend on the order of arms, which may change between sessions.

    Args:
      runs: run config of each arm, by arm.
      masks: attention mask under which each arm trains, by arm.

    Returns:
      (name of the untrained model, whether the arm evaluates that model), by arm.
    """
    # (model, mask) → (shape, the arm that evaluates its untrained model) of each shape
    owners: dict[tuple[str, str], list[tuple[dict[str, Any], str]]] = {}
    assigned: dict[str, tuple[str, bool]] = {}
    for arm, run in sorted(runs.items()):
        model, mask = run["model"]["name"], masks[arm]
        shape, shapes = _shape(run["model"]), owners.setdefault((model, mask), [])
        owner = next((owner for other, owner in shapes if other == shape), None)
        if owner is not None:
            assigned[arm] = (assigned[owner][0], False)
            continue
        usual = plugins.find("models", model).Model.masks[0]
        first = f"untrained {model}" + (f", {mask}" if mask != usual else "")
        assigned[arm] = (f"untrained {arm}" if shapes else first, True)
        shapes.append((shape, arm))
    return assigned


def check_planned(
    workdir: Path, old: Mapping[str, Any], planned: Mapping[str, Mapping[str, Any]]
) -> None:
    """Checks that each arm has as many steps as in earlier sessions.

    Args:
      workdir: workdir of the comparison.
      old: record of the workdir; empty for a new workdir.
      planned: current "steps" of each arm, by arm.

    Raises:
      UserError: an arm has a different number of steps than before.
    """
    for arm, before in old.get("planned", {}).items():
        now = planned[arm]["steps"]
        if before["steps"] != now:
            raise UserError(
                f"--workdir={workdir}: runs of {arm!r} had {before['steps']:,} steps, now they"
                f" would have {now:,}: the amount of a step has changed, with the code or the"
                " corpus; give another --workdir"
            )


def _shape(model: Mapping[str, Any]) -> dict[str, Any]:
    """A model's section without the fields that only change how it is computed."""
    return {
        field: value for field, value in model.items() if not records.may_change(f"model.{field}")
    }


def make(
    experiment: Experiment,
    arms: Mapping[str, Accounting],
    planned: Mapping[str, Mapping[str, Any]],
    about: Mapping[str, Any],
    old: Mapping[str, Any],
    **facts: Any,
) -> dict[str, Any]:
    """Makes the record of a comparison.

    Args:
      experiment: the experiment.
      arms: amounts that a step of each arm processes, by arm.
      planned: steps and amounts of each arm, from lm.comparison.budgets.plan.
      about: the entries "data", "machine", "versions" and "git".
      old: the record of earlier sessions; empty at the first start.
      **facts: further entries, such as the number of workers and the command line.
    """
    names = untrained(experiment.runs, {arm: counted.mask for arm, counted in arms.items()})
    described = {
        arm: {
            "label": given["label"],
            "objective": given["run"]["objective"]["name"],
            "model": given["run"]["model"]["name"],
            "describe": given["describe"],
            "series": given.get("series") or given["run"]["objective"]["name"],
            "times": experiment.times[arm],
            "parameters": arms[arm].parameters,
            "mask": arms[arm].mask,
            "untrained": names[arm][0],
            "flops_per_token": arms[arm].flops_per_token,
            "loss_tokens_per_row": arms[arm].loss_tokens
            / experiment.runs[arm]["training"]["batch_size"],
        }
        for arm, given in experiment.plain["arms"].items()
    }
    given, now = experiment.plain, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    budget, energy = experiment.budget, experiment.energy
    content = {
        "name": given["name"],
        "question": given["question"],
        "seeds": experiment.seeds,
        "budget": {
            "matched": budget.matched,
            "value": budget.value,
            "tolerance": budget.tolerance,
        },
        "planned": dict(planned),
        "arms": described,
        "reference": given["reference"],
        "tasks": describe_tasks(experiment.tasks),
        "hypotheses": experiment.hypotheses,
        "hypotheses_fixed": old.get("hypotheses_fixed") or now,
        "split": experiment.split,
        "energy": {
            "watts": energy.watts,
            "pue": energy.pue,
            "grid_kg_per_kwh": energy.grid_kg_per_kwh,
        },
        "seeds_added": _added(experiment.seeds, old, now),
        "started": old.get("started") or now,
        "sessions": old.get("sessions", []),
        "seconds": old.get("seconds", 0.0),
        "experiment": given,
    }
    scaling = {"scaling": given["scaling"]} if given.get("scaling") else {}
    return content | scaling | dict(about) | facts


def _added(seeds: list[int], old: Mapping[str, Any], now: str) -> list[dict[str, Any]]:
    """{"seeds", "at"} for each time that seeds were added, perhaps after results had been seen."""
    before = list(old.get("seeds_added", []))
    new = [seed for seed in seeds if seed not in old.get("seeds", seeds)]
    return [*before, {"seeds": new, "at": now}] if new else before


def note_session(workdir: Path, began: float) -> None:
    """Records that the session of this process lasts until now.

    The duration of a session is then known even if it is killed. The caller holds the lock
    "record".

    Args:
      workdir: workdir of the comparison.
      began: start of the session, in seconds since the epoch.
    """
    content = read(workdir)
    write_json(path(workdir), content | {"sessions": _until_now(content, began)})


def _until_now(content: Mapping[str, Any], began: float) -> list[dict[str, Any]]:
    """All sessions of a record, where that of this process, which began then, ends now."""
    own = {"by": trial_locks.owner_name(trial_locks.this_process()), "began": began}
    others = [
        session
        for session in content.get("sessions", [])
        if {"by": session["by"], "began": session["began"]} != own
    ]
    return [*others, own | {"ended": time.time()}]


def finish(
    workdir: Path,
    experiment: Experiment,
    runs: list[Path],
    began: float,
    failures: Mapping[str, str],
) -> dict[str, Any]:
    """Updates the record at the end of a session. The caller holds the lock "record".

    Args:
      workdir: workdir of the comparison.
      experiment: the experiment.
      runs: directories of the main runs.
      began: start of the session, in seconds since the epoch.
      failures: error of each trial that failed or diverged, by name of the trial.

    Returns:
      The record.
    """
    content = read(workdir)
    run_records = [
        read_json(run / "run.json", "the record of a run")
        for run in runs
        if (run / "run.json").exists()
    ]
    content["git"] = ", ".join(sorted({run["git"] for run in run_records})) or content["git"]
    content["failures"] = dict(failures)
    content["sessions"] = _until_now(content, began)
    spans = [(session["began"], session["ended"]) for session in content["sessions"]]
    content["seconds"] = round(_covered(spans), 1)
    if experiment.tuning.factors:
        steps = {arm: plan["steps"] for arm, plan in content["planned"].items()}
        content["tuning"] = tuning.record(experiment, workdir, steps)
    write_json(path(workdir), content)
    return content


def _covered(spans: list[tuple[float, float]]) -> float:
    """Seconds that any of the spans covers: sessions that overlap count once."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def write_results(workdir: Path, runs: list[Path]) -> None:
    """Writes results.parquet: the scores of all finished runs and of the baselines.

    Args:
      workdir: workdir of the comparison.
      runs: directories of the main runs, in the order of rows.
    """
    import pyarrow
    import pyarrow.parquet

    paths = [workdir / "baselines.json"] + [run / "scores.json" for run in runs]
    rows = [row for file in paths if file.exists() for row in read_json(file, "scores")["rows"]]
    with files.replacing(workdir / "results.parquet", "wb") as file:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
