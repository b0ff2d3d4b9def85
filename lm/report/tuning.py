"""How sensitive each arm is to its learning rate (or whatever field was tuned): the trials before the main runs."""

import math
from typing import Any

from lm.report import figures, svg
from lm.report.chart import Axis, Chart, Dots, Line
from lm.report.curves import MANY
from lm.report.page import Figure, Heading, Items, Paragraph, Part, Table
from lm.report.results import Results

_NAMES = {"optimizer.learning_rate": "learning rate"}


def section(results: Results) -> list[Part]:
    """Nothing where the experiment tuned nothing."""
    comparison = results.comparison
    tuning = comparison.about.get("tuning")
    if not isinstance(tuning, dict) or not tuning.get("trials"):
        return []
    field = str(tuning.get("field") or "the tuned field")
    name = _NAMES.get(field, field)
    trials = {
        arm: sorted(tuning["trials"].get(arm) or [], key=lambda trial: trial["value"])
        for arm in comparison.arms
    }
    trials = {arm: found for arm, found in trials.items() if found}
    chosen = tuning.get("chosen") or {}
    drawn = []
    for arm, found in trials.items():
        label = comparison.label(arm)
        picture = _chart(label, results.index(arm) or 0, found, chosen.get(arm), name)
        size = (300, 220) if len(trials) > MANY else (400, 240)
        alternative = f"Validation loss of {label} against its {name}, {len(found)} trials, {figures.tick(chosen.get(arm))} chosen"
        drawn.append(svg.draw(picture, f"tuning{results.index(arm)}", alternative, *size))
    numbers = sorted({len(found) for found in trials.values()})
    share = figures.share(tuning.get("share"), 2)
    text = (
        f"Before the main runs each arm was trained with {' or '.join(map(str, numbers))} values of {field}, for {share} of its budget "
        f"each and with the seed {tuning.get('seed')}, which no main run has; the lowest validation loss of its own objective chose."
    )
    if len(numbers) > 1:
        text += " The arms did not have the same number of trials."
    caption = (
        "Ring: chosen. Cross: diverged or failed, so it has no loss. Losses of different arms are different quantities. The scale of the "
        f"{name} is logarithmic."
    )
    rows = []
    for arm, found in trials.items():
        cells = [figures.tick(chosen.get(arm)), *(_trial(trial) for trial in found)]
        rows.append(
            [comparison.label(arm), *cells, *[figures.MISSING] * (max(numbers) - len(found))]
        )
    columns = [
        ("Arm", "l"),
        ("Chosen", "r"),
        *((f"Trial {place + 1}", "r") for place in range(max(numbers))),
    ]
    warned = [
        f"{comparison.label(arm)}: {_edge(found, chosen.get(arm), name)}"
        for arm, found in trials.items()
        if _at_edge(found, chosen.get(arm))
    ]
    parts: list[Part] = [Heading(f"Sensitivity to the {name}"), Paragraph(text)]
    if warned:
        parts += [
            Paragraph(
                "Chosen at the edge of what was tried, so a better value may lie beyond:", "warning"
            ),
            Items(warned, "warning"),
        ]
    return [
        *parts,
        Figure(
            drawn,
            caption,
            elsewhere="The page report.html draws these losses.",
            small=len(trials) > MANY,
        ),
        Table(columns, rows, f"Validation loss of each trial below its {name}."),
    ]


def _chart(
    label: str, index: int, trials: list[dict[str, Any]], chosen: float | None, name: str
) -> Chart:
    done = [(float(trial["value"]), float(trial["loss"])) for trial in trials if _finished(trial)]
    lost = [float(trial["value"]) for trial in trials if not _finished(trial)]
    x, y = (
        Axis(name, log=True, text=figures.tick),
        Axis("validation loss (nats)", text=figures.tick),
    )
    if not done:
        return Chart(label, x, y, note="no trial finished")
    losses = [loss for _, loss in done]
    top = max(losses) + 0.15 * ((max(losses) - min(losses)) or 1.0) if lost else max(losses)
    marks: list[Any] = [
        Line(done, index, "thin"),
        Dots(done, index),
        Dots([(value, top) for value in lost], index, "cross"),
    ]
    marks.append(Dots([point for point in done if point[0] == chosen], index, "ring"))
    return Chart(label, x, y, marks)


def _finished(trial: dict[str, Any]) -> bool:
    loss = trial.get("loss")
    return trial.get("status") == "done" and isinstance(loss, int | float) and math.isfinite(loss)


def _trial(trial: dict[str, Any]) -> str:
    shown = (
        figures.plain(trial["loss"], 4)
        if _finished(trial)
        else str(trial.get("status") or "failed")
    )
    return f"{shown}\n{figures.tick(trial['value'])}"


def _at_edge(trials: list[dict[str, Any]], chosen: float | None) -> bool:
    """Whether nothing was learnt of what lies beyond the chosen value: a trial that diverged there tells enough."""
    values = [
        trial["value"] for trial in trials if _finished(trial) or trial.get("status") == "diverged"
    ]
    return chosen is not None and len(values) > 1 and chosen in (min(values), max(values))


def _edge(trials: list[dict[str, Any]], chosen: float | None, name: str) -> str:
    lowest = chosen == min(trial["value"] for trial in trials)
    return f"the {name} {figures.tick(chosen)} is the {'lowest' if lowest else 'highest'} of {len(trials)}"
