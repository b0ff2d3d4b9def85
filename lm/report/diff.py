"""Two comparisons side by side: what was set differently, which verdicts changed, and which scores did by more than their intervals."""

import math
import os
from pathlib import Path
from typing import Any

from lm.core.plain import flat
from lm.core.plugins import UserError
from lm.report import figures, hypotheses, page
from lm.report.page import Heading, Page, Paragraph, Part, Table
from lm.report.read import Comparison, read
from lm.report.results import Results, metric_name, task_name
from lm.report.scores import Judged
from lm.stats import intervals
from lm.stats.intervals import Estimate

# Of comparison.json: what was asked, and on what it was run.
_ASKED = (
    "question",
    "seeds",
    "split",
    "budget",
    "tasks",
    "reference",
    "tuning.field",
    "tuning.share",
    "tuning.seed",
    "scaling",
    "energy",
)
# Not the tally of documents by name, which is as long as the corpus has names.
_RUN = (
    "data.source",
    "data.fingerprint",
    "data.splits",
    "data.tokenizer",
    "versions",
    "git",
    "machine",
    "workers",
)
_LONGEST = 80  # characters of a value


def diff(first: Path, second: Path) -> str:
    """What two comparisons have in common and not, as Markdown; also written to diff.md in the second's workdir.

    Raises:
      UserError: one of them is no workdir of a comparison, or they share no arm.
    """
    sides = [read(Path(workdir)) for workdir in (first, second)]
    shared = [arm for arm in sides[0].arms if arm in sides[1].arms]
    if not shared:
        have = " and ".join(
            f"{', '.join(side.arms)} ({workdir})"
            for side, workdir in zip(sides, (first, second), strict=True)
        )
        raise UserError(
            f"the two comparisons share no arm: {have}; compare two workdirs of one experiment, or of versions of it"
        )
    results = [
        Results(side, Path(workdir)) for side, workdir in zip(sides, (first, second), strict=True)
    ]
    parts: list[Part] = [
        Table([("", "l"), ("Workdir", "l"), ("Name", "l"), ("Config", "l"), ("Started", "l")], [
            [letter, str(workdir), *(str(side.about.get(key) or figures.MISSING) for key in ("name", "config", "started"))]
            for letter, workdir, side in zip("AB", (first, second), sides, strict=True)
        ]),
        *_settings("What was set", [_set(side) for side in sides], "Nothing: the same arms, budget, seeds and tasks."),
        *_settings("Data, versions and machine", [_flat(side.about, _RUN) for side in sides], "The same."),
        *_verdicts(results),
        *_scores(results, shared),
    ]  # fmt: skip
    text = page.markdown(Page("What changed from A to B", parts))
    path = Path(second) / "diff.md"
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
    return text


def _set(side: Comparison) -> dict[str, Any]:
    """What the experiment's config said; of older records what stands beside it."""
    experiment = side.about.get("experiment")
    if isinstance(experiment, dict):
        whole = {f"arms.{arm}.times": 1.0 for arm in side.arms} | flat(
            experiment
        )  # older records have no multiples
        return {key: value for key, value in whole.items() if not key.startswith("hypotheses")}
    arms = {
        arm: {key: about.get(key) for key in ("label", "objective", "model", "describe")}
        for arm, about in side.arms.items()
    }
    return _flat(side.about, _ASKED) | flat({"arms": arms})


def _flat(about: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    whole = flat(about)
    return {
        key: value
        for key, value in whole.items()
        if any(key == wanted or key.startswith(wanted + ".") for wanted in keys)
    }


def _settings(title: str, sides: list[dict[str, Any]], same: str) -> list[Part]:
    first, second = sides
    rows = [
        [key, _said(first, key), _said(second, key)]
        for key in sorted(first.keys() | second.keys())
        if key not in first or key not in second or first[key] != second[key]
    ]
    return [
        Heading(title),
        Table([("Field", "l"), ("A", "l"), ("B", "l")], rows) if rows else Paragraph(same),
    ]


def _said(side: dict[str, Any], key: str) -> str:
    if key not in side:
        return figures.MISSING
    text = str(side[key])
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " …"


def _verdicts(results: list[Results]) -> list[Part]:
    """Hypotheses whose verdict, or whose statement, is not the same."""
    first, second = ({each.text: each for each in hypotheses.judge(side)} for side in results)
    asked = [
        {str(each.get("text")): each for each in side.comparison.about.get("hypotheses") or []}
        for side in results
    ]
    rows = []
    for text in dict.fromkeys([*first, *second]):
        told = [side[text] if text in side else None for side in (first, second)]
        if (
            told[0]
            and told[1]
            and told[0].verdict == told[1].verdict
            and asked[0].get(text) == asked[1].get(text)
        ):
            continue
        rows.append([text, *map(_told, told)])
    both = len(first.keys() & second.keys())
    title = Heading("Verdicts or hypotheses that changed")
    if not rows:
        return [title, Paragraph(f"None of {both}." if both else "Neither states a hypothesis.")]
    changed = Table([("Hypothesis", "l"), ("A", "l"), ("B", "l")], rows)
    return [title, Paragraph(f"{both} hypotheses are in both."), changed]


def _told(judged: Judged | None) -> str:
    if judged is None:
        return "not asked"
    sign = hypotheses.SIGNS[judged.verdict]
    return f"{sign} {judged.verdict}: {judged.measured} {judged.interval}, needed {judged.needed}"


def _scores(results: list[Results], shared: list[str]) -> list[Part]:
    """Every score that both have, arms' and baselines'."""
    keys = [
        {
            (task, metric)
            for own in (True, False)
            for task, metrics in side.metrics(own).items()
            for metric in metrics
        }
        for side in results
    ]
    rows, apart, alike = [], 0, 0
    for task, metric in sorted(keys[0] & keys[1]):
        for arm in [
            *shared,
            *(each for each in results[0].who(task) if each not in results[0].comparison.arms),
        ]:
            one, other = (side.score(arm, task, metric) for side in results)
            if one is None or other is None or one.unit != other.unit:
                continue
            places = figures.places([one.estimate, other.estimate], one.unit)
            gap = _difference(one.estimate, other.estimate)
            equal = _equal(gap, one.estimate, other.estimate)
            apart, alike = apart + (equal is False), alike + bool(equal)
            verdict = (
                "? one has no interval"
                if equal is None
                else "equal within intervals"
                if equal
                else "changed"
            )
            cells = [
                " ".join(figures.estimate(each.estimate, one.unit, places)) for each in (one, other)
            ]
            change = (
                " ".join(figures.estimate(gap, one.unit, places, signed=True))
                .removesuffix(figures.MISSING)
                .strip()
            )
            rows.append(
                [
                    results[0].comparison.label(arm),
                    f"{task_name(task)}, {metric_name(metric)}",
                    *cells,
                    change,
                    verdict,
                ]
            )
    title = Heading("Scores")
    if not rows:
        return [title, Paragraph("Neither has a score that the other has too.")]
    parts: list[Part] = [
        title,
        Paragraph(f"{alike} of {len(rows)} are equal within intervals, {apart} are not."),
    ]
    if len({(side.comparison.about.get("data") or {}).get("fingerprint") for side in results}) > 1:
        warning = "The data or the tokenizer differ, and so the test examples: scores are not of the same quantity."
        parts.append(Paragraph(warning, "warning"))
    columns = [
        ("Arm", "l"),
        ("On", "l"),
        ("A", "r"),
        ("B", "r"),
        ("B − A (of shares: points)", "r"),
        ("Verdict", "l"),
    ]
    caption = (
        "95 % intervals; the difference's is made of both, as of runs that share nothing (Zou and Donner 2008), so it is wide where the "
        "two share seeds and test examples. They are not corrected for their number."
    )
    return [*parts, Table(columns, rows, caption)]


def _difference(first: Estimate, second: Estimate) -> Estimate:
    """second - first of independent estimates, from their intervals; a score that depends on no seed is a constant."""
    mean = second.mean - first.mean
    if any(each.low is None or each.high is None for each in (first, second) if each.n):
        return Estimate(mean, None, None, 0, None, ())
    ends = [
        (each.low, each.high)
        if each.low is not None and each.high is not None
        else (each.mean, each.mean)
        for each in (first, second)
    ]
    if not any(each.has_interval for each in (first, second)):
        return Estimate(mean, None, None, 0, None, ())
    below = math.hypot(second.mean - ends[1][0], ends[0][1] - first.mean)
    above = math.hypot(ends[1][1] - second.mean, first.mean - ends[0][0])
    return Estimate(mean, mean - below, mean + above, 2, None, ())


def _equal(gap: Estimate, first: Estimate, second: Estimate) -> bool | None:
    if math.isclose(gap.mean, 0.0, abs_tol=1e-12):
        return True
    if not gap.has_interval:
        return False if first.n == second.n == 0 else None
    sides = (intervals.above(gap, 0.0), intervals.below(gap, 0.0))
    return intervals.HOLDS not in sides
