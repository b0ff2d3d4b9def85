"""Reads a comparison's workdir, finished or not."""

import json
import math
import zipfile
from pathlib import Path
from typing import Any

from lm.core.plugins import UserError
from lm.report.comparison import DONE, Comparison, Row, Run
from lm.stats.bootstrap import NO_SEED
from lm.stats.scores import Examples, read_examples

COLUMNS = ("arm", "seed", "task", "metric", "value", "count", "unit", "better", "kind", "own")


def read(workdir: Path) -> Comparison:
    """Reads comparison.json, results.parquet, baselines.npz and runs/*.

    Only comparison.json is required. Other files may be missing or unfinished; `problems` lists
    them. Rows of unfinished runs are excluded.

    Raises:
      UserError: there is no comparison.json, or a file is malformed.
    """
    path = workdir / "comparison.json"
    if not path.is_file():
        raise UserError(
            f"{workdir} has no comparison.json, so it is not a workdir of lm.compare; give"
            " the --workdir of a comparison"
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path} is not JSON ({error}); run the comparison again with the same command to"
            " rewrite it"
        ) from error
    if (
        not isinstance(record, dict)
        or not isinstance(record.get("arms"), dict)
        or not isinstance(record.get("seeds"), list)
    ):
        raise UserError(
            f"{path} must contain an object with 'arms' (an object) and 'seeds' (a list); it was"
            " not written by lm.compare"
        )
    arms, seeds = record["arms"], record["seeds"]
    if not all(isinstance(arm, dict) for arm in arms.values()) or not all(
        type(seed) is int for seed in seeds
    ):
        raise UserError(
            f"{path}: each of 'arms' must be an object and each of 'seeds' a whole number"
        )
    problems: list[str] = []
    failures = record["failures"] if isinstance(record.get("failures"), dict) else {}
    runs = [_run(workdir / "runs", arm, seed, failures, problems) for arm in arms for seed in seeds]
    done = {(run.arm, run.seed) for run in runs if run.done}
    rows = _rows(workdir / "results.parquet", arms, done, problems)
    finished = sum(run.done for run in runs)
    if finished < len(runs):
        waiting = sum(run.status in ("not started", "not finished") for run in runs)
        text = f"{len(runs) - finished} of {len(runs)} runs have no result"
        problems.insert(0, text + (f" ({waiting} not finished yet)" if waiting else ""))
    examples = _examples(workdir, runs, rows, problems)
    return Comparison(record, arms, seeds, runs, rows, problems, examples, _notes(workdir, runs))


def _notes(workdir: Path, runs: list[Run]) -> dict[str, list[str]]:
    by_task: dict[str, dict[str, None]] = {}
    for run in runs:
        path = workdir / "runs" / f"{run.arm}-seed{run.seed}" / "scores.json"
        for task, notes in (_object(path, []).get("notes") or {}).items() if run.done else ():
            by_task.setdefault(task, {}).update(dict.fromkeys(notes))
    return {task: list(notes) for task, notes in by_task.items()}


def _examples(
    workdir: Path, runs: list[Run], rows: list[Row], problems: list[str]
) -> dict[tuple[int, str], Examples]:
    """The per-example values of the rows, if they are stored and agree with the row's value."""
    sources = [(NO_SEED, workdir / "baselines.npz")]
    sources += [
        (run.seed, workdir / "runs" / f"{run.arm}-seed{run.seed}" / "examples.npz")
        for run in runs
        if run.done
    ]
    stored: dict[tuple[int, str], Examples] = {}
    for seed, path in sources:
        if path.is_file():
            try:
                stored |= {(seed, name): item for name, item in read_examples(path).items()}
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                problems.append(
                    f"{path.relative_to(workdir)} cannot be read ({error}); the intervals of its"
                    " scores are wider because they use only the totals"
                )
    examples, different = {}, 0
    for row in rows:
        key = (row.seed, f"{row.arm}/{row.task}/{row.metric}")
        if key in stored:
            total, weight = float(stored[key].totals.sum()), float(stored[key].weights.sum())
            if weight > 0 and math.isclose(total / weight, row.value, rel_tol=1e-4, abs_tol=1e-6):
                examples[key] = stored[key]
            else:
                different += 1
    problems += _different_examples(rows, examples)
    if different:
        problems.append(
            f"per-example values do not agree with {_times(different, 'score')} of results.parquet"
            " and are ignored"
        )
    return examples


def _different_examples(rows: list[Row], examples: dict[tuple[int, str], Examples]) -> list[str]:
    """A line for each task on which runs that should be paired have different examples.

    Runs are paired between the seeds of one arm, and between the arms on a shared task.
    """
    by_arm: dict[str, dict[tuple[str, str], dict[str, set[str]]]] = {}
    by_seed: dict[str, dict[tuple[int, str], dict[str, set[str]]]] = {}
    for row in rows:
        item = examples.get((row.seed, f"{row.arm}/{row.task}/{row.metric}"))
        if item is None or row.kind != "model" or "/" in row.metric:
            continue
        key = by_arm.setdefault(row.task, {}).setdefault((row.arm, row.metric), {})
        key.setdefault(item.identity, set()).add(f"seed {row.seed}")
        if not row.own:
            key = by_seed.setdefault(row.task, {}).setdefault((row.seed, row.metric), {})
            key.setdefault(item.identity, set()).add(row.arm)
    problems = []
    for task in by_arm:
        groups = [*by_arm[task].values(), *by_seed.get(task, {}).values()]
        if different := next((group for group in groups if len(group) > 1), None):
            first, *others = (" and ".join(sorted(names)) for names in different.values())
            problems.append(
                f"{task}: {first} were not evaluated on the same examples as"
                f" {' or '.join(others)}; their differences are not paired by example"
            )
    return problems


def _run(root: Path, arm: str, seed: int, failures: dict[str, Any], problems: list[str]) -> Run:
    directory = root / f"{arm}-seed{seed}"
    validation = _validation(directory / "metrics.jsonl", problems)
    path, scored = directory / "run.json", (directory / "scores.json").is_file()
    if not scored and (directory / "error.json").is_file():
        # The trial failed in training or in scoring, whatever the status of the training.
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
        # The trial failed before it had a record of its own.
        if isinstance(text := failures.get(directory.name), str):
            status, _, error = text.partition(": ")
            return Run(arm, seed, status, {"error": error}, validation)
        return Run(
            arm, seed, "not finished" if directory.is_dir() else "not started", {}, validation
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        problems.append(
            f"{path.relative_to(root.parent)} is not JSON ({error}); the run is excluded"
        )
        return Run(arm, seed, "unreadable", {}, validation)
    if not isinstance(record, dict):
        problems.append(
            f"{path.relative_to(root.parent)} does not contain an object; the run is excluded"
        )
        return Run(arm, seed, "unreadable", {}, validation)
    status = str(record.get("status") or "not finished")
    # A run without scores is trained, but not evaluated yet.
    return Run(
        arm, seed, "not finished" if status == DONE and not scored else status, record, validation
    )


def _object(path: Path, problems: list[str]) -> dict[str, Any]:
    """The JSON object in a file of a run; empty if it contains none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if isinstance(content, dict):
        return content
    problems.append(f"runs/{path.parent.name}/{path.name} does not contain a JSON object")
    return {}


def _validation(path: Path, problems: list[str]) -> list[tuple[int, float]]:
    """The validation losses by tokens seen.

    After a resume, a step may have two lines; the later one counts.
    """
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
            f"runs/{path.parent.name}/metrics.jsonl: skipped {_times(broken, 'unreadable line')} of"
            f" {len(lines)}"
        )
    return sorted(points.items())


def _rows(
    path: Path, arms: dict[str, Any], done: set[tuple[str, int]], problems: list[str]
) -> list[Row]:
    if not path.is_file():
        problems.append("there is no results.parquet yet, so there are no scores")
        return []
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); delete it and run the comparison again with the same"
            " command"
        ) from error
    absent = [name for name in COLUMNS if name not in table.column_names]
    if absent:
        raise UserError(
            f"{path} lacks the columns {', '.join(absent)}; delete it and run the comparison again"
            " with the same command"
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
            f"results.parquet: skipped {_times(unusable, 'row')} without a finite value"
        )
    if uncounted:
        problems.append(f"results.parquet: excluded {_times(uncounted, 'row')} of unfinished runs")
    if repeated:
        problems.append(
            f"results.parquet: {_times(repeated, 'duplicate row')}; the last one counts"
        )
    unscored = sorted(done - {(row.arm, row.seed) for row in rows.values()})
    if unscored:
        problems.append(
            f"finished but not scored: {', '.join(f'{arm} seed {seed}' for arm, seed in unscored)}"
        )
    return list(rows.values())


def _times(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
