"""Reads what a comparison left in its workdir, finished or not."""

import json
import math
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lm.core.plugins import UserError
from lm.stats.scores import Examples, read_examples

DONE = "done"
NO_SEED = -1
COLUMNS = ("arm", "seed", "task", "metric", "value", "count", "unit", "better", "kind", "own")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of results.parquet. `error` is the standard error over test examples where the file has such a column."""

    arm: str
    seed: int
    task: str
    metric: str
    value: float
    count: int
    unit: str
    better: str
    kind: str
    own: bool
    error: float | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One trial. `status` is done, failed, diverged, or what is known of one that is not finished: a run is done once it is scored."""

    arm: str
    seed: int
    status: str
    record: dict[str, Any]
    validation: list[tuple[int, float]]  # (tokens seen, loss), in order

    @property
    def done(self) -> bool:
        return self.status == DONE

    def number(self, key: str) -> float | None:
        value = self.record.get(key)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            return None
        return float(value)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything the report says is computed from this."""

    about: dict[str, Any]
    arms: dict[str, dict[str, Any]]
    seeds: list[int]
    runs: list[Run]
    rows: list[Row]  # of finished runs, baselines and untrained models only
    problems: list[str] = field(default_factory=list)  # what is missing or was passed over
    behind: dict[tuple[int, str], Examples] = field(
        default_factory=dict
    )  # by (seed, "arm/task/metric"); of baselines -1
    notes: dict[str, list[str]] = field(
        default_factory=dict
    )  # by task: what of its files was left out, by any run

    def examples(self, arm: str, seed: int, task: str, metric: str) -> Examples | None:
        """What stands behind a score, example by example; None where it was not kept, as in workdirs of earlier versions."""
        return self.behind.get((seed, f"{arm}/{task}/{metric}"))

    def of(self, arm: str) -> list[Run]:
        """The finished runs of an arm."""
        return [run for run in self.runs if run.arm == arm and run.done]

    def by_times(self) -> dict[float, list[str]]:
        """The arms that get the same multiple of the budget, by that multiple."""
        found: dict[float, list[str]] = {}
        for arm, about in self.arms.items():
            found.setdefault(float(about.get("times") or 1.0), []).append(arm)
        return found

    def label(self, arm: str) -> str:
        return str(self.arms.get(arm, {}).get("label") or arm)


def read(workdir: Path) -> Comparison:
    """Reads comparison.json, results.parquet, baselines.npz and runs/*.

    Only comparison.json has to be there: the rest may be missing or unfinished, and `problems` says so. Rows of runs that are not done are
    left out.

    Raises:
      UserError: no comparison.json, or a file that is not what it should be.
    """
    path = workdir / "comparison.json"
    if not path.is_file():
        raise UserError(
            f"{workdir} has no comparison.json, so it is no workdir of lm.compare; give the --workdir of a comparison"
        )
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path} is not JSON ({error}); start the comparison again with the same command to write it anew"
        ) from error
    if (
        not isinstance(about, dict)
        or not isinstance(about.get("arms"), dict)
        or not isinstance(about.get("seeds"), list)
    ):
        raise UserError(
            f"{path} should hold an object with 'arms' (an object) and 'seeds' (a list); it is not lm.compare's"
        )
    if not all(isinstance(arm, dict) for arm in about["arms"].values()) or not all(
        type(seed) is int for seed in about["seeds"]
    ):
        raise UserError(
            f"{path}: each of 'arms' should be an object and each of 'seeds' a whole number"
        )
    problems: list[str] = []
    failures = about["failures"] if isinstance(about.get("failures"), dict) else {}
    runs = [
        _run(workdir / "runs", arm, seed, failures, problems)
        for arm in about["arms"]
        for seed in about["seeds"]
    ]
    rows = _rows(
        workdir / "results.parquet",
        about["arms"],
        {(run.arm, run.seed) for run in runs if run.done},
        problems,
    )
    finished = sum(run.done for run in runs)
    if finished < len(runs):
        waiting = sum(run.status in ("not started", "not finished") for run in runs)
        text = f"{len(runs) - finished} of {len(runs)} runs give no result"
        problems.insert(0, text + (f" ({waiting} not finished yet)" if waiting else ""))
    behind = _behind(workdir, runs, rows, problems)
    return Comparison(
        about, about["arms"], about["seeds"], runs, rows, problems, behind, _notes(workdir, runs)
    )


def _notes(workdir: Path, runs: list[Run]) -> dict[str, list[str]]:
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        path = workdir / "runs" / f"{run.arm}-seed{run.seed}" / "scores.json"
        for task, notes in (_object(path, []).get("notes") or {}).items() if run.done else ():
            found.setdefault(task, {}).update(dict.fromkeys(notes))
    return {task: list(notes) for task, notes in found.items()}


def _behind(
    workdir: Path, runs: list[Run], rows: list[Row], problems: list[str]
) -> dict[tuple[int, str], Examples]:
    """What stands behind the rows, where the file of a run (or that of the baselines) has it and gives the row's value."""
    places = [(NO_SEED, workdir / "baselines.npz")]
    places += [
        (run.seed, workdir / "runs" / f"{run.arm}-seed{run.seed}" / "examples.npz")
        for run in runs
        if run.done
    ]
    kept: dict[tuple[int, str], Examples] = {}
    for seed, path in places:
        if path.is_file():
            try:
                kept |= {(seed, name): examples for name, examples in read_examples(path).items()}
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                problems.append(
                    f"{path.relative_to(workdir)} cannot be read ({error}); its scores have wider intervals, from sums alone"
                )
    found, different = {}, 0
    for row in rows:
        key = (row.seed, f"{row.arm}/{row.task}/{row.metric}")
        if key in kept:
            total, weight = float(kept[key].totals.sum()), float(kept[key].weights.sum())
            if weight > 0 and math.isclose(total / weight, row.value, rel_tol=1e-4, abs_tol=1e-6):
                found[key] = kept[key]
            else:
                different += 1
    problems += _changed(rows, found)
    if different:
        problems.append(
            f"{_times(different, 'score')} with examples that give another value: the examples are passed over"
        )
    return found


def _changed(rows: list[Row], behind: dict[tuple[int, str], Examples]) -> list[str]:
    """A line for each task on which seeds of one arm, or arms on a shared task, were asked different examples."""
    by_arm: dict[str, dict[tuple[str, str], dict[str, set[str]]]] = {}
    by_seed: dict[str, dict[tuple[int, str], dict[str, set[str]]]] = {}
    for row in rows:
        each = behind.get((row.seed, f"{row.arm}/{row.task}/{row.metric}"))
        if each is None or row.kind != "model" or "/" in row.metric:
            continue
        key = by_arm.setdefault(row.task, {}).setdefault((row.arm, row.metric), {})
        key.setdefault(each.identity, set()).add(f"seed {row.seed}")
        if not row.own:
            key = by_seed.setdefault(row.task, {}).setdefault((row.seed, row.metric), {})
            key.setdefault(each.identity, set()).add(row.arm)
    found = {}
    for task in by_arm:
        groups = [*by_arm[task].values(), *by_seed.get(task, {}).values()]
        if different := next((group for group in groups if len(group) > 1), None):
            first, *others = (" and ".join(sorted(names)) for names in different.values())
            found[task] = (
                f"{task}: {first} were not asked the same examples as {', nor '.join(others)}: their differences are not paired by example"
            )
    return list(found.values())


def _run(root: Path, arm: str, seed: int, failures: dict[str, Any], problems: list[str]) -> Run:
    directory = root / f"{arm}-seed{seed}"
    validation = _validation(directory / "metrics.jsonl", problems)
    path, scored = directory / "run.json", (directory / "scores.json").is_file()
    if not scored and (directory / "error.json").is_file():
        # The trial ended in an error, in training or in scoring, whatever the training wrote of itself.
        failure = _object(directory / "error.json", problems)
        record = _object(path, problems) if path.is_file() else {}
        return Run(
            arm,
            seed,
            str(failure.get("status") or "failed"),
            record | {"error": failure.get("error")},
            validation,
        )
    if not path.is_file():
        if isinstance(
            said := failures.get(directory.name), str
        ):  # before it had a record of its own
            status, _, error = said.partition(": ")
            return Run(arm, seed, status, {"error": error}, validation)
        return Run(
            arm, seed, "not finished" if directory.is_dir() else "not started", {}, validation
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        problems.append(
            f"{path.relative_to(root.parent)} is not JSON ({error}); its run is not counted"
        )
        return Run(arm, seed, "unreadable", {}, validation)
    if not isinstance(record, dict):
        problems.append(f"{path.relative_to(root.parent)} holds no object; its run is not counted")
        return Run(arm, seed, "unreadable", {}, validation)
    status = str(record.get("status") or "not finished")
    # Trained, but not measured yet.
    return Run(
        arm, seed, "not finished" if status == DONE and not scored else status, record, validation
    )


def _object(path: Path, problems: list[str]) -> dict[str, Any]:
    """The JSON object in a file of a failed run; empty where it holds none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    problems.append(f"runs/{path.parent.name}/{path.name} holds no JSON object")
    return {}


def _validation(path: Path, problems: list[str]) -> list[tuple[int, float]]:
    """The validation losses by tokens seen. After a resume some steps stand there twice: the later line holds."""
    if not path.is_file():
        return []
    points: dict[int, float] = {}
    broken = 0
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines:
        if "validation" not in line:
            continue
        try:
            entry = json.loads(line)
            if entry["split"] == "validation" and math.isfinite(entry["loss"]):
                points[int(entry["tokens"])] = float(entry["loss"])
        except (ValueError, KeyError, TypeError):
            broken += 1
    if broken:
        problems.append(
            f"runs/{path.parent.name}/metrics.jsonl: {broken} unreadable of {len(lines)} lines passed over"
        )
    return sorted(points.items())


def _rows(
    path: Path, arms: dict[str, Any], done: set[tuple[str, int]], problems: list[str]
) -> list[Row]:
    if not path.is_file():
        problems.append("there is no results.parquet yet, so nothing is scored")
        return []
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); delete it and start the comparison again with the same command"
        ) from error
    absent = [name for name in COLUMNS if name not in table.column_names]
    if absent:
        raise UserError(
            f"{path} lacks the columns {', '.join(absent)}; delete it and start the comparison again with the same command"
        )
    extra = ("error",) if "error" in table.column_names else ()
    rows: dict[tuple[str, int, str, str], Row] = {}
    unusable = uncounted = repeated = 0
    for entry in table.select([*COLUMNS, *extra]).to_pylist():
        if any(entry[name] is None for name in COLUMNS) or not math.isfinite(entry["value"]):
            unusable += 1
            continue
        row = Row(**entry)
        if row.kind == "model" and row.arm in arms and (row.arm, row.seed) not in done:
            uncounted += 1
            continue
        key = (row.arm, row.seed, row.task, row.metric)
        repeated += key in rows
        rows[key] = row
    if unusable:
        problems.append(
            f"results.parquet: {_times(unusable, 'row')} without a finite value passed over"
        )
    if uncounted:
        problems.append(
            f"results.parquet: {_times(uncounted, 'row')} of runs that are not done left out"
        )
    if repeated:
        problems.append(
            f"results.parquet: {_times(repeated, 'row')} given twice; the last one holds"
        )
    unscored = sorted(done - {(row.arm, row.seed) for row in rows.values()})
    if unscored:
        problems.append(
            f"finished but not scored: {', '.join(f'{arm} seed {seed}' for arm, seed in unscored)}"
        )
    return list(rows.values())


def _times(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
