"""Sensitivity of each arm to its learning rate or another tuned field: the tuning trials."""

import math
from typing import Any

from lm.report import number_format, svg
from lm.report.chart import Axis, Chart, Dots, Line
from lm.report.curves import MANY
from lm.report.page import Figure, Heading, Items, Paragraph, Part, Table
from lm.report.results import Results

_NAMES = {"optimizer.learning_rate": "learning rate"}


def section(results: Results) -> list[Part]:
    """Returns the section; empty without tuning."""
    comparison = results.comparison
    tuning = comparison.record.get("tuning")
    if not isinstance(tuning, dict) or not tuning.get("trials"):
        return []
    field = str(tuning.get("field") or "the tuned field")
    name = _NAMES.get(field, field)
    trials = {
        arm: sorted(tuning["trials"].get(arm) or [], key=lambda trial: trial["value"])
        for arm in comparison.arms
    }
    trials = {arm: arm_trials for arm, arm_trials in trials.items() if arm_trials}
    selected = tuning.get("chosen") or {}
    drawn = []
    for arm, arm_trials in trials.items():
        label, value = comparison.label(arm), selected.get(arm)
        chart = _chart(label, results.index(arm) or 0, arm_trials, value, name)
        size = (300, 220) if len(trials) > MANY else (400, 240)
        alternative = (
            f"Validation loss of {label} against its {name}, {len(arm_trials)} trials,"
            f" {number_format.tick(value)} selected"
        )
        drawn.append(svg.draw(chart, f"tuning{results.index(arm)}", alternative, *size))
    numbers = sorted({len(arm_trials) for arm_trials in trials.values()})
    budget = number_format.percentage(tuning.get("share"), 2)
    text = (
        "Before the main runs, each arm was trained with"
        f" {' or '.join(map(str, numbers))} values of {field}, for {budget} of its budget each and"
        f" with the seed {tuning.get('seed')}, which no main run has. The value with the lowest"
        " validation loss of the arm's own objective was selected."
    )
    if len(numbers) > 1:
        text += " The number of trials differs between arms."
    caption = (
        "Ring: selected. Cross: diverged or failed, so without a loss. Losses of different arms are"
        f" different quantities. The axis of the {name} is logarithmic."
    )
    rows = []
    for arm, arm_trials in trials.items():
        cells = [number_format.tick(selected.get(arm)), *(_trial(trial) for trial in arm_trials)]
        rows.append(
            [
                comparison.label(arm),
                *cells,
                *[number_format.MISSING] * (max(numbers) - len(arm_trials)),
            ]
        )
    columns = [
        ("Arm", "l"),
        ("Selected", "r"),
        *((f"Trial {place + 1}", "r") for place in range(max(numbers))),
    ]
    warnings = [
        f"{comparison.label(arm)}: {_edge(arm_trials, selected.get(arm), name)}"
        for arm, arm_trials in trials.items()
        if _at_edge(arm_trials, selected.get(arm))
    ]
    parts: list[Part] = [Heading(f"Sensitivity to the {name}"), Paragraph(text)]
    if warnings:
        parts += [
            Paragraph(
                "The selected value is at the edge of the range that was tried, so a better value"
                " may be outside it:",
                "warning",
            ),
            Items(warnings, "warning"),
        ]
    return [
        *parts,
        Figure(
            drawn,
            caption,
            elsewhere="report.html plots these losses.",
            small=len(trials) > MANY,
        ),
        Table(columns, rows, f"Validation loss of each trial, and below it its {name}."),
    ]


def _chart(
    label: str, index: int, trials: list[dict[str, Any]], selected: float | None, name: str
) -> Chart:
    done = [(float(trial["value"]), float(trial["loss"])) for trial in trials if _finished(trial)]
    failed = [float(trial["value"]) for trial in trials if not _finished(trial)]
    x, y = (
        Axis(name, log=True, text=number_format.tick),
        Axis("validation loss (nats)", text=number_format.tick),
    )
    if not done:
        return Chart(label, x, y, note="no trial finished")
    losses = [loss for _, loss in done]
    top = max(losses) + 0.15 * ((max(losses) - min(losses)) or 1.0) if failed else max(losses)
    marks: list[Any] = [
        Line(done, index, "thin"),
        Dots(done, index),
        Dots([(value, top) for value in failed], index, "cross"),
    ]
    marks.append(Dots([point for point in done if point[0] == selected], index, "ring"))
    return Chart(label, x, y, marks)


def _finished(trial: dict[str, Any]) -> bool:
    loss = trial.get("loss")
    return trial.get("status") == "done" and isinstance(loss, int | float) and math.isfinite(loss)


def _trial(trial: dict[str, Any]) -> str:
    shown = (
        number_format.plain(trial["loss"], 4)
        if _finished(trial)
        else str(trial.get("status") or "failed")
    )
    return f"{shown}\n{number_format.tick(trial['value'])}"


def _at_edge(trials: list[dict[str, Any]], selected: float | None) -> bool:
    """Whether the selected value is the lowest or highest one that finished or diverged."""
    values = [
        trial["value"] for trial in trials if _finished(trial) or trial.get("status") == "diverged"
    ]
    return selected is not None and len(values) > 1 and selected in (min(values), max(values))


def _edge(trials: list[dict[str, Any]], selected: float | None, name: str) -> str:
    lowest = selected == min(trial["value"] for trial in trials)
    end = "lowest" if lowest else "highest"
    return f"the {name} {number_format.tick(selected)} is the {end} of {len(trials)}"
