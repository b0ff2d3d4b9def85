"""comparison.json: what a workdir is about, fixed at its first start; and results.parquet."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm.comparison import claims, tuning
from lm.comparison.budgets import Accounting
from lm.comparison.experiment import Experiment, known_names
from lm.core.plain import read_json, write_json
from lm.core.plugins import UserError

HIDDEN = ".claims"  # where the claims of a workdir lie
# What only says how many runs there are, how they are shown, or how the report reads them.
_FREE = ("seeds", "workers", "question", "reference", "energy", "scaling")
_WORDS = (".label", ".describe", ".series")


def path(workdir: Path) -> Path:
    """The record's."""
    return workdir / "comparison.json"


def read(workdir: Path) -> dict[str, Any]:
    """The record of a workdir that has one; empty for a new one.

    Raises:
      UserError: the directory cannot be a comparison's, or its record is damaged.
    """
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file; give a directory")
    if not path(workdir).exists():
        if workdir.is_dir() and any(
            entry.name != HIDDEN and not entry.name.startswith(".comparison")
            for entry in workdir.iterdir()
        ):
            raise UserError(
                f"--workdir={workdir} holds something that is no comparison; give an empty or new directory"
            )
        return {}
    found = read_json(path(workdir), "the record of a comparison")
    if not isinstance(found, dict) or not isinstance(found.get("experiment"), dict):
        raise UserError(f"{path(workdir)} is no record of a comparison; give another --workdir")
    return found


def check_same(workdir: Path, found: Mapping[str, Any], experiment: Experiment) -> None:
    """Refuses a workdir of another experiment. More seeds may be added, and words changed; hypotheses were fixed at the first start.

    Args:
      found: the record that is there; empty for a new workdir.
    """
    if not found:
        return
    missing = set(found.get("seeds", ())) - set(experiment.seeds)
    if missing:
        raise UserError(
            f"--workdir={workdir} has runs of the seeds {sorted(missing)}: seeds may be added, not left out; give another --workdir"
        )
    before, now = _flat(found["experiment"]), _flat(experiment.plain)
    for fields in (before, now):  # records from before there were multiples have none
        fields |= {
            f"arms.{arm}.times": 1.0 for arm in experiment.runs if f"arms.{arm}.times" not in fields
        }
    tuned = any(
        fields.get("tuning.factors") for fields in (before, now)
    )  # where nobody is, how it would be done is no difference
    differing = [
        key
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
        and not _may_differ(key)
        and not _reworded(workdir, key, found)
        if tuned or not key.startswith("tuning.")
    ]
    if differing:
        lines = [
            f"  config.{key}: {before.get(key)!r} there, {now.get(key)!r} now"
            for key in differing[:12]
        ]
        fixed = any(key.startswith("hypotheses") for key in differing)
        since = (
            f"\nhypotheses were fixed at the first start, {found.get('hypotheses_fixed')}"
            if fixed
            else ""
        )
        raise UserError(
            f"--workdir={workdir} holds another experiment:\n"
            + "\n".join(lines)
            + since
            + "\ngive another --workdir"
        )


def _may_differ(key: str) -> bool:
    """Whether a field may differ between sessions: words, analysis, and where and how runs are computed, as a run may continue elsewhere.
    Each run's own record says how it was."""
    from lm.training import records

    if key.startswith(_FREE) or key.endswith(_WORDS):
        return True
    parts = key.split(".")
    if parts[0] == "shared":
        return records.free(".".join(parts[1:]))
    # An arm's name may have dots in it.
    return parts[0] == "arms" and any(
        part == "run" and records.free(".".join(parts[at:])) for at, part in enumerate(parts, 1)
    )


def _reworded(workdir: Path, key: str, found: Mapping[str, Any]) -> bool:
    """Whether a hypothesis may differ there: in its words, and in what it compares with where nobody has that name, since it could not be
    judged."""
    parts = key.split(".")
    if parts[0] != "hypotheses" or len(parts) != 3:
        return False
    if parts[2] == "text":
        return True
    if (
        parts[2] != "compare"
        or not (workdir / "baselines.json").exists()
        or int(parts[1]) >= len(found["hypotheses"])
    ):
        return False
    each = found["hypotheses"][int(parts[1])]
    there = models(found["arms"]) | baselines(workdir).get((each["task"], each["metric"]), set())
    return each["compare"] not in there


def models(arms: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The names of a record's arms and of the untrained models."""
    return {name for arm, of in arms.items() for name in (arm, of["untrained"])}


def baselines(workdir: Path) -> dict[tuple[str, str], set[str]]:
    """The names of baselines by (task, metric), once they are measured."""
    found: dict[tuple[str, str], set[str]] = {}
    for row in read_json(workdir / "baselines.json", "the baselines' scores")["rows"]:
        found.setdefault((row["task"], row["metric"]), set()).add(row["arm"])
    return found


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists of mappings by paths; empty ones and other lists are values."""
    if isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
        value = {str(index): each for index, each in enumerate(value)}
    if not isinstance(value, Mapping) or not value:
        return {prefix.rstrip("."): value}
    return {
        path: leaf
        for key, each in value.items()
        for path, leaf in _flat(each, f"{prefix}{key}.").items()
    }


def untrained(
    runs: Mapping[str, Mapping[str, Any]], masks: Mapping[str, str]
) -> dict[str, tuple[str, bool]]:
    """For each arm the name of the untrained model that it is held against, and whether it is the arm that measures it.

    One for each architecture and the mask it reads under; another shape under the same name has one of its own. The order in which arms
    are declared changes nothing, as they may be put in another one between two sessions.
    """
    from lm.core import plugins

    owners: dict[tuple[str, str], list[tuple[dict[str, Any], str]]] = {}  # of each shape
    found: dict[str, tuple[str, bool]] = {}
    for arm, run in sorted(runs.items()):
        model, mask = run["model"]["name"], masks[arm]
        shape, shapes = _shape(run["model"]), owners.setdefault((model, mask), [])
        owner = next((of for known, of in shapes if known == shape), None)
        if owner is not None:
            found[arm] = (found[owner][0], False)
            continue
        usual = plugins.find("models", model).Model.masks[0]
        first = f"untrained {model}" + (f", {mask}" if mask != usual else "")
        found[arm] = (f"untrained {arm}" if shapes else first, True)
        shapes.append((shape, arm))
    return found


def check_planned(
    workdir: Path, old: Mapping[str, Any], planned: Mapping[str, Mapping[str, Any]]
) -> None:
    """Refuses to go on where a run would now get other steps than those before it."""
    for arm, before in old.get("planned", {}).items():
        now = planned[arm]["steps"]
        if before["steps"] != now:
            raise UserError(
                f"--workdir={workdir}: runs of {arm!r} had {before['steps']:,} steps, now they would have {now:,}: what a step amounts to"
                " has changed (the code, or the corpus); give another --workdir"
            )


def _shape(model: Mapping[str, Any]) -> dict[str, Any]:
    """A model's section without how it is computed."""
    from lm.training import records

    return {field: value for field, value in model.items() if not records.free(f"model.{field}")}


def make(
    experiment: Experiment,
    arms: Mapping[str, Accounting],
    planned: Mapping[str, Mapping[str, Any]],
    about: Mapping[str, Any],
    old: Mapping[str, Any],
    **facts: Any,
) -> dict[str, Any]:
    """The record. about: data, machine, versions, git. old: the one that is there; empty at the first start. facts: workers, command …"""
    names = untrained(experiment.runs, {arm: of.mask for arm, of in arms.items()})
    described = {
        arm: {
            "label": value["label"], "objective": value["run"]["objective"]["name"], "model": value["run"]["model"]["name"],
            "describe": value["describe"], "series": value.get("series") or value["run"]["objective"]["name"],
            "times": experiment.times[arm], "parameters": arms[arm].parameters, "mask": arms[arm].mask, "untrained": names[arm][0],
            "flops_per_token": arms[arm].flops_per_token,
            "loss_tokens_per_row": arms[arm].loss_tokens / experiment.runs[arm]["training"]["batch_size"],
        }
        for arm, value in experiment.plain["arms"].items()
    }  # fmt: skip
    given, now = experiment.plain, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    energy = experiment.energy
    return {
        "name": given["name"], "question": given["question"], "seeds": experiment.seeds,
        "budget": {"matched": experiment.budget.matched, "value": experiment.budget.value, "tolerance": experiment.budget.tolerance},
        "planned": dict(planned), "arms": described, "reference": given["reference"], "tasks": known_names(experiment.tasks),
        "hypotheses": experiment.hypotheses, "hypotheses_fixed": old.get("hypotheses_fixed") or now, "split": experiment.split,
        "energy": {"watts": energy.watts, "pue": energy.pue, "grid_kg_per_kwh": energy.grid_kg_per_kwh},
        "seeds_added": _added(experiment.seeds, old, now), "started": old.get("started") or now, "sessions": old.get("sessions", []),
        "seconds": old.get("seconds", 0.0), "experiment": given,
    } | ({"scaling": given["scaling"]} if given.get("scaling") else {}) | dict(about) | facts  # fmt: skip


def _added(seeds: list[int], old: Mapping[str, Any], now: str) -> list[dict[str, Any]]:
    """When seeds were added to those of the first start, some of which may have been looked at: {"seeds", "at"} each time."""
    before = list(old.get("seeds_added", []))
    new = [seed for seed in seeds if seed not in old.get("seeds", seeds)]
    return [*before, {"seeds": new, "at": now}] if new else before


def note_session(workdir: Path, began: float) -> None:
    """Notes that the session that began then is there until now, so that one that is killed is known; the claim on the record must be held.

    Args:
      began: seconds since the epoch.
    """
    found = read(workdir)
    write_json(path(workdir), found | {"sessions": _reaching_now(found, began)})


def _reaching_now(found: Mapping[str, Any], began: float) -> list[dict[str, Any]]:
    """The sessions, of which this process' one, which began then, reaches to now."""
    mine = {"by": claims.shown(claims.me()), "began": began}
    others = [
        each
        for each in found.get("sessions", [])
        if {"by": each["by"], "began": each["began"]} != mine
    ]
    return [*others, mine | {"ended": time.time()}]


def finish(
    workdir: Path,
    experiment: Experiment,
    runs: list[Path],
    began: float,
    failures: Mapping[str, str],
) -> dict[str, Any]:
    """Brings the record up to date at the end of a session; the claim on it must be held.

    Args:
      runs: directories of the main runs. began: seconds since the epoch. failures: what trials failed or diverged of.
    """
    found = read(workdir)
    records = [
        read_json(run / "run.json", "the record of a run")
        for run in runs
        if (run / "run.json").exists()
    ]
    found["git"] = ", ".join(sorted({each["git"] for each in records})) or found["git"]
    found["failures"] = dict(failures)
    found["sessions"] = _reaching_now(found, began)
    found["seconds"] = round(
        _covered([(each["began"], each["ended"]) for each in found["sessions"]]), 1
    )
    if experiment.tuning.factors:
        found["tuning"] = tuning.record(
            experiment, workdir, {arm: plan["steps"] for arm, plan in found["planned"].items()}
        )
    write_json(path(workdir), found)
    return found


def _covered(spans: list[tuple[float, float]]) -> float:
    """Seconds that lie in any of the spans: processes side by side count once."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def write_results(workdir: Path, runs: list[Path]) -> None:
    """All rows of all finished runs and the baselines as results.parquet."""
    import pyarrow
    import pyarrow.parquet

    paths = [workdir / "baselines.json"] + [run / "scores.json" for run in runs]
    rows = [row for each in paths if each.exists() for row in read_json(each, "scores")["rows"]]
    temporary = workdir / f".results.parquet.{os.getpid()}"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), temporary)
    os.replace(temporary, workdir / "results.parquet")
