"""The report of synthetic comparisons: whole, partial and broken; what it says, that its two forms agree, that it needs no network."""

import html
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from comparison_workdir import CHECKS, SEEDS, TOKENS, check, edit, make, rows_of, write_rows

from lm import report
from lm.lookup import UserError
from lm.report import figures
from lm.report.page import Table
from lm.report.read import read
from lm.statistics import Estimate


class Reader(HTMLParser):
    """Collects the tables (rows of cell texts), the addresses that would be loaded, the ids and the unclosed tags of a page."""

    EMPTY = ("meta", "br", "path", "use")

    def __init__(self, text):
        super().__init__()
        self.tables, self.loads, self.ids, self.open, self.cell, self.tags = [], [], [], [], None, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in self.EMPTY:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data", "srcset", "action", "poster") and not value.startswith("#"):
                self.loads.append(value)
            if name == "id":
                self.ids.append(value)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.cell = ""

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.EMPTY:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag in self.EMPTY:
            return
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()
        if tag in ("td", "th"):
            self.tables[-1][-1].append(self.cell)
            self.cell = None

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data


def markdown_tables(text):
    """The tables of a Markdown text, unescaped; empty head lines left out."""
    tables, inside = [], False
    for line in text.splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        if not inside:
            tables.append([])
        inside = True
        cells = [html.unescape(re.sub(r"\\(.)", r"\1", cell.strip())) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if any(cells) and not all(re.fullmatch("-+:?", cell) for cell in cells):
            tables[-1].append(cells)
    return tables


def flat(tables):
    return [[[" ".join(cell.split()) for cell in row] for row in table] for table in tables]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = make(tmp_path_factory.mktemp("report") / "W")
    return directory, report.write(directory)


def section(text, title):
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


def test_verdicts_and_numbers(whole):
    directory, written = whole
    assert [each.verdict for each in written.checks] == ["holds"] * 6 + ["does not hold"]
    assert written.headline == "6 of 7 checks hold; 1 does not hold." and not written.problems
    text = written.markdown.read_text()
    top = flat(markdown_tables(section(text, "Verdict")))[0]
    nll = [row["value"] for row in rows_of(SEEDS) if row["arm"] == "clm" and row["metric"] == "nll"]
    half = 4.302653 * np.std(nll, ddof=1) / math.sqrt(3)
    expected = [f"{np.mean(nll):.2f}", f"[{np.mean(nll) - half:.2f}, {np.mean(nll) + half:.2f}]", "< 5.22 = 0.8 × unigram 6.52"]
    assert top[1] == ["CLM is at least 20 % below the unigram baseline", "✓ holds", *expected]
    assert top[2][-1] == "< bigram 4.97" and top[4][-1] == "> 9.60 % = 2 × unigram 4.80 %" and top[5][-1] == "> 60.0 %"
    assert top[7][1] == "✗ does not hold" and top[7][-1] == "> bag of words 63.2 %"


def test_sections_come_in_order(whole):
    titles = re.findall("^## (.*)$", whole[1].markdown.read_text(), re.MULTILINE)
    assert titles == [
        "Verdict", "What was compared", "Budgets", "Learning curves", "The shared yardstick", "Each objective on its own yardstick",
        "The shared yardstick in numbers", "Paired differences", "Runs not counted", "Reproduce", "Data", "Machine and versions",
        "How to read this",
    ]  # fmt: skip
    assert re.findall("<h2>(.*?)</h2>", whole[1].html.read_text()) == titles


def test_budgets(whole):
    table = flat(markdown_tables(section(whole[1].markdown.read_text(), "Budgets")))[0]
    assert table[0][1:4] == ["Token positions (matched)", "Loss-bearing targets", "Training FLOPs"]
    assert table[1] == ["MLM", "1,048,576", "157,286", "12 TFLOP", "59 s", "18,000", "3.12 %", "0.40 %"]


def test_unmatched_budget_is_said(whole, tmp_path):
    directory = make(tmp_path / "W")
    assert "not matched" not in section(whole[1].markdown.read_text(), "Budgets")
    edit(directory / "runs/nsp-seed1/run.json", tokens=TOKENS // 2)
    assert "differ in it by up to 100 %: they are not matched" in section(report.write(directory).markdown.read_text(), "Budgets")


def test_every_table_is_the_same_in_both_forms(whole):
    page, text = Reader(whole[1].html.read_text()), whole[1].markdown.read_text()
    assert flat(page.tables) == flat(markdown_tables(text))
    assert len(page.tables) == 11 and sum(len(table) for table in page.tables) > 50


def test_page_is_self_contained_and_well_formed(whole):
    text = whole[1].html.read_text()
    page = Reader(text)
    assert page.loads == [] and page.open == []
    assert not {"script", "link", "iframe", "img", "object", "base"} & set(page.tags)
    assert "http:" not in text.replace("http-equiv", "") and "https:" not in text and "@import" not in text
    assert all(address.startswith("#") for address in re.findall(r"url\((.*?)\)", text))
    assert len(page.ids) == len(set(page.ids)) and page.tags.count("svg") == 5
    used = set(re.findall(r"url\(#(.*?)\)", text)) | set(re.findall(r'href="#(.*?)"', text))
    assert used and used <= set(page.ids), "a clip path or marker that is not there draws nothing"


def test_pictures_follow_light_and_dark(whole):
    text = whole[1].html.read_text()
    pictures = "".join(re.findall("<svg.*?</svg>", text, re.DOTALL))
    named = set(re.findall(r"var\(--(\w+)\)", pictures))
    assert {"ink", "faint", "rule", "arm0", "arm1", "arm2", "arm3"} <= named
    assert not re.findall(r"#[0-9a-fA-F]{6}\b", pictures), "a colour of its own would not follow the page's"
    for start in (":root{", "@media (prefers-color-scheme:dark){:root{", "@media print{:root{"):
        assert named <= set(re.findall(r"--(\w+):", text.split(start)[1].split("}")[0]))


def test_curves_show_baselines_of_the_same_quantity_only(whole):
    pictures = re.findall("<svg.*?</svg>", whole[1].html.read_text(), re.DOTALL)
    assert ["unigram 6.5" in picture for picture in pictures] == [True, True, False, False, False]
    assert "bag of words" in pictures[-1] and "untrained encoder" in pictures[-1]


def test_picture_is_a_png_with_colours(whole):
    import matplotlib.image

    pixels = matplotlib.image.imread(whole[1].picture)
    assert pixels.shape[0] > 600 and pixels.shape[1] > 1000
    assert pixels[0, 0, :3].tolist() == [1, 1, 1]
    blue = np.abs(pixels[..., :3] - np.array([0x00, 0x72, 0xB2]) / 255).max(-1) < 0.02
    assert blue.sum() > 200
    assert ((pixels[..., :3] * 255).round() == 1).all(-1).sum() == 0, "a stand-in colour was not replaced"


def test_paired_differences(whole):
    table = flat(markdown_tables(section(whole[1].markdown.read_text(), "Paired differences")))[0]
    found = {row[0]: row for row in table[1:]}
    assert len(found) == 6 + 4
    values = {arm: [r["value"] for r in rows_of(SEEDS) if (r["arm"], r["metric"]) == (arm, "balanced_accuracy")] for arm in ("mlm", "clm")}
    each = [100 * (a - b) for a, b in zip(values["mlm"], values["clm"], strict=True)]
    assert found["MLM against CLM"][1] == ", ".join(f"{value:+.1f}".replace("-", "−") for value in each)
    assert found["MLM against CLM"][-1] == "CLM better" and found["MLM against MLM + NSP"][-1] == "? inconclusive"
    assert found["CLM against untrained decoder"][-1] == "CLM better"


def test_untidy_text_is_escaped(tmp_path):
    arms = {"clm": {"label": "<b>a|b</b> $x$ `c` 中文", "objective": "clm", "model": "decoder", "describe": '*d* [e](f) & "g"'}}
    directory = make(tmp_path / "W", arms=arms, name="<script>alert(1)</script>", question="1. is it\n- so?", checks=[])
    written = report.write(directory)
    text, page = written.markdown.read_text(), Reader(written.html.read_text())
    assert "script" not in page.tags and "b" not in page.tags and "<script" not in text and "<b>" not in text
    assert "\n1\\. is it - so?\n" in text and r"\[e\](f)" in text
    assert flat(page.tables) == flat(markdown_tables(text))
    assert page.tables[0][1][0] == "<b>a|b</b> $x$ `c` 中文"
    fence = re.search("(?m)^(`{3,})json$", text)[1]
    assert len(fence) == 4 and "a|b <i> ``` *" in text, "the config's own backticks should not end the block"


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
    states = [row[1:3] + row[4:] for row in flat(markdown_tables(section(text, "Runs not counted")))[0][1:]]
    assert states == [
        ["1", "diverged", "loss is nan at step 17"], ["2", "unreadable", "–"], ["0", "failed", "out of memory"],
        ["1", "not finished", "–"], ["2", "not started", "–"],
    ]  # fmt: skip
    problems = " ".join(written.problems)
    assert "5 of 12 runs give no result (2 not finished yet)" in problems and "clm-seed2/run.json is not JSON" in problems
    assert "clm-seed0/metrics.jsonl: 1 unreadable" in problems and "rows of runs that are not done left out" in problems
    assert all(part in text for part in ("This report is incomplete", "not finished"))
    nsp = written.checks[4]
    assert nsp.verdict == "inconclusive" and nsp.measured == "–" and "not measured yet: NSP" in nsp.why
    seeds = {row[0]: row[1] for row in flat(markdown_tables(section(text, "Each objective on its own yardstick")))[0]}
    assert seeds["MLM"] == "2" and seeds["MLM + NSP"] == "3"


def test_a_trial_that_failed_after_training_is_not_counted(tmp_path):
    directory = make(tmp_path / "W")
    for name in ("clm-seed0", "mlm-seed1", "nsp-seed2"):
        (directory / f"runs/{name}/scores.json").unlink()
    (directory / "runs/clm-seed0/error.json").write_text(json.dumps({"status": "failed", "error": "probe: out of memory", "at": "now"}))
    (directory / "runs/nsp-seed2/error.json").write_text("{")
    # One from an earlier try says nothing about a run that has been scored since.
    (directory / "runs/mlm-seed0/error.json").write_text(json.dumps({"status": "failed", "error": "old"}))
    written = report.write(directory)
    text = written.markdown.read_text()
    states = [row[:3] + row[4:] for row in flat(markdown_tables(section(text, "Runs not counted")))[0][1:]]
    assert states == [["MLM", "1", "not finished", "–"], ["CLM", "0", "failed", "probe: out of memory"], ["NSP", "2", "failed", "–"]]
    assert "3 of 12 runs give no result (1 not finished yet)" in " ".join(written.problems)
    assert [[run.seed for run in read(directory).of(arm)] for arm in ("mlm", "clm", "nsp")] == [[0, 2], [1, 2], [0, 1]]
    seeds = {row[0]: row[1] for row in flat(markdown_tables(section(text, "The shared yardstick in numbers")))[0]}
    assert (seeds["MLM"], seeds["CLM"], seeds["NSP"]) == ("2", "2", "2")


def test_baselines_that_are_ahead_are_named_beside_the_verdict(whole, tmp_path):
    verdict, page = section(whole[1].markdown.read_text(), "Verdict"), whole[1].html.read_text()
    sentences = [html.unescape(line[2:]) for line in verdict.split("What simple baselines reach:")[1].strip().splitlines()]
    assert [re.sub(r"[\d.]+( %)? against", "x against", each) for each in sentences] == [
        "MLM is behind its bigram baseline: cross-entropy x against 4.98.",
        "NSP is behind its TF-IDF overlap baseline: accuracy x against 85.3 %.",
        "MLM + NSP is behind its bigram baseline on the task masked token: cross-entropy x against 4.98.",
        "MLM + NSP is behind its TF-IDF overlap baseline on the task next sentence: accuracy x against 85.3 %.",
        "On the shared yardstick, linear probe, the best arm, CLM, is behind the bag of words baseline: "
        "balanced accuracy x against 63.2 %.",
    ]
    assert all(f"<li>{html.escape(each)}</li>" in page for each in sentences)
    alone = make(tmp_path / "W", rows=[row for row in rows_of(SEEDS) if row["kind"] != "baseline"])
    assert "simple baselines" not in report.write(alone).markdown.read_text()


def test_every_section_says_something(whole, tmp_path):
    assert "lowest part of the picture above (picture.png)" in section(whole[1].markdown.read_text(), "The shared yardstick")
    directory = make(tmp_path / "W")
    for path in (directory / "runs").glob("*/metrics.jsonl"):
        path.unlink()
    text = report.write(directory).markdown.read_text()
    assert "(picture.png)" in section(text, "The shared yardstick") and "picture.png" not in section(text, "Learning curves")
    assert not re.search("^## .*\n\n## ", text, re.MULTILINE)


def test_bytes_are_not_called_tokens(whole):
    text = section(whole[1].markdown.read_text(), "Each objective on its own yardstick")
    assert "On 103,412 tokens (401,388 bytes) of documents" in text and "On 15,511 tokens of" in text and "On 2,000 examples of" in text


def test_a_constant_guess_has_an_interval_for_its_accuracy_only(whole):
    table = flat(markdown_tables(section(whole[1].markdown.read_text(), "The shared yardstick in numbers")))[0]
    row = next(row for row in table if row[0] == "majority")
    assert row[2:4] == ["12.5 %", "–"] and row[4] == "17.5 %" and row[5].startswith("[")


def test_learning_rates_are_shown(tmp_path):
    directory = make(tmp_path / "W")
    for seed in SEEDS:
        edit(directory / f"runs/clm-seed{seed}/run.json", config={"optimizer": {"learning_rate": 1e-4}})
        edit(directory / f"runs/nsp-seed{seed}/run.json", config={})
    table = flat(markdown_tables(section(report.write(directory).markdown.read_text(), "What was compared")))[0]
    assert [row[4] for row in table] == ["Learning rate", "0.003", "0.0001", "–", "0.003"]


def test_nothing_finished_yet(tmp_path):
    directory = make(tmp_path / "W")
    (directory / "results.parquet").unlink()
    for path in (directory / "runs").glob("*/run.json"):
        path.unlink()
    written = report.write(directory)
    assert written.picture is None and not (directory / "picture.png").exists()
    assert "0 of 7 checks hold; 7 are inconclusive." == written.headline
    text = written.markdown.read_text()
    assert "12 of 12 runs give no result" in text and "no results.parquet yet" in text and "picture.png" not in text
    assert flat(Reader(written.html.read_text()).tables) == flat(markdown_tables(text))


def test_one_seed_gives_no_interval(tmp_path):
    written = report.write(make(tmp_path / "W", seeds=[7]))
    assert {each.verdict for each in written.checks} == {"inconclusive"}
    assert all(each.interval == "none: one seed" and "one seed" in each.why for each in written.checks)
    assert "With one seed there is none." in written.markdown.read_text()


def test_a_share_stays_within_its_limits(tmp_path):
    rows = [row | ({"value": [0.99, 1.0, 0.97][row["seed"]]} if row["arm"] == "nsp" else {}) for row in rows_of(SEEDS)]
    assert report.write(make(tmp_path / "W", rows=rows)).checks[4].interval.endswith(", 100.0]")


def test_resumed_run_counts_the_later_line(tmp_path):
    directory = make(tmp_path / "W")
    with (directory / "runs/clm-seed0/metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 512, "tokens": TOKENS, "split": "validation", "loss": 1.5}) + "\n")
        file.write(json.dumps({"step": 600, "tokens": 2 * TOKENS, "split": "validation", "loss": math.nan}) + "\n")
    run = next(run for run in read(directory).runs if (run.arm, run.seed) == ("clm", 0))
    assert run.validation[-1] == (TOKENS, 1.5) and len(run.validation) == 20


def test_standard_errors_enter_where_given(whole, tmp_path):
    directory = make(tmp_path / "W")
    narrow = whole[1].checks[0].interval
    write_rows(directory, [row | {"error": 0.2 if row["unit"] == "nats/token" else None} for row in rows_of(SEEDS)])
    wide = report.write(directory).checks[0].interval
    width = [float(high) - float(low) for low, high in (re.findall(r"[\d.]+", text) for text in (narrow, wide))]
    assert width[1] == pytest.approx(2 * 1.96 * 0.2, abs=0.1) and width[0] < 0.1


def test_comparison_with_a_seeded_other_is_paired(tmp_path):
    checks = [
        check("difference", "clm", "probe", "balanced_accuracy", "mlm", "above", 0.05),
        check("ratio", "mlm", "masked", "ce", "mlm_nsp", "ratio_below", 0.9),
        check("arm unknown", "elmo", "probe", "balanced_accuracy", "", "above", 0.05),
    ]
    first, second, third = report.write(make(tmp_path / "W", checks=checks)).checks
    assert first.verdict == "holds" and first.needed == "difference from MLM > 5.00 points"
    assert first.measured == "+9.81 points" and first.interval.startswith("[+")
    assert second.verdict == "does not hold" and second.needed == "ratio to MLM + NSP < 0.9" and second.measured.startswith("1.0")
    assert third.verdict == "inconclusive" and "elmo" in third.why


def test_a_newer_report_replaces_the_older_whole(tmp_path):
    directory = make(tmp_path / "W")
    first = report.write(directory).html.read_bytes()
    assert report.write(str(directory)).html.read_bytes() == first, "the same results should give the same bytes"
    assert not list(directory.glob("*.part"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "comparison.json").unlink(), "no comparison.json"),
        (lambda d: (d / "comparison.json").write_text("{"), "is not JSON"),
        (lambda d: (d / "comparison.json").write_text("[]"), "'arms'"),
        (lambda d: edit(d / "comparison.json", arms={"clm": 3}), "each of 'arms'"),
        (lambda d: edit(d / "comparison.json", seeds=["a"]), "each of 'seeds'"),
        (lambda d: edit(d / "comparison.json", hypotheses=[{"text": "x"}]), "a check needs text, arm"),
        (lambda d: edit(d / "comparison.json", hypotheses=[CHECKS[0] | {"op": "near"}]), "ratio_below, ratio_above"),
        (lambda d: edit(d / "comparison.json", hypotheses=[CHECKS[0] | {"compare": ""}]), "needs 'compare'"),
        (lambda d: edit(d / "comparison.json", hypotheses=[CHECKS[0] | {"value": "much"}]), "a number as value"),
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (figures.plain(4.8567), "4.86"), (figures.plain(0.99996), "1.00"), (figures.plain(1234.5), "1,230"),
        (figures.plain(-0.0123), "−0.0123"),
        (figures.plain(0), "0.00"), (figures.plain(1.234e-6), "1.23e−06"), (figures.plain(math.nan), "–"),
        (figures.count(1048576.2), "1,048,576"),
        (figures.flops(1.2e13), "12 TFLOP"), (figures.flops(9.999e14), "1 PFLOP"), (figures.flops(3.14159e18), "3.14 EFLOP"),
        (figures.flops(None), "–"), (figures.duration(0.42), "0.42 s"), (figures.duration(59.7), "1 min 00 s"),
        (figures.duration(702), "11 min 42 s"), (figures.duration(11100), "3 h 05 min"), (figures.share(0.127), "12.7 %"),
    ],
)  # fmt: skip
def test_numbers_as_text(text, expected):
    assert text == expected


def test_interval_and_mean_have_the_same_decimals():
    assert figures.estimate(Estimate(4.8612, 4.8589, 4.8635, 3, 0.001, ("seeds",)), "nats/token") == ("4.861", "[4.859, 4.864]")
    assert figures.estimate(Estimate(0.581, 0.55, 0.612, 3, 0.01, ("seeds",)), "share") == ("58.1 %", "[55.0, 61.2]")
    assert figures.estimate(Estimate(-0.0001, -0.021, 0.0208, 3, 0.01, ("seeds",)), "share", 1, signed=True) == ("0.0", "[−2.1, +2.1]")


def test_rows_of_the_wrong_length_are_refused():
    with pytest.raises(ValueError, match="2 cells"):
        Table([("a", "l"), ("b", "r")], [["1"]])


def test_import_is_light():
    code = "import sys, lm.report; sys.exit(any(name in sys.modules for name in ('matplotlib', 'pyarrow', 'scipy', 'numpy', 'jax')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
