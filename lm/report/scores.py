"""Scores with their intervals from a comparison's rows, paired differences, and the verdict of each check."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from lm import statistics
from lm.lookup import UserError
from lm.report import figures
from lm.report.read import Comparison, Row
from lm.statistics import Estimate, Verdict

OPERATIONS = ("ratio_below", "ratio_above", "below", "above", "intervals_apart_above")


@dataclass(frozen=True, slots=True)
class Score:
    """One arm's, baseline's or untrained model's score on one metric. `values` is by seed; -1 stands for none."""

    arm: str
    values: dict[int, float]
    estimate: Estimate
    count: int  # test examples or tokens behind it, the fewest over seeds
    unit: str
    better: str
    kind: str
    error: float | None  # standard error over test examples where it is known


@dataclass(frozen=True, slots=True)
class Judged:
    """A check and what was measured, as text, and the verdict with its reason where that is not the interval."""

    text: str
    measured: str
    interval: str
    needed: str
    verdict: Verdict
    why: str = ""


def score(comparison: Comparison, arm: str, task: str, metric: str) -> Score | None:
    """The score of an arm over its finished seeds; None where nothing is measured.

    The interval covers the seeds and, for shares of a known number of examples or where the standard error is given, the test set.
    """
    rows = [row for row in comparison.rows if (row.arm, row.task, row.metric) == (arm, task, metric)]
    if not rows:
        return None
    # A row without a seed cannot stand among rows with seeds: the seeds are the finer measurement.
    seeded = [row for row in rows if row.seed >= 0] or rows
    values = {row.seed: row.value for row in seeded}
    mean = sum(values.values()) / len(values)
    first, count = seeded[0], min(row.count for row in seeded)
    errors = [row.error for row in seeded if row.error is not None]
    proportion = first.unit == "share" and 0 <= mean <= 1
    if len(errors) == len(seeded):
        error = max(errors)
        test = statistics.normal(mean, error)
    elif proportion and count > 0 and (first.kind != "baseline" or metric == "accuracy"):
        # A baseline's balanced accuracy may be that of a constant guess, the same on any test examples.
        error, test = None, statistics.wilson(mean, count)
    else:
        error, test = None, None
    limits = (0.0, 1.0) if proportion else None
    estimate = statistics.fixed(mean, test) if first.seed < 0 else statistics.over_seeds(list(values.values()), test, limits)
    return Score(arm, values, estimate, count, first.unit, first.better, first.kind, error)


def metrics(comparison: Comparison, own: bool) -> dict[str, list[str]]:
    """The metrics by task on which a trained arm was measured as its own (or as the shared) yardstick, in the file's order."""
    found: dict[str, list[str]] = {}
    for row in comparison.rows:
        if row.kind == "model" and row.own == own:
            names = found.setdefault(row.task, [])
            if row.metric not in names:
                names.append(row.metric)
    return found


def who(comparison: Comparison, task: str, own: bool | None = None) -> list[str]:
    """Who has a score on a task: arms in the comparison's order, then untrained models, then baselines."""
    kinds: dict[str, str] = {}
    for row in comparison.rows:
        if row.task == task and (own is None or row.kind != "model" or row.own == own):
            kinds.setdefault(row.arm, row.kind)
    order = {"model": 0, "untrained": 1, "baseline": 2}
    arms = list(comparison.arms)
    return sorted(kinds, key=lambda arm: (order.get(kinds[arm], 3), arms.index(arm) if arm in arms else len(arms)))


def difference(first: Score, second: Score) -> Estimate | None:
    """The paired difference first - second; None without a common seed.

    For shares the sampling of the test examples is covered by a bound (`statistics.difference_error`).
    """
    if not first.values.keys() & second.values.keys():
        return None
    error = None
    if first.error is not None and second.error is not None:
        error = (first.error**2 + second.error**2) ** 0.5
    elif first.unit == second.unit == "share" and min(first.count, second.count) > 0:
        means = [min(1.0, max(0.0, each.estimate.mean)) for each in (first, second)]
        error = statistics.difference_error(means[0], means[1], min(first.count, second.count))
    return statistics.paired(first.values, second.values, error)


def judge(comparison: Comparison, check: dict[str, Any]) -> Judged:
    """The verdict of one check of comparison.json.

    `ratio_below` and `ratio_above` compare with `value` times the score of `compare`; `below` and `above` with `value`, added to the score
    of `compare` where that is given; `intervals_apart_above` asks for the interval to lie above that of `compare` by more than `value`.
    A baseline without a seed is a constant, measured on the same tokens; a `compare` with seeds is compared seed by seed.

    Raises:
      UserError: a check without its fields, or an operation that is not one of `OPERATIONS`.
    """
    try:
        text, arm, task, metric = (str(check[key]) for key in ("text", "arm", "task", "metric"))
        other, operation, value = str(check.get("compare") or ""), str(check["op"]), float(check.get("value") or 0.0)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"a check needs text, arm, task, metric, op and a number as value, not {check!r} ({error!r})") from error
    if operation not in OPERATIONS:
        raise UserError(f"the check {text!r} has op={operation!r}; it should be one of: {', '.join(OPERATIONS)}")
    if not other and operation in ("ratio_below", "ratio_above", "intervals_apart_above"):
        raise UserError(f"the check {text!r} has op={operation!r}, which needs 'compare': the arm or baseline to compare with")
    own, against = score(comparison, arm, task, metric), score(comparison, other, task, metric) if other else None
    absent = [comparison.label(name) for name, found in ((arm, own), (other, against)) if name and found is None]
    if own is None or absent:
        shown = figures.estimate(own.estimate, own.unit) if own else (figures.MISSING, figures.MISSING)
        return Judged(text, *shown, figures.MISSING, statistics.INCONCLUSIVE, f"not measured yet: {', '.join(absent)} on {task} {metric}")
    if operation == "intervals_apart_above":
        assert against is not None
        mean, interval = figures.estimate(against.estimate, against.unit)
        needed = f"> {comparison.label(other)} {mean}" + (f" {interval}" if against.estimate.has_interval else "")
        verdict = statistics.apart_above(own.estimate, against.estimate, value)
        return _judged(text, own.estimate, own.unit, needed, verdict, against)
    sign, decide = (">", statistics.above) if operation.endswith("above") else ("<", statistics.below)
    ratio = operation.startswith("ratio")
    if against is None:
        return _judged(text, own.estimate, own.unit, f"{sign} {figures.measured(value, own.unit)}", decide(own.estimate, value), None)
    name, number = comparison.label(other), figures.measured(against.estimate.mean, own.unit)
    if against.estimate.n == 0:
        threshold = value * against.estimate.mean if ratio else value + against.estimate.mean
        how = f"{value:g} × {name} {number}" if ratio else f"{name} {number}" + (f" + {figures.gap(value, own.unit)}" if value else "")
        trivial = value == 1 if ratio else value == 0
        needed = f"{sign} {name} {number}" if trivial else f"{sign} {figures.measured(threshold, own.unit)} = {how}"
        return _judged(text, own.estimate, own.unit, needed, decide(own.estimate, threshold), None)
    if not own.values.keys() & against.values.keys():
        shown = figures.estimate(own.estimate, own.unit)
        return Judged(text, *shown, figures.MISSING, statistics.INCONCLUSIVE, f"no seed in common with {name}")
    if ratio:
        estimate = statistics.ratios(own.values, against.values)
        return _judged(text, estimate, "", f"ratio to {name} {sign} {value:g}", decide(estimate, value), against)
    gap = difference(own, against)
    assert gap is not None
    needed = f"difference from {name} {sign} {figures.gap(value, own.unit)}"
    judged = _judged(text, gap, own.unit, needed, decide(gap, value), against)
    mean, interval = figures.estimate(gap, own.unit, signed=True)
    return dataclasses.replace(judged, measured=mean + (" points" if own.unit == "share" else ""), interval=interval)


def _judged(text: str, estimate: Estimate, unit: str, needed: str, verdict: Verdict, against: Score | None) -> Judged:
    mean, interval = figures.estimate(estimate, unit)
    single = estimate.n == 1 or (against is not None and against.estimate.n == 1)
    why = "one seed gives no interval" if single else ""
    return Judged(text, mean, interval, needed, verdict, why)


def rows_of(comparison: Comparison, task: str, metric: str) -> list[Row]:
    """The rows behind a metric, for counts and units."""
    return [row for row in comparison.rows if (row.task, row.metric) == (task, metric)]
