"""Two comparisons side by side."""

import re

import pytest
from comparison_workdir import CHECKS, edit, enrich, make, rows_of
from report_reader import flat, markdown_tables, section

from lm.core.plugins import UserError
from lm.report import diff


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return enrich(make(tmp_path_factory.mktemp("diff") / "A"))


def test_a_comparison_is_equal_to_itself(first, tmp_path):
    text = diff(first, first)
    assert (first / "diff.md").read_text() == text
    assert "No differences: the same arms" in section(text, "Settings") and "None of 7." in section(
        text, "Changed verdicts or hypotheses"
    )
    scores = section(text, "Scores")
    table = flat(markdown_tables(scores))[0]
    assert {row[-1] for row in table[1:]} == {"equal within intervals"}
    assert (
        f"{len(table) - 1} of {len(table) - 1} scores are equal within intervals, 0 are not."
        in scores
    )


def test_changes_are_reported(first, tmp_path):
    shifted = [
        row
        | ({"value": row["value"] - 0.2} if row["arm"] == "clm" and row["metric"] == "nll" else {})
        for row in rows_of((0, 1, 2))
    ]
    second = enrich(make(tmp_path / "B", rows=shifted))
    edit(
        second / "comparison.json",
        versions={"jax": "0.11.0", "flax": "0.12.0"},
        hypotheses=[CHECKS[0], CHECKS[4] | {"value": 0.9}, CHECKS[6] | {"text": "another"}],
        experiment={
            "name": "Objectives",
            "seeds": [0, 1, 2],
            "budget": {"matched": "flops", "value": 1},
            "arms": {"clm": {"run": {}}},
        },
    )
    text = diff(first, second)
    settings = {row[0]: row[1:] for row in flat(markdown_tables(section(text, "Settings")))[0]}
    assert settings["budget.matched"] == ["tokens", "flops"] and settings[
        "arms.mlm.run.objective.name"
    ] == ["mlm", "–"]
    versions = flat(markdown_tables(section(text, "Data, versions and machine")))[0]
    assert versions[1:] == [["versions.jax", "0.10.2", "0.11.0"]]
    verdicts = {
        row[0]: row[1:]
        for row in flat(markdown_tables(section(text, "Changed verdicts or hypotheses")))[0][1:]
    }
    assert CHECKS[0]["text"] not in verdicts, "supported in both, with the same threshold"
    assert verdicts[CHECKS[4]["text"]][0].startswith("✓ supported") and verdicts[CHECKS[4]["text"]][
        1
    ].startswith("✗ refuted")
    assert verdicts["another"][0] == "not stated" and verdicts[CHECKS[1]["text"]][1] == "not stated"
    scores = {tuple(row[:2]): row[2:] for row in flat(markdown_tables(section(text, "Scores")))[0]}
    nll = scores["CLM", "next token, negative log-likelihood"]
    assert nll[2].startswith("−0.20") and nll[3] == "changed"
    assert scores["MLM", "linear probe, balanced accuracy"][3] == "equal within intervals"


def test_the_difference_of_independent_scores_is_as_wide_as_both(first, tmp_path):
    from lm.report.compare_workdirs import _difference
    from lm.stats.intervals import Estimate

    result = _difference(Estimate(1.0, 0.7, 1.4, 3, 0.1, ()), Estimate(2.0, 1.6, 2.3, 3, 0.1, ()))
    assert (result.mean, result.low, result.high) == pytest.approx(
        (1.0, 1.0 - (0.4**2 + 0.4**2) ** 0.5, 1.0 + (0.3**2 + 0.3**2) ** 0.5)
    )


def test_other_data_is_reported(first, tmp_path):
    second = make(tmp_path / "B")
    edit(second / "comparison.json", data={"source": "books", "fingerprint": "0"})
    text = diff(first, second)
    assert "None of 7." in section(text, "Changed verdicts or hypotheses")
    assert "> The data or the tokenizer differ" in text and re.search(
        r"\| data.fingerprint \|", text
    )


def test_older_records_without_experiment_are_compared_by_what_they_have(tmp_path):
    first, second = make(tmp_path / "A"), make(tmp_path / "B", seeds=[0, 1])
    settings = flat(markdown_tables(section(diff(first, second), "Settings")))[0]
    assert ["seeds", "[0, 1, 2]", "[0, 1]"] in settings


def test_comparisons_without_a_common_arm_are_rejected(first, tmp_path):
    second = make(tmp_path / "B")
    edit(second / "comparison.json", arms={"elmo": {"label": "ELMo"}}, hypotheses=[])
    with pytest.raises(UserError, match="share no arm: mlm, clm, nsp, mlm_nsp"):
        diff(first, second)
    assert not (second / "diff.md").exists()
    with pytest.raises(UserError, match="no comparison.json"):
        diff(first, tmp_path)
