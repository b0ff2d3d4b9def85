"""Differences of two comparisons: settings, verdicts, and scores outside their intervals."""

import math
from pathlib import Path
from typing import Any

from lm.core import files
from lm.core.plain import flat
from lm.core.plugins import UserError
from lm.report import hypothesis_section, number_format, page, verdicts
from lm.report.comparison import Comparison
from lm.report.page import Heading, Page, Paragraph, Part, Table
from lm.report.read import read
from lm.report.results import Results, metric_name, task_name
from lm.report.verdicts import HypothesisResult
from lm.stats import hypothesis_tests
from lm.stats.intervals import Estimate

# Keys of comparison.json: settings of the experiment, and its data and machine.
_SETTINGS = (
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
# Without the tally of documents by name, which can be very long.
_ENVIRONMENT = (
    "data.source",
    "data.fingerprint",
    "data.splits",
    "data.tokenizer",
    "versions",
    "git",
    "machine",
    "workers",
)
_MAX_LENGTH = 80  # characters per value


def diff(first: Path, second: Path) -> str:
    """Returns the differences of two comparisons as Markdown.

    The differences are also written to diff.md in the second workdir.

    Args:
      first: workdir of the first comparison.
      second: workdir of the second comparison.

    Raises:
      UserError: a directory is not the workdir of a comparison, or the comparisons share no arm.
    """
    sides = [read(Path(workdir)) for workdir in (first, second)]
    shared = [arm for arm in sides[0].arms if arm in sides[1].arms]
    if not shared:
        arms = " and ".join(
            f"{', '.join(side.arms)} ({workdir})"
            for side, workdir in zip(sides, (first, second), strict=True)
        )
        raise UserError(
            f"the two comparisons share no arm: {arms}; give two workdirs of one experiment, or of"
            " versions of it"
        )
    results = [
        Results(side, Path(workdir)) for side, workdir in zip(sides, (first, second), strict=True)
    ]
    parts: list[Part] = [
        Table(
            [("", "l"), ("Workdir", "l"), ("Name", "l"), ("Config", "l"), ("Started", "l")],
            [
                [
                    letter,
                    str(workdir),
                    *(
                        str(side.record.get(key) or number_format.MISSING)
                        for key in ("name", "config", "started")
                    ),
                ]
                for letter, workdir, side in zip("AB", (first, second), sides, strict=True)
            ],
        ),
        *_changes(
            "Settings",
            [_settings(side) for side in sides],
            "No differences: the same arms, budget, seeds and tasks.",
        ),
        *_changes(
            "Data, versions and machine",
            [_flat(side.record, _ENVIRONMENT) for side in sides],
            "No differences.",
        ),
        *_verdicts(results),
        *_scores(results, shared),
    ]
    text = page.markdown(Page("Changes from A to B", parts))
    with files.replacing(Path(second) / "diff.md") as file:
        file.write(text)
    return text


def _settings(side: Comparison) -> dict[str, Any]:
    """The config of the experiment; of older records, the keys that they have."""
    experiment = side.record.get("experiment")
    if isinstance(experiment, dict):
        # Older records have no multiples of the budget.
        settings = {f"arms.{arm}.times": 1.0 for arm in side.arms} | flat(experiment)
        return {key: value for key, value in settings.items() if not key.startswith("hypotheses")}
    arms = {
        arm: {key: description.get(key) for key in ("label", "objective", "model", "describe")}
        for arm, description in side.arms.items()
    }
    return _flat(side.record, _SETTINGS) | flat({"arms": arms})


def _flat(record: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """The values under some keys of a record, flat."""
    return {
        field: value
        for field, value in flat(record).items()
        if any(field == key or field.startswith(key + ".") for key in keys)
    }


def _changes(title: str, sides: list[dict[str, Any]], same: str) -> list[Part]:
    first, second = sides
    rows = [
        [key, _text(first, key), _text(second, key)]
        for key in sorted(first.keys() | second.keys())
        if key not in first or key not in second or first[key] != second[key]
    ]
    return [
        Heading(title),
        Table([("Field", "l"), ("A", "l"), ("B", "l")], rows) if rows else Paragraph(same),
    ]


def _text(side: dict[str, Any], key: str) -> str:
    if key not in side:
        return number_format.MISSING
    text = str(side[key])
    return text if len(text) <= _MAX_LENGTH else text[:_MAX_LENGTH] + " …"


def _verdicts(results: list[Results]) -> list[Part]:
    """The hypotheses whose verdict or definition changed."""
    first, second = (
        {result.text: result for result in verdicts.evaluate_all(side.comparison)}
        for side in results
    )
    definitions = [
        {str(item.get("text")): item for item in side.comparison.record.get("hypotheses") or []}
        for side in results
    ]
    rows = []
    for text in dict.fromkeys([*first, *second]):
        a, b = first.get(text), second.get(text)
        same = definitions[0].get(text) == definitions[1].get(text)
        if not (a and b and a.verdict == b.verdict and same):
            rows.append([text, _verdict(a), _verdict(b)])
    both = len(first.keys() & second.keys())
    title = Heading("Changed verdicts or hypotheses")
    if not rows:
        return [title, Paragraph(f"None of {both}." if both else "Neither states a hypothesis.")]
    changed = Table([("Hypothesis", "l"), ("A", "l"), ("B", "l")], rows)
    return [title, Paragraph(f"{both} hypotheses are in both comparisons."), changed]


def _verdict(result: HypothesisResult | None) -> str:
    if result is None:
        return "not stated"
    sign = hypothesis_section.SIGNS[result.verdict]
    return (
        f"{sign} {result.verdict}: {result.measured} {result.interval}, required {result.required}"
    )


def _scores(results: list[Results], shared: list[str]) -> list[Part]:
    """All scores of arms and baselines that both comparisons have."""
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
            *(
                entry
                for entry in results[0].entries(task)
                if entry not in results[0].comparison.arms
            ),
        ]:
            one, other = (side.score(arm, task, metric) for side in results)
            if one is None or other is None or one.unit != other.unit:
                continue
            places = number_format.places([one.estimate, other.estimate], one.unit)
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
                " ".join(number_format.estimate(side.estimate, one.unit, places))
                for side in (one, other)
            ]
            change = (
                " ".join(number_format.estimate(gap, one.unit, places, signed=True))
                .removesuffix(number_format.MISSING)
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
        return [title, Paragraph("The two comparisons have no score in common.")]
    parts: list[Part] = [
        title,
        Paragraph(f"{alike} of {len(rows)} scores are equal within intervals, {apart} are not."),
    ]
    if len({(side.comparison.record.get("data") or {}).get("fingerprint") for side in results}) > 1:
        warning = (
            "The data or the tokenizer differ, and therefore the test examples: the scores are not"
            " the same quantity."
        )
        parts.append(Paragraph(warning, "warning"))
    columns = [
        ("Arm", "l"),
        ("Task and metric", "l"),
        ("A", "r"),
        ("B", "r"),
        ("B − A (of percentages: points)", "r"),
        ("Verdict", "l"),
    ]
    caption = (
        "95 % intervals. That of the difference combines both as if the runs were independent"
        " (Zou and Donner 2008), so it is too wide if they share seeds and test examples. The"
        " intervals are not corrected for multiple comparisons."
    )
    return [*parts, Table(columns, rows, caption)]


def _difference(first: Estimate, second: Estimate) -> Estimate:
    """second - first of independent estimates, from their intervals.

    A score that does not depend on a seed is a constant.
    """
    mean, sides = second.mean - first.mean, (first, second)
    if any(side.low is None or side.high is None for side in sides if side.n):
        return Estimate(mean, None, None, 0, None, ())
    ends = [
        (side.low, side.high)
        if side.low is not None and side.high is not None
        else (side.mean, side.mean)
        for side in sides
    ]
    if not any(side.has_interval for side in sides):
        return Estimate(mean, None, None, 0, None, ())
    below = math.hypot(second.mean - ends[1][0], ends[0][1] - first.mean)
    above = math.hypot(ends[1][1] - second.mean, first.mean - ends[0][0])
    return Estimate(mean, mean - below, mean + above, 2, None, ())


def _equal(gap: Estimate, first: Estimate, second: Estimate) -> bool | None:
    """Whether the difference is zero within its interval; None without an interval."""
    if math.isclose(gap.mean, 0.0, abs_tol=1e-12):
        return True
    if not gap.has_interval:
        return False if first.n == second.n == 0 else None
    sides = (hypothesis_tests.above(gap, 0.0), hypothesis_tests.below(gap, 0.0))
    return hypothesis_tests.SUPPORTED not in sides
