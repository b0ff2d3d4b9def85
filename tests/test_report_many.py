"""Reports of many arms: which pairs are compared, and which curves have baselines."""

import shutil

import comparison_workdir
import pytest

from lm.report import content, yardsticks
from lm.report.read import read


@pytest.fixture
def workdir(tmp_path):
    return comparison_workdir.make(tmp_path / "w")


def crowd(workdir, **about):
    """Nine arms: three stand-ins for each of NSP, MLM and CLM; the same scores."""
    arms = {f"{arm}_{copy}": arm for arm in ("clm", "mlm", "nsp") for copy in "abc"}
    rows = comparison_workdir.rows_of((0, 1, 2))
    copies = [row | {"arm": name} for name, arm in arms.items() for row in rows if row["arm"] == arm]
    comparison_workdir.write_rows(workdir, copies + [row for row in rows if row["kind"] != "model"])
    for name, arm in arms.items():
        for seed in (0, 1, 2):
            shutil.copytree(workdir / "runs" / f"{arm}-seed{seed}", workdir / "runs" / f"{name}-seed{seed}")
    described = {name: {"label": name.upper(), "objective": arm, "model": "encoder"} for name, arm in arms.items()}
    comparison_workdir.edit(workdir / "comparison.json", arms=described, **about)
    return read(workdir)


def titles(comparison) -> list[str]:
    (table,) = [part for part in yardsticks.differences(comparison) if hasattr(part, "rows")]
    return [row[0] for row in table.rows]


def test_of_many_arms_each_is_compared_with_the_reference(workdir):
    shown = titles(crowd(workdir, reference="mlm_b"))
    assert len([title for title in shown if "UNTRAINED" not in title.upper()]) == 8
    assert all(title.endswith("against MLM_B") for title in shown if "UNTRAINED" not in title.upper())


def test_without_a_reference_it_is_the_first_arm(workdir):
    shown = titles(crowd(workdir))
    assert all(title.endswith("against CLM_A") for title in shown if "UNTRAINED" not in title.upper())


def test_few_arms_are_all_compared(workdir):
    shown = titles(read(workdir))
    assert len([title for title in shown if "untrained" not in title]) == 6


@pytest.mark.parametrize(
    ("options", "drawn"),
    [({}, True), ({"rate": 0.15}, True), ({"rate": 0.4}, False), ({"unit": "word_span"}, False), ({"z_loss": 1e-4}, False)],
)
def test_baselines_are_drawn_where_the_loss_is_their_quantity(workdir, options, drawn):
    for run in (workdir / "runs").glob("mlm-seed*"):
        comparison_workdir.edit(run / "run.json", config={"objective": {"name": "mlm", **options}})
    panels = {panel.label: panel for panel in yardsticks.curve_panels(read(workdir))}
    assert bool(panels["MLM"].baselines) == drawn
    assert panels["CLM"].baselines and not panels["NSP"].baselines


def test_padding_stands_in_the_budgets(workdir):
    (table,) = [part for part in content._budgets(read(workdir)) if hasattr(part, "rows")]
    heads = [head for head, _ in table.columns]
    assert {row[heads.index("Padding")] for row in table.rows} == {"3.12 %"}
