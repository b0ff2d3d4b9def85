"""Reports of comparisons that are unfinished, damaged, or have one seed."""

import json
import math
import re

import pytest
from comparison_workdir import CHECKS, TOKENS, edit, make, write_rows
from report_reader import Reader, flat, markdown_tables, section

from lm import report
from lm.core.plugins import UserError
from lm.report.read import read


@pytest.fixture(scope="module")
def written_report(tmp_path_factory):
    directory = make(tmp_path_factory.mktemp("report") / "W")
    return directory, report.write(directory)


def test_partial_results_still_give_a_report(tmp_path):
    directory = make(tmp_path / "W", seconds=None)
    edit(directory / "runs/mlm-seed1/run.json", status="diverged", error="loss is nan at step 17")
    edit(directory / "runs/nsp-seed0/run.json", status="failed", error="out of memory")
    (directory / "runs/nsp-seed1/run.json").unlink()
    for path in (directory / "runs/nsp-seed2").iterdir():
        path.unlink()
    (directory / "runs/nsp-seed2").rmdir()
    (directory / "runs/clm-seed2/run.json").write_text('{"status": "do')
    with (directory / "runs/clm-seed0/metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "split": "validation", "lo')
    written = report.write(directory)
    text = written.markdown.read_text()
    states = [
        row[1:3] + row[4:] for row in flat(markdown_tables(section(text, "Excluded runs")))[0][1:]
    ]
    assert states == [
        ["1", "diverged", "loss is nan at step 17"],
        ["2", "unreadable", "–"],
        ["0", "failed", "out of memory"],
        ["1", "not finished", "–"],
        ["2", "not started", "–"],
    ]
    problems = " ".join(written.problems)
    assert (
        "5 of 12 runs have no result (2 not finished yet)" in problems
        and "clm-seed2/run.json is not JSON" in problems
    )
    assert (
        "clm-seed0/metrics.jsonl: skipped 1 unreadable line of 22" in problems
        and "rows of unfinished runs" in problems
    )
    assert all(part in text for part in ("This report is incomplete", "not finished"))
    nsp = written.hypotheses[4]
    assert (
        nsp.verdict == "inconclusive"
        and nsp.measured == "–"
        and "not measured yet: NSP" in nsp.reason
    )
    seeds = {
        row[0]: row[1]
        for row in flat(markdown_tables(section(text, "Objective-specific evaluation tasks")))[0]
    }
    assert seeds["MLM"] == "2" and seeds["MLM + NSP"] == "3"


def test_a_trial_that_failed_after_training_is_not_counted(tmp_path):
    directory = make(tmp_path / "W")
    for name in ("clm-seed0", "mlm-seed1", "nsp-seed2"):
        (directory / f"runs/{name}/scores.json").unlink()
    (directory / "runs/clm-seed0/error.json").write_text(
        json.dumps({"status": "failed", "error": "probe: out of memory", "at": "now"})
    )
    (directory / "runs/nsp-seed2/error.json").write_text("{")
    # An error of an earlier attempt does not matter once the run is scored.
    (directory / "runs/mlm-seed0/error.json").write_text(
        json.dumps({"status": "failed", "error": "old"})
    )
    written = report.write(directory)
    text = written.markdown.read_text()
    states = [
        row[:3] + row[4:] for row in flat(markdown_tables(section(text, "Excluded runs")))[0][1:]
    ]
    assert states == [
        ["MLM", "1", "not finished", "–"],
        ["CLM", "0", "failed", "probe: out of memory"],
        ["NSP", "2", "failed", "–"],
    ]
    assert "3 of 12 runs have no result (1 not finished yet)" in " ".join(written.problems)
    assert [
        [run.seed for run in read(directory).finished(arm)] for arm in ("mlm", "clm", "nsp")
    ] == [
        [0, 2],
        [1, 2],
        [0, 1],
    ]
    seeds = {
        row[0]: row[1]
        for row in flat(markdown_tables(section(text, "Shared evaluation tasks in full")))[0]
    }
    assert (seeds["MLM"], seeds["CLM"], seeds["NSP"]) == ("2", "2", "2")


def test_nothing_finished_yet(tmp_path):
    directory = make(tmp_path / "W")
    (directory / "results.parquet").unlink()
    for path in (directory / "runs").glob("*/run.json"):
        path.unlink()
    written = report.write(directory)
    assert written.picture is None and not (directory / "picture.png").exists()
    assert "All 7 hypotheses are inconclusive." == written.headline
    text = written.markdown.read_text()
    assert (
        "12 of 12 runs have no result" in text
        and "no results.parquet yet" in text
        and "picture.png" not in text
    )
    assert flat(Reader(written.html.read_text()).tables) == flat(markdown_tables(text))


def test_one_seed_gives_no_interval(tmp_path):
    written = report.write(make(tmp_path / "W", seeds=[7]))
    assert {item.verdict for item in written.hypotheses} == {"inconclusive"}
    assert all(
        item.interval == "none: one seed" and "one seed" in item.reason
        for item in written.hypotheses
    )
    assert "With one seed there is no interval." in written.markdown.read_text()


def test_the_later_line_counts_after_a_resume(tmp_path):
    directory = make(tmp_path / "W")
    with (directory / "runs/clm-seed0/metrics.jsonl").open("a") as file:
        file.write(
            json.dumps({"step": 512, "tokens": TOKENS, "split": "validation", "loss": 1.5}) + "\n"
        )
        file.write(
            json.dumps({"step": 600, "tokens": 2 * TOKENS, "split": "validation", "loss": math.nan})
            + "\n"
        )
    run = next(run for run in read(directory).runs if (run.arm, run.seed) == ("clm", 0))
    assert run.validation[-1] == (TOKENS, 1.5) and len(run.validation) == 20


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "comparison.json").unlink(), "no comparison.json"),
        (lambda d: (d / "comparison.json").write_text("{"), "is not JSON"),
        (lambda d: (d / "comparison.json").write_text("[]"), "'arms'"),
        (lambda d: edit(d / "comparison.json", arms={"clm": 3}), "each of 'arms'"),
        (lambda d: edit(d / "comparison.json", seeds=["a"]), "each of 'seeds'"),
        (
            lambda d: edit(d / "comparison.json", hypotheses=[{"text": "x"}]),
            "a hypothesis needs text, arm",
        ),
        (
            lambda d: edit(d / "comparison.json", hypotheses=[CHECKS[0] | {"op": "near"}]),
            "ratio_below, ratio_above",
        ),
        (
            lambda d: edit(d / "comparison.json", hypotheses=[CHECKS[0] | {"compare": ""}]),
            "needs 'compare'",
        ),
        (
            lambda d: edit(d / "comparison.json", hypotheses=[CHECKS[0] | {"value": "much"}]),
            "a number as value",
        ),
        (lambda d: (d / "results.parquet").write_bytes(b"no parquet"), "cannot be read"),
        (lambda d: write_rows(d, [{"arm": "clm", "seed": 0}]), "lacks the columns task"),
    ],
)
def test_bad_input_is_a_user_error_and_writes_nothing(tmp_path, damage, message):
    directory = make(tmp_path / "W")
    damage(directory)
    with pytest.raises(UserError, match=re.escape(message)):
        report.write(directory)
    assert not (directory / "report.html").exists() and not (directory / "report.md").exists()


def test_no_section_is_empty(written_report, tmp_path):
    assert "in the figure above (picture.png)" in section(
        written_report[1].markdown.read_text(), "The shared evaluation task"
    )
    directory = make(tmp_path / "W")
    for path in (directory / "runs").glob("*/metrics.jsonl"):
        path.unlink()
    text = report.write(directory).markdown.read_text()
    assert "(picture.png)" in section(
        text, "The shared evaluation task"
    ) and "picture.png" not in section(text, "Learning curves")
    assert not re.search("^## .*\n\n## ", text, re.MULTILINE)
