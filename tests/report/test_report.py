"""The report of a synthetic comparison, number by number."""

import math
import re

import numpy as np
import pytest
from comparison_workdir import SEEDS, TOKENS, check, edit, make, rows_of, write_rows
from report_reader import flat, markdown_tables, section

from lm import report


@pytest.fixture(scope="module")
def written_report(tmp_path_factory):
    directory = make(tmp_path_factory.mktemp("report") / "W")
    return directory, report.write(directory)


def test_verdicts_and_numbers(written_report):
    directory, written = written_report
    assert [result.verdict for result in written.hypotheses] == ["supported"] * 6 + ["refuted"]
    assert written.headline == "7 hypotheses: 6 supported, 1 refuted." and not written.problems
    text = written.markdown.read_text()
    top = flat(markdown_tables(section(text, "Verdict")))[0]
    nll = [row["value"] for row in rows_of(SEEDS) if row["arm"] == "clm" and row["metric"] == "nll"]
    half = 4.302653 * np.std(nll, ddof=1) / math.sqrt(3)
    expected = [
        f"{np.mean(nll):.2f}",
        f"[{np.mean(nll) - half:.2f}, {np.mean(nll) + half:.2f}]",
        "< 5.22 = 0.8 × unigram 6.52",
    ]
    assert top[1] == [
        "CLM is at least 20 % below the unigram baseline",
        "✓ supported",
        *expected,
        "< 0.001",
        "< 0.001",
        top[1][7],
    ]
    assert float(top[1][7].replace("−", "-")) < -10, "many standard deviations below"
    assert (
        top[2][4] == "< bigram 4.97"
        and top[4][4] == "> 9.60 % = 2 × unigram 4.80 %"
        and top[5][4] == "> 60.0 %"
    )
    assert top[7][1] == "✗ refuted" and top[7][4] == "> bag of words 63.2 %"


def test_sections_are_in_order(written_report):
    titles = re.findall("^## (.*)$", written_report[1].markdown.read_text(), re.MULTILINE)
    assert titles == [
        "Verdict",
        "What was compared",
        "Budgets",
        "Learning curves",
        "The shared evaluation task",
        "Differences from the reference arm",
        "Scores by shared task",
        "Objective-specific evaluation tasks",
        "Shared evaluation tasks in full",
        "Energy and CO2e",
        "Excluded runs",
        "Reproduce",
        "Data",
        "Machine and versions",
        "How to read this report",
    ]
    assert re.findall("<h2>(.*?)</h2>", written_report[1].html.read_text()) == titles


def test_budgets(written_report):
    table = flat(markdown_tables(section(written_report[1].markdown.read_text(), "Budgets")))[0]
    assert table[0][2:5] == ["Token positions (matched)", "Loss targets", "Training FLOPs"]
    assert table[1] == [
        "MLM",
        "512",
        "1,048,576",
        "157,286",
        "12 TFLOP",
        "59 s",
        "18,000",
        "3.12 %",
        "0.40 %",
    ]


def test_unmatched_budget_is_reported(written_report, tmp_path):
    directory = make(tmp_path / "W")
    assert "not matched" not in section(written_report[1].markdown.read_text(), "Budgets")
    edit(directory / "runs/nsp-seed1/run.json", tokens=TOKENS // 2)
    assert "differ in this quantity by up to 100 %, so they are not matched" in section(
        report.write(directory).markdown.read_text(), "Budgets"
    )


def test_paired_differences(written_report):
    table = flat(
        markdown_tables(
            section(written_report[1].markdown.read_text(), "Differences from the reference arm")
        )
    )[0]
    actual = {row[0]: row for row in table[1:]}
    assert len(actual) == 6 + 4
    values = {
        arm: [
            r["value"]
            for r in rows_of(SEEDS)
            if (r["arm"], r["metric"]) == (arm, "balanced_accuracy")
        ]
        for arm in ("mlm", "clm")
    }
    differences = [100 * (a - b) for a, b in zip(values["mlm"], values["clm"], strict=True)]
    assert actual["MLM against CLM"][1] == ", ".join(
        f"{value:+.1f}".replace("-", "−") for value in differences
    )
    assert (
        actual["MLM against CLM"][-1] == "CLM better"
        and actual["MLM against MLM + NSP"][-1] == "? inconclusive"
    )
    assert actual["CLM against untrained decoder"][-1] == "CLM better"


def test_better_baselines_are_listed_beside_the_verdict(written_report, tmp_path):
    table = flat(markdown_tables(section(written_report[1].markdown.read_text(), "Verdict")))[1]
    assert [row[:2] + row[3:] for row in table[1:]] == [
        ["MLM", "masked token, cross-entropy", "bigram", "4.98"],
        ["NSP", "next sentence, accuracy", "TF-IDF overlap", "85.3 %"],
        ["MLM + NSP", "masked token, cross-entropy", "bigram", "4.98"],
        ["MLM + NSP", "next sentence, accuracy", "TF-IDF overlap", "85.3 %"],
        ["CLM (best arm)", "linear probe, balanced accuracy", "bag of words", "63.2 %"],
    ]
    alone = make(tmp_path / "W", rows=[row for row in rows_of(SEEDS) if row["kind"] != "baseline"])
    assert "simple baseline" not in report.write(alone).markdown.read_text()


def test_bytes_are_not_called_tokens(written_report):
    text = section(written_report[1].markdown.read_text(), "Objective-specific evaluation tasks")
    assert (
        "On 103,412 tokens (401,388 bytes) of documents" in text
        and "On 15,511 tokens of" in text
        and "On 2,000 examples of" in text
    )


def test_a_constant_guess_has_an_interval_for_its_accuracy_only(written_report):
    table = flat(
        markdown_tables(
            section(written_report[1].markdown.read_text(), "Shared evaluation tasks in full")
        )
    )[0]
    row = next(row for row in table if row[0] == "majority")
    assert row[2:4] == ["12.5 %", "–"] and row[4] == "17.5 %" and row[5].startswith("[")


def test_learning_rates_are_shown(tmp_path):
    directory = make(tmp_path / "W")
    for seed in SEEDS:
        edit(
            directory / f"runs/clm-seed{seed}/run.json",
            config={"optimizer": {"learning_rate": 1e-4}},
        )
        edit(directory / f"runs/nsp-seed{seed}/run.json", config={})
    table = flat(
        markdown_tables(section(report.write(directory).markdown.read_text(), "What was compared"))
    )[0]
    assert [row[4] for row in table] == ["Learning rate", "0.003", "0.0001", "–", "0.003"]


def test_a_fraction_stays_within_its_limits(tmp_path):
    rows = [
        row | ({"value": [0.99, 1.0, 0.97][row["seed"]]} if row["arm"] == "nsp" else {})
        for row in rows_of(SEEDS)
    ]
    assert report.write(make(tmp_path / "W", rows=rows)).hypotheses[4].interval.endswith(", 100.0]")


def test_standard_errors_are_used_if_given(written_report, tmp_path):
    directory = make(tmp_path / "W")
    narrow = written_report[1].hypotheses[0].interval
    write_rows(
        directory,
        [row | {"error": 0.2 if row["unit"] == "nats/token" else None} for row in rows_of(SEEDS)],
    )
    wide = report.write(directory).hypotheses[0].interval
    width = [
        float(high) - float(low)
        for low, high in (re.findall(r"[\d.]+", text) for text in (narrow, wide))
    ]
    assert width[1] == pytest.approx(2 * 1.96 * 0.2, abs=0.1) and width[0] < 0.1


def test_comparison_with_a_seeded_other_is_paired(tmp_path):
    checks = [
        check("difference", "clm", "probe", "balanced_accuracy", "mlm", "above", 0.05),
        check("ratio", "mlm", "masked", "ce", "mlm_nsp", "ratio_below", 0.9),
        check("arm unknown", "elmo", "probe", "balanced_accuracy", "", "above", 0.05),
    ]
    first, second, third = report.write(make(tmp_path / "W", checks=checks)).hypotheses
    assert first.verdict == "supported" and first.required == "difference from MLM > 5.00 points"
    assert first.measured == "+9.81 points" and first.interval.startswith("[+")
    assert (
        second.verdict == "refuted"
        and second.required == "ratio to MLM + NSP < 0.9"
        and second.measured.startswith("1.0")
    )
    assert third.verdict == "inconclusive" and "elmo" in third.reason
