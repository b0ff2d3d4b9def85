"""Intervals, differences and verdicts of a workdir with and without per-example values."""

import dataclasses
import json
import math
import time

import numpy as np
import pyarrow.parquet
import pytest
from comparison_workdir import check, make

from lm import report
from lm.report import scores as report_scores
from lm.report import verdicts
from lm.report.read import read
from lm.stats import bootstrap, hypothesis_tests, intervals, scores
from lm.stats.scores import Examples

COUNT, SEEDS = 500, (0, 1, 2)
SKILL = {"mlm": 0.62, "clm": 0.75, "nsp": 0.60, "mlm_nsp": 0.61}


def draw(skill, seeds, rng):
    """1 for correct, 0 for wrong, on examples whose difficulty is the same for all."""
    difficulty = np.random.default_rng(0).random(COUNT)
    noise = np.random.default_rng(rng)
    return {
        seed: Examples(
            (difficulty + 0.05 * noise.normal(size=COUNT) < skill + 0.003 * noise.normal()).astype(
                float
            ),
            np.ones(COUNT),
            "probe",
        )
        for seed in seeds
    }


def sides_by_entry():
    arms = {arm: draw(skill, SEEDS, index) for index, (arm, skill) in enumerate(SKILL.items(), 1)}
    return arms | {"bag of words": draw(0.70, (-1,), 11), "untrained decoder": draw(0.3, SEEDS, 12)}


def hypothesis(arm, compare, op, value, metric="accuracy"):
    return check(f"{arm} {op} {compare} {value}", arm, "probe", metric, compare, op, value)


def workdir(tmp_path, hypotheses=(), keep=True):
    rows = []
    for arm, by_seed in sides_by_entry().items():
        kind = {"bag of words": "baseline", "untrained decoder": "untrained"}.get(arm, "model")
        for seed, item in by_seed.items():
            value = float(item.totals.mean())
            rows.append(
                {
                    "arm": arm,
                    "seed": seed,
                    "task": "probe",
                    "metric": "accuracy",
                    "value": value,
                    "count": COUNT,
                    "unit": "share",
                    "better": "higher",
                    "kind": kind,
                    "own": False,
                }
            )
    made = make(tmp_path / "W", SEEDS, list(hypotheses), rows)
    if keep:
        for arm, by_seed in sides_by_entry().items():
            for seed, item in by_seed.items():
                # As a trial leaves it: the untrained model of a seed beside an arm's.
                place = (
                    made / "baselines.npz"
                    if seed < 0
                    else made
                    / "runs"
                    / f"{'clm' if arm not in SKILL else arm}-seed{seed}"
                    / "examples.npz"
                )
                before = scores.read_examples(place) if place.is_file() else {}
                scores.write_examples(place, before | {f"{arm}/probe/accuracy": item})
    return made


def test_scores_and_differences_are_the_bootstrap_s(tmp_path):
    comparison = read(workdir(tmp_path))
    assert comparison.problems == []
    sides = sides_by_entry()
    clm, mlm = (report_scores.score(comparison, arm, "probe", "accuracy") for arm in ("clm", "mlm"))
    assert clm.estimate == bootstrap.interval(sides["clm"], (0.0, 1.0)) and clm.estimate.covers == (
        "seeds",
        "test set",
    )
    expected = bootstrap.difference(sides["clm"], sides["mlm"])
    assert (
        report_scores.difference(clm, mlm) == expected.estimate
        and report_scores.contrast(clm, mlm) == expected
    )
    bag = report_scores.score(comparison, "bag of words", "probe", "accuracy")
    assert bag.estimate.n == 0 and bag.estimate.covers == ("test set",)
    assert (
        report_scores.difference(clm, bag)
        == bootstrap.difference(sides["clm"], sides["bag of words"]).estimate
    )
    untrained = report_scores.score(comparison, "untrained decoder", "probe", "accuracy")
    assert report_scores.difference(clm, untrained).n == 3
    assert (
        comparison.examples("clm", 1, "probe", "accuracy").identity == "probe"
        and comparison.examples("clm", 1, "causal", "nll") is None
    )


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (
            ("clm-seed1",),
            "probe: seed 0 and seed 2 were not evaluated on the same examples as seed 1;"
            " their differences are not paired by example",
        ),
        (
            [f"clm-seed{seed}" for seed in SEEDS],
            "probe: mlm and mlm_nsp and nsp were not evaluated on the same examples as clm;"
            " their differences are not paired by example",
        ),
    ],
)
def test_different_examples_are_reported(tmp_path, changed, problem):
    made = workdir(tmp_path)
    for run in changed:
        place = made / "runs" / run / "examples.npz"
        scores.write_examples(
            place,
            {
                name: dataclasses.replace(item, identity="x")
                for name, item in scores.read_examples(place).items()
            },
        )
    assert read(made).problems == [problem]


def test_without_examples_it_falls_back_to_wider_intervals(tmp_path):
    stored, plain = (
        read(workdir(tmp_path / name, keep=keep)) for name, keep in (("a", True), ("b", False))
    )
    assert plain.problems == [] and plain.examples_by_key == {}
    widths = []
    for comparison in (stored, plain):
        clm, mlm = (
            report_scores.score(comparison, arm, "probe", "accuracy") for arm in ("clm", "mlm")
        )
        actual = report_scores.contrast(clm, mlm)
        assert (actual.p < 0.05) == (actual.estimate.low > 0 or actual.estimate.high < 0)
        widths.append(actual.estimate.high - actual.estimate.low)
    assert widths[0] < widths[1]


@pytest.mark.parametrize(
    ("compare", "op", "value", "verdict"),
    [
        ("", "above", 0.6, "supported"),
        ("", "below", 0.6, "refuted"),
        ("mlm", "above", 0.0, "supported"),
        ("mlm", "above", 0.02, "supported"),
        ("mlm", "above", 0.4, "refuted"),
        ("mlm", "above", 0.13, "inconclusive"),
        ("mlm", "ratio_above", 1.05, "supported"),
        ("bag of words", "above", 0.0, "supported"),
        ("bag of words", "ratio_below", 1.0, "refuted"),
        ("untrained decoder", "intervals_apart_above", 0.1, "supported"),
        ("bag of words", "intervals_apart_above", 0.2, "refuted"),
    ],
)
def test_p_agrees_with_the_verdict_and_the_threshold_is_tested(
    tmp_path, compare, op, value, verdict
):
    result = verdicts.evaluate(read(workdir(tmp_path)), hypothesis("clm", compare, op, value))
    assert result.verdict == verdict, result
    assert (result.p < 0.05) == (verdict != "inconclusive")
    assert (result.effect is None) == (not compare)
    sides = sides_by_entry()
    if compare == "mlm" and op == "above":
        assert result.p == pytest.approx(
            bootstrap.difference(sides["clm"], sides["mlm"], value).p, rel=1e-4
        )


def test_all_hypotheses_are_corrected_together(tmp_path):
    hypotheses = [
        hypothesis("clm", "mlm", "above", 0.0),
        hypothesis("clm", "mlm", "above", 0.055),
        hypothesis("nsp", "mlm", "above", 0.0),
        hypothesis("clm", "mlm", "above", 0.0, metric="unknown"),
    ]
    comparison = read(workdir(tmp_path, hypotheses))
    actual = verdicts.evaluate_all(comparison)
    alone = [verdicts.evaluate(comparison, item) for item in hypotheses]
    # The hypothesis without a measurement counts in the correction, though it has no p.
    expected = hypothesis_tests.holm([item.p for item in alone[:3]] + [1.0])
    assert [item.adjusted for item in actual[:3]] == expected[:3] and actual[3].p is actual[
        3
    ].adjusted is None
    for before, after in zip(alone, actual, strict=True):
        decided = after.adjusted is not None and after.adjusted < 0.05
        assert after.verdict == (before.verdict if decided else "inconclusive")
        if before.verdict != after.verdict:
            assert "adjusted for all hypotheses" in after.reason
    assert actual[0].verdict == "supported" and actual[2].verdict == "inconclusive"


def test_holm_changes_a_verdict(tmp_path):
    weak = verdicts.HypothesisResult(
        "", "", "", "", hypothesis_tests.SUPPORTED, "", 0.03, 0.03, 1.0
    )
    assert verdicts._with_adjusted_p(weak, 0.049).verdict == "supported"
    turned = verdicts._with_adjusted_p(weak, 0.09)
    assert (
        turned.verdict == "inconclusive"
        and turned.reason == "p is 0.030 unadjusted, 0.090 adjusted for all hypotheses"
        and turned.adjusted == 0.09
    )


def test_a_side_that_diverged_is_inconclusive(tmp_path):
    """The remaining seeds are not a random sample."""
    directory = workdir(
        tmp_path, [hypothesis("clm", "mlm", "above", 0.0), hypothesis("clm", "", "above", 0.6)]
    )
    assert [item.verdict for item in verdicts.evaluate_all(read(directory))] == [
        "supported",
        "supported",
    ]
    run = directory / "runs" / "mlm-seed2"
    (run / "scores.json").unlink(missing_ok=True)
    (run / "run.json").write_text('{"status": "diverged"}')
    against, alone = verdicts.evaluate_all(read(directory))
    assert (against.verdict, alone.verdict) == ("inconclusive", "supported")
    assert against.reason.startswith("1 of ") and "runs of MLM diverged" in against.reason
    # Nor does the report name a better arm or a number of seeds that would decide it.
    text = report.write(directory).markdown.read_text()
    table = next(
        line
        for line in text.splitlines()
        if "| CLM against MLM |" in line or "| MLM against CLM |" in line
    )
    assert "? inconclusive (1 of" in table and "runs of MLM diverged" in table
    (verdict,) = [
        line
        for line in text.splitlines()
        if line.startswith("|") and "? inconclusive" in line and "Hypothesis" not in line
    ][:1]
    assert "diverged" in verdict and "seeds" not in verdict and "few test examples" not in verdict


def test_no_likelihood_is_negative(tmp_path):
    directory = make(tmp_path / "W", checks=[])
    path = directory / "results.parquet"
    rows = pyarrow.parquet.read_table(path).to_pylist()
    for row in rows:
        if (row["arm"], row["metric"]) == ("clm", "nll"):
            row["value"] = (0.01, 2.5, 0.02)[row["seed"]]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    estimate = report_scores.score(read(directory), "clm", "causal", "nll").estimate
    assert estimate.low == 0.0 and estimate.high > 3


def test_perplexity_has_the_interval_of_the_likelihood():
    actual = report_scores._perplexity([100.0, 120.0, 90.0], 0.95)
    nll = intervals.over_seeds([math.log(value) for value in (100.0, 120.0, 90.0)])
    assert (actual.mean, actual.low, actual.high) == pytest.approx(
        [math.exp(item) for item in (nll.mean, nll.low, nll.high)]
    )
    assert 0 < actual.low < actual.mean < actual.high


def test_one_seed_is_inconclusive(tmp_path):
    made = workdir(tmp_path)
    about = json.loads((made / "comparison.json").read_text())
    (made / "comparison.json").write_text(json.dumps(about | {"seeds": [0]}))
    comparison = read(made)
    comparison.rows[:] = [row for row in comparison.rows if row.seed <= 0]
    result = verdicts.evaluate(comparison, hypothesis("clm", "bag of words", "above", 0.0))
    assert (
        result.verdict == "inconclusive"
        and result.p is None
        and result.reason == "one seed gives no interval"
    )


def test_broken_and_foreign_examples_are_ignored_and_reported(tmp_path):
    made = workdir(tmp_path)
    (made / "runs" / "mlm-seed1" / "examples.npz").write_bytes(b"not a zip")
    wrong = {"clm/probe/accuracy": Examples(np.zeros(COUNT), np.ones(COUNT), "probe")}
    scores.write_examples(made / "runs" / "clm-seed0" / "examples.npz", wrong)
    comparison = read(made)
    assert any("mlm-seed1/examples.npz cannot be read" in item for item in comparison.problems)
    assert any("do not agree with 1 score" in item for item in comparison.problems)
    for arm in ("mlm", "clm"):
        actual = report_scores.score(comparison, arm, "probe", "accuracy")
        assert actual.examples == {} and actual.estimate.has_interval


def test_a_hundred_trials_are_quick(tmp_path):
    """20 arms × 5 seeds × 10 metrics of 2,000 examples: all scores and differences in seconds."""
    rng = np.random.default_rng(0)
    weights = np.full(2000, 1.0)
    arms = [
        [
            {
                seed: Examples((rng.random(2000, np.float32) < 0.6).astype(float), weights, "x")
                for seed in range(5)
            }
            for _ in range(10)
        ]
        for _ in range(20)
    ]
    begin = time.process_time()
    for arm in arms:
        for side, reference in zip(arm, arms[0], strict=True):
            bootstrap.interval(side, (0.0, 1.0))
            bootstrap.difference(side, reference)
    assert time.process_time() - begin < 10


def test_results_may_be_missing(tmp_path):
    made = workdir(tmp_path)
    (made / "results.parquet").unlink()
    assert read(made).examples_by_key == {}
