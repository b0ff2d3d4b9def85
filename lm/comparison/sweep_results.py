"""Results of a sweep: the metric of each combination over seeds, as a table and a picture."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lm.comparison import ranges, selection
from lm.comparison.ranges import Range
from lm.core import files
from lm.core.plain import read_json, write_json

# {"index", "values": {field: value}, "runs": [{"seed", "value", "better", "status"}], "mean",
# "spread"}
Combination = dict[str, Any]


def directory(workdir: Path, index: int, seed: int) -> Path:
    """The directory of a run.

    Args:
      workdir: workdir of the sweep.
      index: index of the combination.
      seed: seed of the run.
    """
    return workdir / "runs" / f"{index:03d}-seed{seed}"


def collect(
    workdir: Path, index: int, values: Mapping[str, Any], seeds: Sequence[int], metric: str
) -> Combination:
    """Reads the metric of all runs of a combination.

    Args:
      workdir: workdir of the sweep.
      index: index of the combination.
      values: the combination's value of each swept field.
      seeds: seeds of the combination's runs.
      metric: metric of the sweep.

    Returns:
      The runs with their mean and standard deviation. The mean is None unless each run has a value:
      a combination that diverged with one seed is not ranked by its other seeds.
    """
    runs = []
    for seed in seeds:
        run = directory(workdir, index, seed)
        path = run / "run.json"
        record = read_json(path, "the record of a run") if path.exists() else {}
        value, better = selection.value(run, record, metric)
        status = record.get("status", "failed")
        runs.append({"seed": seed, "status": status, "value": value, "better": better})
    numbers = [run["value"] for run in runs if run["value"] is not None]
    mean = sum(numbers) / len(numbers) if len(numbers) == len(seeds) else None
    spread = None
    if mean is not None and len(numbers) > 1:
        squares = sum((number - mean) ** 2 for number in numbers)
        spread = math.sqrt(squares / (len(numbers) - 1))
    return {"index": index, "values": dict(values), "runs": runs, "mean": mean, "spread": spread}


def cost(workdir: Path, seeds: Sequence[int], metric: str, index: int) -> float | None:
    """Returns the mean of a combination as a cost, which a sampler minimizes.

    Args:
      workdir: workdir of the sweep.
      seeds: seeds of the runs.
      metric: metric of the sweep.
      index: index of the combination.

    Returns:
      The cost; None if a run diverged or failed.
    """
    combination = collect(workdir, index, {}, seeds, metric)
    if combination["mean"] is None:
        return None
    return selection.cost(combination["mean"], selection.direction([combination]))


def write(
    workdir: Path,
    combinations: Sequence[Combination],
    swept: Mapping[str, Range],
    seeds: Sequence[int],
    metric: str,
) -> str:
    """Adds the results to sweep.json, and writes sweep.md and sweep.png.

    Args:
      workdir: workdir of the sweep.
      combinations: results of all combinations.
      swept: range of each swept field except "seed", by field.
      seeds: seeds over which the results are averaged.
      metric: metric of the sweep.

    Returns:
      The table, best first, and the best values as flags.
    """
    better = selection.direction(combinations)
    ranked = sorted(
        combinations,
        key=lambda result: (result["mean"] is None, selection.cost(result["mean"] or 0.0, better)),
    )
    best = ranked[0] if ranked and ranked[0]["mean"] is not None else None
    record = read_json(workdir / "sweep.json", "the record of a sweep")
    results = {"seeds": seeds, "arms": combinations, "best": best, "better": better}
    write_json(workdir / "sweep.json", record | results)
    table, summary = _table(ranked, swept, metric), "no combination ended well with all its seeds"
    if best:
        summary = _summary(best["values"], swept, metric, better)
    with files.replacing(workdir / "sweep.md") as file:
        file.write(
            f"# Sweep of {', '.join(swept) or 'seeds'}\n\n{summary}\n\n"
            f"![{metric} by field](sweep.png)\n\n{table}\n\n"
            f"Mean over seeds {', '.join(map(str, seeds))}; ± is their standard deviation.\n"
        )
    if best and swept:
        draw(workdir / "sweep.png", combinations, swept, metric, better)
    return f"{table}\n\n{summary}\nwritten: {workdir / 'sweep.md'}"


def _table(ranked: Sequence[Combination], swept: Mapping[str, Range], metric: str) -> str:
    lines = [
        "| " + " | ".join([*swept, metric, "over seeds", "runs"]) + " |",
        "|" + " --- |" * (len(swept) + 3),
    ]
    for result in ranked:
        values = ranges.texts([result["values"][field] for field in swept])
        mean = "" if result["mean"] is None else f"{result['mean']:.5g}"
        spread = "" if result["spread"] is None else f"± {result['spread']:.2g}"
        states = ", ".join(dict.fromkeys(run["status"] for run in result["runs"]))
        lines.append("| " + " | ".join([*values, mean, spread, states]) + " |")
    return "\n".join(lines)


def _summary(
    values: Mapping[str, Any], swept: Mapping[str, Range], metric: str, better: str | None
) -> str:
    """The best values as flags, with a note on each that is at an end of its range."""
    flags = " ".join(f"--config.{field}={values[field]}" for field in swept)
    lines = [f"best by {metric} ({better} is better): {flags}"]
    lines += [
        f"{field} is best at an end of what was tried; a better value may lie beyond"
        for field, tried in swept.items()
        if tried.values and len(tried.values) > 1 and _at_edge(values[field], tried)
    ]
    return "\n".join(lines)


def _at_edge(value: Any, tried: Range) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and value in (min(tried.values), max(tried.values))
    )


def draw(
    path: Path,
    combinations: Sequence[Combination],
    swept: Mapping[str, Range],
    metric: str,
    better: str | None,
) -> None:
    """Plots the mean of each combination against each field, with a line through the best.

    Args:
      path: path of the PNG file.
      combinations: results of all combinations.
      swept: range of each swept field, by field; at least one.
      metric: metric of the sweep.
      better: direction of the metric, "higher" or "lower".
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(swept), 3.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    select = max if better == "higher" else min
    panels = figure.subplots(1, len(swept), squeeze=False)[0]
    for axes, (field, tried) in zip(panels, swept.items(), strict=True):
        points = [
            (result["values"][field], result["mean"])
            for result in combinations
            if result["mean"] is not None
        ]
        numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x, _ in points)
        points = sorted(points) if numbers else [(str(x), y) for x, y in points]
        by_value: dict[Any, list[float]] = {}
        for x, y in points:
            by_value.setdefault(x, []).append(y)
        axes.plot(
            list(by_value),
            [select(ys) for ys in by_value.values()],
            color="#0072B2",
            linewidth=1.2,
            alpha=0.6 if len(by_value) < len(points) else 1,
        )
        axes.scatter(
            [x for x, _ in points], [y for _, y in points], color="#D55E00", s=18, zorder=3
        )
        positive = [x for x, _ in points if numbers and x > 0]
        if tried.kind == "log" or (
            tried.kind == "list"
            and numbers
            and len(positive) == len(points)
            and max(positive) >= 8 * min(positive)
        ):
            axes.set_xscale("log")
        axes.set_xlabel(field)
        axes.set_ylabel(metric)
        axes.grid(True, alpha=0.3)
    with files.replacing(path, "wb") as file:
        figure.savefig(file, format="png")
