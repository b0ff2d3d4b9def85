"""Sections: planned budgets, curves, sensitivity, forest, scores by task, samples, energy."""

import json
import math
import re

import pytest
from comparison_workdir import ARMS, RATES, SEEDS, TOKENS, check, edit, enrich, make, write_rows
from report_reader import Reader, flat, markdown_tables, section

from lm import report
from lm.report import (
    chart,
    content,
    curves,
    differences,
    energy,
    hypothesis_section,
    number_format,
    task_scores,
    verdicts,
)
from lm.report.read import read
from lm.report.results import Results


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    directory = enrich(make(tmp_path_factory.mktemp("report") / "W"))
    return directory, report.write(directory)


def results_of(directory):
    return Results(read(directory), directory)


def test_optional_sections_are_in_order(rich):
    titles = re.findall("^## (.*)$", rich[1].markdown.read_text(), re.MULTILINE)
    assert titles[:8] == [
        "Verdict",
        "What was compared",
        "Budgets",
        "Learning curves",
        "Sensitivity to the learning rate",
        "The shared evaluation task",
        "Differences from the reference arm",
        "Scores by shared task",
    ]
    assert titles.index("Samples") < titles.index("Energy and CO2e") < titles.index("Reproduce")


def test_planned_budgets_are_below_actual_ones(rich):
    table = flat(markdown_tables(section(rich[1].markdown.read_text(), "Budgets")))[0]
    assert table[1][2:5] == [
        f"{TOKENS:,} planned {TOKENS:,}",
        "157,286 planned 157,286",
        "12 TFLOP planned 12 TFLOP",
    ]


def test_an_inconclusive_hypothesis_has_the_number_of_seeds_it_needs(tmp_path):
    from lm.stats import power

    hypothesis = check(
        "MLM's probe is above 50 %", "mlm", "probe", "balanced_accuracy", "", "above", 0.5
    )
    directory = make(tmp_path / "W", checks=[hypothesis])
    written = report.write(directory)
    values = list(results_of(directory).score("mlm", "probe", "balanced_accuracy").values.values())
    mean = math.fsum(values) / 3
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / 2)
    needed = power.seeds_needed(deviation, abs(mean - 0.5))
    assert written.hypotheses[0].verdict == "inconclusive" and needed > 3
    verdict = flat(markdown_tables(section(written.markdown.read_text(), "Verdict")))[0][1][1]
    text = f"about {needed} seeds would decide" if needed <= 1000 else "more than 1,000 seeds"
    assert text in verdict


def test_curves_have_three_views_of_the_same_losses(rich):
    run = next(run for run in read(rich[0]).runs if (run.arm, run.seed) == ("clm", 0))
    points = curves.read(rich[0], run)
    assert [(int(point.tokens), point.loss) for point in points] == run.validation
    assert points[-1].flops == pytest.approx(1.2e13) and points[-1].seconds == pytest.approx(58)
    page = rich[1].html.read_text()
    views = re.findall(r'<section class="view view\d"><h3>(.*?)</h3>', page)
    assert (
        views == ["Tokens", "FLOPs", "Time"]
        and page.count('type="radio"') == 3
        and page.count(" checked>") == 1
    )
    assert "training time (minutes)" not in page and "training time (seconds)" in page


def test_flops_of_a_point_are_derived_from_the_run_if_the_line_lacks_them(tmp_path):
    directory = make(tmp_path / "W")
    run = next(run for run in read(directory).runs if (run.arm, run.seed) == ("clm", 0))
    points = curves.read(directory, run)
    assert points[0].flops == pytest.approx(1.2e13 / 20, rel=1e-5) and math.isnan(points[0].seconds)
    views = re.findall(r"<h3>(.*?)</h3>", report.write(directory).html.read_text())
    assert views == ["Tokens", "FLOPs"]


def test_sensitivity_lists_every_trial_and_warns_of_an_edge(rich):
    text = section(rich[1].markdown.read_text(), "Sensitivity to the learning rate")
    table = flat(markdown_tables(text))[0]
    assert table[1] == ["MLM", "0.003", "4.200 0.001", "4.000 0.003", "diverged 0.009"]
    assert table[4] == ["MLM + NSP", "0.001", "3.500 0.001", "4.000 0.003", "4.200 0.009"]
    assert (
        "> - MLM + NSP: the learning rate 0.001 is the lowest of 3" in text
        and text.count("> - ") == 1
    )
    assert (
        "3 values of optimizer.learning\\_rate, for 25 % of its budget each and with the seed 1000"
        in text
    )


def test_no_edge_if_a_trial_diverged_beyond_the_selected_value(tmp_path):
    directory = enrich(make(tmp_path / "W"))
    record = json.loads((directory / "comparison.json").read_text())
    trials = [
        {"value": rate, "loss": loss, "status": "done" if loss else "diverged"}
        for rate, loss in zip(RATES, (5.0, 4.0, None), strict=True)
    ]
    edit(
        directory / "comparison.json",
        tuning=record["tuning"] | {"trials": {"clm": trials}, "chosen": {"clm": RATES[1]}},
    )
    assert "> - " not in section(
        report.write(directory).markdown.read_text(), "Sensitivity to the learning rate"
    )


def test_the_forest_has_every_arm_but_the_reference(rich):
    results = results_of(rich[0])
    charts = dict(differences.forest_charts(results))
    assert list(charts) == ["probe-balanced_accuracy", "probe-accuracy", "blimp-accuracy"]
    picture = charts["probe-balanced_accuracy"]
    assert (
        picture.y.names == ("CLM", "NSP", "MLM + NSP")
        and picture.x.label == "difference from MLM (points), better →"
    )
    (first,) = [
        mark.points[0][0]
        for mark in picture.marks
        if isinstance(mark, chart.Dots) and mark.arm == 1
    ]
    values = [results.score(arm, "probe", "balanced_accuracy").values for arm in ("clm", "mlm")]
    assert first == pytest.approx(
        100 * sum(values[0][seed] - values[1][seed] for seed in SEEDS) / 3
    )
    hollow = {mark.arm for mark in picture.marks if isinstance(mark, chart.Dots) and mark.hollow}
    assert hollow == {3}, "only MLM + NSP's interval includes zero"


def test_lower_is_better_points_the_other_way(tmp_path):
    directory = make(tmp_path / "W")
    rows = [
        row | ({"own": False} if row["task"] == "masked" else {})
        for row in rows_with_shared_loss(directory)
    ]
    write_rows(directory, rows)
    charts = dict(differences.forest_charts(results_of(directory)))
    assert charts["masked-ce"].x.label == "difference from MLM (nats/token), ← better"


def rows_with_shared_loss(directory):
    import pyarrow.parquet

    return pyarrow.parquet.read_table(directory / "results.parquet").to_pylist()


def test_the_best_arm_is_bold_only_if_significant(rich):
    text = section(rich[1].markdown.read_text(), "Scores by shared task")
    results = results_of(rich[0])
    significant = [
        results.gap("mlm_nsp", other, "blimp", "accuracy").estimate.low > 0
        for other in ("mlm", "clm", "nsp")
    ]
    assert len(re.findall(r"\*\*", text)) == 2 + 2 * all(significant) and re.search(
        r"^\| CLM \| \*\*60\.\d % ", text, re.MULTILINE
    )
    table = flat(markdown_tables(text))[0]
    assert [row[0] for row in table[1:5]] == [label for label, _, _ in ARMS.values()]
    assert table[0][1:] == ["Linear probe: Balanced accuracy ↑", "Blimp: Accuracy ↑"]
    assert "<strong>60." in rich[1].html.read_text()


def test_caveats_of_a_task_are_below_its_tables(rich):
    results, note = (
        results_of(rich[0]),
        "Masked models are given the number of pieces in the last word",
    )
    assert note not in rich[1].markdown.read_text()
    results.comparison.record["tasks"]["blimp"]["task"] = "last_word"
    for parts in (task_scores.matrix(results), task_scores.details(results, False, "In full")):
        assert sum(note in part.caption for part in parts if isinstance(part, content.Table)) == 1


def test_notes_on_a_task_s_files_are_below_its_tables(tmp_path):
    directory = enrich(make(tmp_path / "W"))
    note = "x.jsonl: 1 of 100 lines are broken (line 3 is no JSON) and left out"
    for seed in SEEDS:
        (directory / "runs" / f"mlm-seed{seed}" / "scores.json").write_text(
            json.dumps({"rows": [], "notes": {"blimp": [note]}})
        )
    captions = [
        part.caption
        for part in task_scores.matrix(results_of(directory))
        if isinstance(part, content.Table)
    ]
    assert captions[0].count(f"Blimp: {note}.") == 1


def test_subsets_of_a_task_have_their_own_table(rich):
    text = section(rich[1].markdown.read_text(), "Shared evaluation tasks in full")
    tables = flat(markdown_tables(text))
    assert [row[0] for row in tables[-1]] == ["Subset", "anaphor agreement", "binding"] and tables[
        -1
    ][1][1] == "400"
    assert "anaphor" not in " ".join(tables[1][0]) and "Blimp by subset of examples" in text


def test_samples_are_text_and_optional(rich, tmp_path):
    text, page = rich[1].markdown.read_text(), rich[1].html.read_text()
    assert "The \\[MASK\\] of names is sorted." in text or "The [MASK] of names is sorted." in text
    assert "sorted by &lt;b&gt;clm&lt;/b&gt; before" in page and page.count(
        "Example of the objective&#x27;s inputs and targets:"
    ) == len(ARMS)
    directory = make(tmp_path / "W")
    (directory / "runs" / "clm-seed0" / "samples.json").write_text("[broken")
    assert "## Samples" not in report.write(directory).markdown.read_text()


def test_energy_adds_up_and_names_its_constants(rich):
    text = section(rich[1].markdown.read_text(), "Energy and CO2e")
    rows = flat(markdown_tables(text))[0]
    # Per arm, three runs of 58.3, 59.3 and 60.3 s and three trials of 15 s at 10 W: one core for
    # each of two workers.
    joules = (58.3 + 59.3 + 60.3 + 45) * 10
    assert rows[1] == [
        "MLM",
        "6",
        "3 min 43 s",
        number_format.energy(joules),
        number_format.mass(joules * 1.1 / 3.6e6 * 0.4),
    ]
    assert rows[-1][:2] == ["All", "24"] and rows[-1][3] == number_format.energy(4 * joules)
    assert all(
        name in text
        for name in (
            "assumed: 10 W per core, 1 core per run",
            "Core time",
            "PUE 1.1",
            "Grid 0.4",
            "config.energy.pue",
        )
    )


def test_measured_energy_and_the_configs_constants_are_used(tmp_path):
    directory = enrich(
        make(tmp_path / "W"), energy={"watts": 0.0, "pue": 1.5, "grid_kg_per_kwh": 0.02}
    )
    for seed in SEEDS:
        edit(directory / f"runs/clm-seed{seed}/run.json", energy_joules=3.6e6, energy_source="RAPL")
    text = section(report.write(directory).markdown.read_text(), "Energy and CO2e")
    row = next(row for row in flat(markdown_tables(text))[0] if row[0] == "CLM")
    assert row[3:] == ["3.00 kWh", number_format.mass(3 * 1.5 * 0.02 + 450 * 1.5 / 3.6e6 * 0.02)]
    assert (
        "measured (RAPL); assumed" in text
        or "assumed: 10 W per core, 1 core per run; measured" in text
    )
    assert "PUE 1.5, from the config" in text


@pytest.mark.parametrize(
    ("machine", "watts"),
    [
        ({"device": "NVIDIA H200", "devices": 2}, 1400),
        ({"device": "NVIDIA L40S", "devices": 1}, 300),
        ({"device": "TPU v4", "devices": 4}, 680),
        ({"device": "NVIDIA L4", "devices": 1}, 72),
        ({}, 10),
        ({"device": "quantum", "devices": 1}, 300),
        ({"device": "cpu", "cores": 8}, 80),
    ],
)
def test_assumed_power(machine, watts):
    result = energy.power({"machine": machine})
    assert result.watts == watts and result.assumed and result.source.startswith("assumed")


def test_power_from_the_config_is_not_assumed():
    result = energy.power({"machine": {"device": "cpu", "cores": 8}, "energy": {"watts": 33.0}})
    assert result.watts == 33 and not result.assumed
    # The config has the power of one device: eight of 400 W, shared by two concurrent runs.
    about = {"machine": {"device": "NVIDIA A100", "devices": 8}, "energy": {"watts": 400.0}}
    assert energy.power(about).watts == 3200 and "400 W per device" in energy.power(about).source
    assert (
        energy.power(about | {"workers": 2}).watts == 1600
        and "shared by 2 concurrent runs" in energy.power(about | {"workers": 2}).source
    )


def test_a_run_counts_its_own_cores_and_devices():
    """Workers are pinned: each of four has two of eight cores, and records it."""
    about, run = {"machine": {"device": "cpu", "cores": 8}, "workers": 4}, {"machine": {"cores": 2}}
    assert (
        energy.power(about, run).watts == energy.power(about).watts == 20
        and energy.power(about, run).parts == 2
    )
    # In older records, the machine's cores are those of one worker.
    assert (
        energy.power(
            {"machine": {"device": "cpu", "cores": 1}, "workers": 2}, {"machine": {"cores": 1}}
        ).watts
        == 10
    )
    shared = energy.power(
        {"machine": {"device": "NVIDIA H200", "devices": 1}, "workers": 2},
        {"machine": {"cores": 16}},
    )
    assert shared.watts == 350 and shared.parts == 0.5
    # Started on one machine, resumed on another: each run's own machine counts.
    elsewhere = energy.power(
        about, {"machine": {"device": "NVIDIA H200", "devices": 2, "cores": 16}}
    )
    assert elsewhere.watts == 2 * 700 / 4 and "H200" in elsewhere.source


def test_power_from_the_config_overrides_measured_energy():
    record, given = (
        {"energy_joules": 7.0, "energy_source": "RAPL"},
        energy.power({"energy": {"watts": 50.0}}),
    )
    assert (
        energy._joules(record, 10.0, given)[0] == 500
        and energy._joules(record, 10.0, energy.power({}))[0] == 7
    )


def test_headlines():
    by_verdict = {
        verdict: verdicts.HypothesisResult("", "", "", "", verdict)
        for verdict in ("supported", "refuted", "inconclusive")
    }
    assert hypothesis_section.headline([]).startswith(
        "The experiment's config states no hypotheses"
    )
    assert hypothesis_section.headline([by_verdict["refuted"]]) == "The one hypothesis is refuted."
    assert (
        hypothesis_section.headline([by_verdict["supported"]] * 2)
        == "All 2 hypotheses are supported."
    )
    mixed = [
        by_verdict["inconclusive"],
        by_verdict["supported"],
        by_verdict["refuted"],
        by_verdict["supported"],
    ]
    assert (
        hypothesis_section.headline(mixed)
        == "4 hypotheses: 2 supported, 1 refuted, 1 inconclusive."
    )


@pytest.mark.parametrize(
    ("low", "high", "log", "expected"),
    [
        (0, 1, False, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-13, 14, False, [-10, -5, 0, 5, 10]),
        (4.03, 4.22, False, [4.05, 4.1, 4.15, 4.2]),
        (0.0009, 0.011, True, [0.001, 0.002, 0.003, 0.005, 0.01]),
        (1e6, 1e12, True, [1e6, 1e8, 1e10, 1e12]),
    ],
)
def test_ticks_are_round_numbers_within_the_axis(low, high, log, expected):
    assert chart.ticks(low, high, log, 6) == pytest.approx(expected)


def test_arms_differ_by_more_than_color():
    looks = [(chart.color(arm), chart.shape(arm)) for arm in range(36)]
    assert len(set(looks)) == 36
    assert (
        len({chart.shape(arm) for arm in range(6)})
        == len({chart.dashes(arm) for arm in range(6)})
        == 6
    )


def luminance(color):
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_colors_have_enough_contrast(rich):
    """WCAG 2.1: 4.5 for text, 3 for graphics."""
    sheet = re.search("<style>(.*?)</style>", rich[1].html.read_text(), re.DOTALL)[1]
    for block in re.findall(r":root\{(--arm0.*?)\}", sheet):
        colors = dict(re.findall(r"--(\w+):(#[0-9a-fA-F]{3,6})", block))
        full = {
            name: color if len(color) == 7 else "#" + "".join(2 * letter for letter in color[1:])
            for name, color in colors.items()
        }
        assert all(
            contrast(full[name], full["paper"]) >= 4.5
            for name in ("ink", "faint", "good", "bad", "open")
        )
        assert all(
            contrast(color, full["paper"]) >= 3
            for name, color in full.items()
            if name.startswith("arm")
        )


def test_tables_and_pictures_have_accessible_names(rich):
    page = rich[1].html.read_text()
    assert all('role="img" aria-label="' in opening for opening in re.findall("<svg[^>]*>", page))
    assert all('scope="' in head for head in re.findall("<th[^>]*>", page.replace("<thead>", "")))
    named = set(re.findall(r'aria-labelledby="(.*?)"', page))
    assert named <= set(Reader(page).ids)
    assert all(
        f'for="{key}"' in page for key in re.findall(r'<input type="radio"[^>]* id="(.*?)"', page)
    )


@pytest.mark.parametrize("shared", [False, True])
def test_scaling_is_fitted_by_series_with_crossovers(tmp_path, shared):
    directory = make(tmp_path / "W", seeds=(0,), checks=[])
    laws = {"one": (2.0, 400.0, 400.0, 0.40, 0.35), "other": (1.8, 450.0, 450.0, 0.40, 0.35)}
    arms, rows = {}, []
    for name, (E, A, B, alpha, beta) in laws.items():
        for size in (1e6, 4e6, 1.6e7):
            for tokens in (1e7, 4e7, 1.6e8):
                arm = f"{name}_{size:g}_{tokens:g}"
                arms[arm] = {
                    "label": arm,
                    "objective": "clm",
                    "model": "decoder",
                    "series": name,
                    "times": tokens / 1e7,
                }
                value = E + A / size**alpha + B / tokens**beta
                about = {"arm": arm, "seed": 0, "count": 1000, "kind": "model"}
                rows.append(
                    about
                    | {
                        "task": "causal",
                        "metric": "nll",
                        "own": True,
                        "better": "lower",
                        "value": value,
                        "unit": "nats/token",
                    }
                )
                if shared:
                    probe = {
                        "task": "probe",
                        "metric": "accuracy",
                        "own": False,
                        "better": "higher",
                        "value": 0.5,
                        "unit": "share",
                    }
                    rows.append(about | probe)
                run = directory / "runs" / f"{arm}-seed0"
                run.mkdir()
                record = {
                    "status": "done",
                    "parameters": size,
                    "tokens": tokens,
                    "flops": 6 * size * tokens,
                    "seconds": 1.0,
                }
                (run / "run.json").write_text(json.dumps(record))
                (run / "scores.json").write_text("{}")
    tasks = {
        task: {"task": task, "shared": task == "probe"}
        for task in ("causal", "probe")[: 1 + shared]
    }
    edit(
        directory / "comparison.json",
        arms=arms,
        scaling={"task": "causal", "metric": "nll"},
        tasks=tasks,
    )
    write_rows(directory, rows)
    written = report.write(directory)
    text = section(written.markdown.read_text(), "Scaling")
    table = flat(markdown_tables(text))[0]
    assert [row[:2] for row in table[1:]] == [["one", "9"], ["other", "9"]]
    assert (
        table[1][2].startswith("2.00")
        and table[1][5].startswith("0.40")
        and table[2][2].startswith("1.80")
    )
    assert "one and other cross at" in text
    forests, mixed = (
        differences.forest_charts(results_of(directory)),
        "Arms with different multiples of the budget are shown together",
    )
    text = written.markdown.read_text()
    assert mixed in section(text, "Objective-specific evaluation tasks")
    if not shared:
        assert (
            not forests
            and "The experiment has no evaluation task that is shared by all arms" in text
            and "## Scores by shared task" not in text
        )
        return
    assert [picture.title for _, picture in forests] == [
        f"Linear probe: accuracy, {times} × the budget" for times in (1, 4, 16)
    ]
    assert forests[1][1].y.names == tuple(arm for arm in arms if arm.endswith("4e+07"))[1:], (
        "no arm with another budget"
    )
    assert mixed in section(text, "Scores by shared task")
    pairs = results_of(directory).pairs("probe", "accuracy")
    assert len(pairs) == 3 * 15 and all(
        first.split("_")[2] == second.split("_")[2] for first, second in pairs
    )
    matched = (
        "Matched across arms with the same multiple of the budget: token positions,"
        " 1,048,576 × 1, 4, 16 per run."
    )
    assert (
        matched in section(written.markdown.read_text(), "Budgets")
        and "so they are not matched" not in written.markdown.read_text()
    )
    assert 'class="mean"' in next(
        picture
        for picture in re.findall("<svg.*?</svg>", written.html.read_text())
        if "fitted" in picture
    )
