"""The report as a page, as Markdown and as a picture: they agree, work offline, light and dark."""

import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
from comparison_workdir import enrich, make
from report_reader import Reader, flat, markdown_tables, section

from lm import report
from lm.report import number_format
from lm.report.page import Table
from lm.stats.intervals import Estimate


@pytest.fixture(scope="module")
def written_report(tmp_path_factory):
    directory = enrich(make(tmp_path_factory.mktemp("report") / "W"))
    return directory, report.write(directory)


def test_every_table_is_the_same_in_both_forms(written_report):
    page, text = Reader(written_report[1].html.read_text()), written_report[1].markdown.read_text()
    assert flat(page.tables) == flat(markdown_tables(text))
    assert len(page.tables) == 18 and sum(len(table) for table in page.tables) > 90


def test_page_is_self_contained_and_well_formed(written_report):
    text = written_report[1].html.read_text()
    page = Reader(text)
    assert page.loads == [] and page.open == []
    assert not {"script", "link", "iframe", "img", "object", "base"} & set(page.tags)
    assert (
        "http:" not in text.replace("http-equiv", "")
        and "https:" not in text
        and "@import" not in text
    )
    assert all(address.startswith("#") for address in re.findall(r"url\((.*?)\)", text))
    assert len(page.ids) == len(set(page.ids)) and page.tags.count("svg") == 3 * 4 + 4 + 1 + 3
    used = set(re.findall(r"url\(#(.*?)\)", text)) | set(re.findall(r'href="#(.*?)"', text))
    assert used and used <= set(page.ids), "an undefined clip path or marker draws nothing"


def test_pictures_follow_light_and_dark(written_report):
    text = written_report[1].html.read_text()
    pictures = "".join(re.findall("<svg.*?</svg>", text, re.DOTALL))
    named = set(re.findall(r"var\(--(\w+)\)", pictures))
    assert {"faint", "paper", "arm0", "arm1", "arm2", "arm3"} <= named
    assert not re.findall(r"#[0-9a-fA-F]{6}\b", pictures), (
        "a literal color would not follow the page's scheme"
    )
    for start in (":root{", "@media (prefers-color-scheme:dark){:root{", "@media print{:root{"):
        assert named <= set(re.findall(r"--(\w+):", text.split(start)[1].split("}")[0]))


def test_curves_have_baselines_of_the_same_quantity_only(written_report):
    pictures = re.findall("<svg.*?</svg>", written_report[1].html.read_text(), re.DOTALL)
    assert ["unigram 6.5" in picture for picture in pictures[:12]] == [True, True, False, False] * 3
    assert "bag of words" in pictures[16] and "untrained encoder" in pictures[16]


def test_picture_is_a_png_with_colors(written_report):
    import matplotlib.image

    pixels = matplotlib.image.imread(written_report[1].picture)
    assert pixels.shape[0] > 600 and pixels.shape[1] > 1000
    assert pixels[0, 0, :3].tolist() == [1, 1, 1]
    blue = np.abs(pixels[..., :3] - np.array([0x00, 0x72, 0xB2]) / 255).max(-1) < 0.02
    assert blue.sum() > 200
    assert ((pixels[..., :3] * 255).round() == 1).all(-1).sum() == 0, (
        "a placeholder color was not replaced"
    )


def test_untidy_text_is_escaped(tmp_path):
    arms = {
        "clm": {
            "label": "<b>a|b</b> $x$ `c` 中文",
            "objective": "clm",
            "model": "decoder",
            "describe": '*d* [e](f) & "g"',
        }
    }
    directory = make(
        tmp_path / "W",
        arms=arms,
        name="<script>alert(1)</script>",
        question="1. is it\n- so?",
        checks=[],
    )
    written = report.write(directory)
    text, page = written.markdown.read_text(), Reader(written.html.read_text())
    assert (
        "script" not in page.tags
        and "b" not in page.tags
        and "<script" not in text
        and "<b>" not in text
    )
    assert "\n1\\. is it - so?\n" in text and r"\[e\](f)" in text
    assert flat(page.tables) == flat(markdown_tables(text))
    assert page.tables[1][1][0] == "<b>a|b</b> $x$ `c` 中文"
    fence = re.search("(?m)^(`{3,})json$", text)[1]
    assert len(fence) == 4 and "a|b <i> ``` *" in text, (
        "the config's own backticks must not end the block"
    )


def test_rows_of_the_wrong_length_are_rejected():
    with pytest.raises(ValueError, match="2 cells"):
        Table([("a", "l"), ("b", "r")], [["1"]])


def test_import_is_light():
    heavy = ("matplotlib", "pyarrow", "scipy", "jax")
    code = f"import sys, lm.report; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_newer_report_replaces_the_older_one_atomically(tmp_path):
    directory = make(tmp_path / "W")
    first = report.write(directory).html.read_bytes()
    assert report.write(str(directory)).html.read_bytes() == first, (
        "the same results must give the same bytes"
    )
    assert not list(directory.glob(".report*"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (number_format.plain(4.8567), "4.86"),
        (number_format.plain(0.99996), "1.00"),
        (number_format.plain(1234.5), "1,230"),
        (number_format.plain(-0.0123), "−0.0123"),
        (number_format.plain(0), "0.00"),
        (number_format.plain(1.234e-6), "1.23e−06"),
        (number_format.plain(math.nan), "–"),
        (number_format.count(1048576.2), "1,048,576"),
        (number_format.flops(1.2e13), "12 TFLOP"),
        (number_format.flops(9.999e14), "1 PFLOP"),
        (number_format.flops(3.14159e18), "3.14 EFLOP"),
        (number_format.flops(None), "–"),
        (number_format.duration(0.42), "0.42 s"),
        (number_format.duration(59.7), "1 min 00 s"),
        (number_format.duration(702), "11 min 42 s"),
        (number_format.duration(11100), "3 h 05 min"),
        (number_format.percentage(0.127), "12.7 %"),
    ],
)
def test_numbers_as_text(text, expected):
    assert text == expected


def test_interval_and_mean_have_the_same_decimals():
    assert number_format.estimate(
        Estimate(4.8612, 4.8589, 4.8635, 3, 0.001, ("seeds",)), "nats/token"
    ) == ("4.861", "[4.859, 4.864]")
    assert number_format.estimate(Estimate(0.581, 0.55, 0.612, 3, 0.01, ("seeds",)), "share") == (
        "58.1 %",
        "[55.0, 61.2]",
    )
    assert number_format.estimate(
        Estimate(-0.0001, -0.021, 0.0208, 3, 0.01, ("seeds",)), "share", 1, signed=True
    ) == ("0.0", "[−2.1, +2.1]")


def test_one_config_is_complete_and_others_are_differences(tmp_path):
    directory = make(tmp_path / "W")
    configs = {
        "mlm": {"seed": 0, "model": {"name": "decoder", "width": 64}},
        "nsp": {"seed": 0, "model": {"name": "encoder"}, "x": [1]},
    }
    for arm, config in configs.items():
        path = directory / "runs" / f"{arm}-seed0" / "run.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"config": config}))
    text = section(report.write(directory).markdown.read_text(), "Reproduce")
    assert '"width": 64' in text and text.count("Full config of MLM, seed 0") == 1
    title = "Config of NSP, seed 0: differences from MLM, seed 0"
    config = text.partition(title)[2].partition("</details>")[0]
    assert [line for line in config.splitlines() if "=" in line or ": " in line] == [
        'model.name = "encoder"',
        "x = [1]",
        "model.width: not set",
    ]
