"""Reports of many arms: compared pairs, baselines of curves, and run time."""

import time

import comparison_workdir
import pytest

from lm import report
from lm.report import content, curves, differences
from lm.report.read import read
from lm.report.results import Results


@pytest.fixture
def workdir(tmp_path):
    return comparison_workdir.make(tmp_path / "w")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return comparison_workdir.crowd(tmp_path_factory.mktemp("many") / "w", 3)


def results_of(directory):
    return Results(read(directory), directory)


def pairs(directory):
    return results_of(directory).pairs("probe", "balanced_accuracy")


def test_each_of_many_arms_is_compared_with_the_reference(many):
    comparison_workdir.edit(many / "comparison.json", reference="mlm_1")
    result = pairs(many)
    assert len(result) == 11 and {second for _, second in result} == {"mlm_1"}
    assert [name for name, _ in differences.forest_charts(results_of(many))] == [
        "probe-balanced_accuracy",
        "blimp-accuracy",
    ]


def test_without_a_reference_it_is_the_first_arm(many):
    comparison_workdir.edit(many / "comparison.json", reference="")
    assert {second for _, second in pairs(many)} == {"mlm_0"}


def test_few_arms_are_all_compared(workdir):
    assert len(pairs(workdir)) == 6


@pytest.mark.parametrize(
    ("options", "drawn"),
    [
        ({}, True),
        ({"rate": 0.15}, True),
        ({"rate": 0.4}, False),
        ({"unit": "word_span"}, False),
        ({"z_loss": 1e-4}, False),
    ],
)
def test_baselines_are_drawn_if_the_loss_is_their_quantity(workdir, options, drawn):
    for run in (workdir / "runs").glob("mlm-seed*"):
        comparison_workdir.edit(run / "run.json", config={"objective": {"name": "mlm", **options}})
    panels = {panel.label: panel for panel in curves.panels(results_of(workdir))}
    assert bool(panels["MLM"].baselines) == drawn
    assert panels["CLM"].baselines and not panels["NSP"].baselines


def test_padding_is_in_the_budgets(workdir):
    (table,) = [part for part in content._budgets(read(workdir)) if hasattr(part, "rows")]
    heads = [head for head, _ in table.columns]
    assert {row[heads.index("Padding")] for row in table.rows} == {"3.12 %"}


def test_many_trials_are_reported_quickly(many):
    """A third of benchmarks/report.py's hundred trials in 10 s; the machine may be busy."""
    report.write(many)  # imports
    before = time.process_time()
    report.write(many)
    assert time.process_time() - before < 10
