"""The report's results: learning curves, the dot plot, the tables by task, and paired differences."""

import itertools

from lm import statistics
from lm.report import figures, pictures, scores
from lm.report.page import Figure, Heading, Paragraph, Part, Table
from lm.report.read import Comparison
from lm.report.scores import Score

TASKS = {
    "causal": "next token", "suffix": "second half of a text", "masked": "masked token", "denoising": "words behind sentinels",
    "next_sentence": "next sentence", "sentence_order": "sentence order", "probe": "linear probe",
}  # fmt: skip
METRICS = {"nll": "negative log-likelihood", "ce": "cross-entropy"}
_TOKEN_TASKS = ("causal", "suffix", "masked", "denoising")
# The objective whose loss is the task's quantity.
_QUESTIONS: dict[str, dict] = {
    "causal": {"name": "clm", "label_smoothing": 0.0, "z_loss": 0.0},
    "masked": {
        "name": "mlm", "rate": 0.15, "final_rate": 0.0, "mask_share": 0.8, "random_share": 0.1, "unit": "token", "format": "packed",
        "label_smoothing": 0.0, "z_loss": 0.0,
    },
}  # fmt: skip
_ALL_PAIRS = 6  # arms up to which every pair is shown; of more, each is compared with the experiment's reference
_UNTRAINED = "untrained "
_INTERVAL = ("95 % interval", "r")


def curve_panels(comparison: Comparison) -> list[pictures.Curve]:
    """One panel an arm. Baselines are drawn where the arm's loss is the one quantity they measure too."""
    panels = []
    for index, arm in enumerate(comparison.arms):
        own = [row for row in comparison.rows if row.arm == arm and row.kind == "model" and row.own]
        losses = {(row.task, row.metric, row.unit) for row in own if row.unit.startswith("nats/")}
        baselines, quantity = [], "validation loss (nats)"
        same = [found for found in sorted(losses) if _same_question(comparison, arm, found[0])]
        if same:
            task, metric, unit = same[0]
            quantity = f"validation loss ({unit})"
            rows = [row for row in scores.rows_of(comparison, task, metric) if row.kind == "baseline" and row.seed < 0]
            baselines = [(comparison.label(row.arm), row.value) for row in rows]
        seeds = {run.seed: run.validation for run in comparison.of(arm) if run.validation}
        panels.append(pictures.Curve(comparison.label(arm), index, seeds, baselines, quantity))
    return panels


def _same_question(comparison: Comparison, arm: str, task: str) -> bool:
    """Whether an arm's loss is what the task's baselines measure: not with other tokens hidden, nor as a sum of two terms."""
    configs = [run.record.get("config") for run in comparison.runs if run.arm == arm]
    config = next((each["objective"] for each in configs if isinstance(each, dict) and isinstance(each.get("objective"), dict)), None)
    if config is None:
        config = {"name": comparison.arms[arm].get("objective")}
    return task in _QUESTIONS and all(config.get(key, value) == value for key, value in _QUESTIONS[task].items())


def dot_rows(comparison: Comparison) -> tuple[list[pictures.Dot], str, str]:
    """The rows of the dot plot on the shared yardstick's first metric, with its unit and its name."""
    for task, metrics in scores.metrics(comparison, own=False).items():
        rows, unit, arms = [], "", list(comparison.arms)
        for arm in scores.who(comparison, task):
            score = scores.score(comparison, arm, task, metrics[0])
            if score:
                unit = score.unit
                index = arms.index(arm) if arm in arms and score.kind == "model" else None
                rows.append(pictures.Dot(comparison.label(arm), score.estimate, list(score.values.values()), index))
        return rows, unit, f"{_name(TASKS, task)}: {_name(METRICS, metrics[0])}"
    return [], "", ""


def curves(comparison: Comparison, picture: str) -> list[Part]:
    """Validation loss against tokens, a panel an arm. `picture` is the PNG's name for Markdown."""
    title, panels = Heading("Learning curves"), curve_panels(comparison)
    if not any(panel.seeds for panel in panels):
        return [title, Paragraph("No finished run has a validation loss yet.")]
    shown = [pictures.curve(each, f"Validation loss of {each.label} against tokens seen, {len(each.seeds)} seeds") for each in panels]
    caption = (
        "Validation loss against tokens seen. Thick line: mean over seeds; thin lines: each seed; band: lowest to highest seed, not a 95 % "
        "interval. Each arm has its own panel and scale because losses of different objectives are different quantities: do not compare "
        "heights across panels."
    )
    if any(panel.baselines for panel in panels):
        caption += " Dashed grey: baselines that count tokens, on the test documents, where they measure the same quantity as the loss."
    return [title, Figure(shown, caption, picture)]


def dots(comparison: Comparison, picture: str) -> list[Part]:
    """The dot-and-interval plot of the shared yardstick. `picture` is the PNG's name: Markdown shows it here where no curves did before."""
    title, (rows, unit, quantity) = Heading("The shared yardstick"), dot_rows(comparison)
    if not rows:
        return [title, Paragraph("No finished run has been measured on the shared yardstick yet.")]
    shown = pictures.dots(rows, unit, quantity, f"{quantity} of each arm, untrained model and baseline with 95 % intervals")
    caption = (
        "Mean and 95 % interval on the yardstick that all arms share; the small ticks above a dot are single seeds. Hollow grey: untrained "
        "models and baselines. The numbers stand in a table below."
    )
    if any(panel.seeds for panel in curve_panels(comparison)):
        return [title, Figure([shown], caption, elsewhere=f"{caption} It is the lowest part of the picture above ({picture}).")]
    return [title, Figure([shown], caption, picture)]


def tables(comparison: Comparison, own: bool, title: str) -> list[Part]:
    """A table for each task: every arm measured on it beside the baselines on the same examples."""
    found = [_table(comparison, task, metrics, own) for task, metrics in scores.metrics(comparison, own).items()]
    if not found:
        return [Heading(title), Paragraph("Nothing has been measured yet.")]
    note = "Rows of one table are the same quantity on the same held-out text and may be compared; one table may not be with another."
    return [Heading(title), *([Paragraph(note)] if own else []), *found]


def _table(comparison: Comparison, task: str, metrics: list[str], own: bool) -> Table:
    arms, noun = scores.who(comparison, task, own), "tokens" if task in _TOKEN_TASKS else "examples"
    columns, counts = [(_name(TASKS, task).capitalize(), "l"), ("Seeds", "r")], dict[str, set[int]]()
    seeds, cells = dict.fromkeys(arms, 0), {arm: list[str]() for arm in arms}
    for metric in metrics:
        row = scores.rows_of(comparison, task, metric)[0]
        # "Bits per byte" says its unit already.
        unit = f" ({row.unit})" if "/" in row.unit and row.unit.replace("/", "_per_") != metric else ""
        # No line break between a head and its arrow.
        columns += [(f"{_name(METRICS, metric).capitalize()}{unit}\u00a0{'↓' if row.better == 'lower' else '↑'}", "r"), _INTERVAL]
        found = {arm: each for arm in arms if (each := scores.score(comparison, arm, task, metric))}
        places = figures.places([each.estimate for each in found.values()], row.unit)
        for arm in arms:
            if arm in found:
                cells[arm] += figures.estimate(found[arm].estimate, row.unit, places)
                seeds[arm] = max(seeds[arm], found[arm].estimate.n)
                counts.setdefault("bytes" if row.unit.endswith("/byte") else noun, set()).add(found[arm].count)
            else:
                cells[arm] += [figures.MISSING, figures.MISSING]
    rows = [[comparison.label(arm), str(seeds[arm] or figures.MISSING), *cells[arm]] for arm in arms]
    # A loss by byte counts the bytes of the same text.
    spans = [
        " to ".join(figures.count(value) for value in dict.fromkeys([min(found), max(found)])) + f" {what}"
        for what, found in counts.items()
    ]
    size = spans[0] + (f" ({', '.join(spans[1:])})" if spans[1:] else "")
    return Table(columns, rows, f"On {size} of documents held out from training. ↓ lower is better, ↑ higher is better.")


def differences(comparison: Comparison) -> list[Part]:
    """Differences on the shared yardstick between runs of one seed: arm against arm, and against the untrained model of its kind."""
    parts: list[Part] = [Heading("Paired differences")]
    for task, metrics in scores.metrics(comparison, own=False).items():
        everyone = {arm: scores.score(comparison, arm, task, metrics[0]) for arm in scores.who(comparison, task)}
        found = {arm: each for arm, each in everyone.items() if each and each.estimate.n}
        arms = [arm for arm in found if arm in comparison.arms]
        pairs = list(itertools.combinations(arms, 2))
        if len(arms) > _ALL_PAIRS:
            reference = comparison.about.get("reference")
            reference = reference if reference in arms else arms[0]
            pairs = [(arm, reference) for arm in arms if arm != reference]
        pairs += [(arm, other) for arm in arms if (other := _untrained(comparison, arm)) in found]
        if pairs:
            parts.append(_pairs(comparison, [(found[first], found[second]) for first, second in pairs], task, metrics[0]))
    if len(parts) == 1:
        parts.append(Paragraph("There are no two arms with a score on the shared yardstick yet."))
    return parts


def behind(comparison: Comparison) -> list[str]:
    """A sentence for each arm whose mean is behind the best baseline, on its own tasks; on the shared one for the best arm."""
    found = []
    for arm in comparison.arms:
        own: dict[str, str] = {}
        for row in comparison.rows:
            if row.kind == "model" and row.arm == arm and row.own:
                own.setdefault(row.task, row.metric)
        for task, metric in own.items():
            score = scores.score(comparison, arm, task, metric)
            if score and (text := _behind(comparison, score, task, metric)):
                where = f" on the task {_name(TASKS, task)}" if len(own) > 1 else ""
                found.append(f"{comparison.label(arm)} is behind its {text[0]} baseline{where}: {text[1]}.")
    for task, metrics in scores.metrics(comparison, own=False).items():
        each = [score for arm in comparison.arms if (score := scores.score(comparison, arm, task, metrics[0]))]
        if each and (text := _behind(comparison, best := _best(each), task, metrics[0])):
            name = comparison.label(best.arm)
            found.append(
                f"On the shared yardstick, {_name(TASKS, task)}, the best arm, {name}, is behind the {text[0]} baseline: {text[1]}."
            )
    return found


def _behind(comparison: Comparison, score: Score, task: str, metric: str) -> tuple[str, str] | None:
    """The best baseline's name and both numbers where it is better than `score`."""
    names = dict.fromkeys(row.arm for row in scores.rows_of(comparison, task, metric) if row.kind == "baseline")
    baselines = [found for name in names if (found := scores.score(comparison, name, task, metric))]
    if not baselines or (best := _best([score, *baselines])) is score:
        return None
    places = figures.places([score.estimate, best.estimate], score.unit)
    own, other = (figures.estimate(each.estimate, score.unit, places)[0] for each in (score, best))
    return comparison.label(best.arm), f"{_name(METRICS, metric)} {own} against {other}"


def _best(found: list[Score]) -> Score:
    """The best by its mean; of equals the first."""
    return (min if found[0].better == "lower" else max)(found, key=lambda each: each.estimate.mean)


def _untrained(comparison: Comparison, arm: str) -> str:
    """The untrained model that an arm is held against."""
    about = comparison.arms[arm]
    return str(about.get("untrained") or _UNTRAINED + str(about.get("model")))


def _pairs(comparison: Comparison, pairs: list[tuple[Score, Score]], task: str, metric: str) -> Table:
    unit = pairs[0][0].unit
    estimates = [scores.difference(*pair) for pair in pairs]
    places = figures.places([each for each in estimates if each], unit)
    rows = []
    for (first, second), estimate in zip(pairs, estimates, strict=True):
        names = [comparison.label(first.arm), comparison.label(second.arm)]
        title = f"{names[0]} against {names[1]}"
        if estimate is None:
            rows.append([title, *[figures.MISSING] * 3, "? inconclusive (no seed in common)"])
            continue
        common = sorted(first.values.keys() & second.values.keys())
        each = ", ".join(figures.signed(first.values[seed] - second.values[seed], unit, places) for seed in common)
        higher, lower = (side(estimate, 0.0) == statistics.HOLDS for side in (statistics.above, statistics.below))
        better = names[0] if higher == (first.better == "higher") else names[1]
        verdict = f"{better} better" if higher or lower else "? inconclusive"
        rows.append([title, each, *figures.estimate(estimate, unit, places, signed=True), verdict])
    mark = " (points)" if unit == "share" else ""
    columns = [("First against second", "l"), (f"By seed{mark}", "r"), (f"Mean{mark}", "r"), _INTERVAL, ("Verdict", "l")]
    caption = (
        f"Differences (first {figures.MINUS} second) in {_name(METRICS, metric)}, {_name(TASKS, task)}, between runs of the same seed. "
        "Inconclusive: the interval holds zero. "
        f"The intervals are not corrected for their number, {len(rows)}: of twenty, one misses by chance."
    )
    return Table(columns, rows, caption)


def _name(names: dict[str, str], key: str) -> str:
    return names.get(key, key.replace("_", " "))
