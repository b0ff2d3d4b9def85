"""What the report says of newer records: budgets planned, curves, sensitivity, forest, table by task, samples, energy."""

import json
import math
import re

import pytest
from comparison_workdir import ARMS, RATES, SEEDS, TOKENS, check, edit, enrich, make, write_rows
from report_reader import Reader, flat, markdown_tables, section

from lm import report
from lm.report import chart, content, curves, energy, figures, hypotheses, task_scores
from lm.report.read import read
from lm.report.results import Results


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    directory = enrich(make(tmp_path_factory.mktemp("report") / "W"))
    return directory, report.write(directory)


def results_of(directory):
    return Results(read(directory), directory)


def test_new_sections_stand_where_they_belong(rich):
    titles = re.findall("^## (.*)$", rich[1].markdown.read_text(), re.MULTILINE)
    assert titles[:8] == [
        "Verdict", "What was compared", "Budgets", "Learning curves", "Sensitivity to the learning rate", "The shared yardstick",
        "Differences from the reference arm", "Table by task",
    ]  # fmt: skip
    assert titles.index("Samples") < titles.index("Energy and CO2e") < titles.index("Reproduce")


def test_planned_budgets_stand_below_what_was_done(rich):
    table = flat(markdown_tables(section(rich[1].markdown.read_text(), "Budgets")))[0]
    assert table[1][2:5] == [
        f"{TOKENS:,} planned {TOKENS:,}",
        "157,286 planned 157,286",
        "12 TFLOP planned 12 TFLOP",
    ]


def test_an_inconclusive_hypothesis_says_how_many_seeds_it_would_take(tmp_path):
    from lm.stats import power

    asked = check(
        "MLM's probe is above 50 %", "mlm", "probe", "balanced_accuracy", "", "above", 0.5
    )
    directory = make(tmp_path / "W", checks=[asked])
    written = report.write(directory)
    values = list(results_of(directory).score("mlm", "probe", "balanced_accuracy").values.values())
    mean = math.fsum(values) / 3
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / 2)
    wanted = power.seeds_needed(deviation, abs(mean - 0.5))
    assert written.hypotheses[0].verdict == "inconclusive" and wanted > 3
    verdict = flat(markdown_tables(section(written.markdown.read_text(), "Verdict")))[0][1][1]
    told = f"about {wanted} seeds would decide" if wanted <= 1000 else "more than 1,000 seeds"
    assert told in verdict


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
    assert "minutes of training" not in page and "seconds of training" in page


def test_flops_of_a_point_follow_from_the_run_where_the_line_lacks_them(tmp_path):
    directory = make(tmp_path / "W")
    run = next(run for run in read(directory).runs if (run.arm, run.seed) == ("clm", 0))
    points = curves.read(directory, run)
    assert points[0].flops == pytest.approx(1.2e13 / 20, rel=1e-5) and math.isnan(points[0].seconds)
    views = re.findall(r"<h3>(.*?)</h3>", report.write(directory).html.read_text())
    assert views == ["Tokens", "FLOPs"]


def test_sensitivity_shows_every_trial_and_warns_of_an_edge(rich):
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


def test_a_trial_that_diverged_beyond_the_chosen_value_is_no_edge(tmp_path):
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


def test_the_forest_holds_every_arm_but_the_reference(rich):
    results = results_of(rich[0])
    charts = dict(task_scores.forest_charts(results))
    assert list(charts) == ["probe-balanced_accuracy", "probe-accuracy", "blimp-accuracy"]
    picture = charts["probe-balanced_accuracy"]
    assert (
        picture.y.names == ("CLM", "NSP", "MLM + NSP")
        and picture.x.label == "less MLM (points), better →"
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
    assert hollow == {3}, "only MLM + NSP's interval holds zero"


def test_lower_is_better_points_the_other_way(tmp_path):
    directory = make(tmp_path / "W")
    rows = [
        row | ({"own": False} if row["task"] == "masked" else {})
        for row in rows_with_shared_loss(directory)
    ]
    write_rows(directory, rows)
    charts = dict(task_scores.forest_charts(results_of(directory)))
    assert charts["masked-ce"].x.label == "less MLM (nats/token), ← better"


def rows_with_shared_loss(directory):
    import pyarrow.parquet

    return pyarrow.parquet.read_table(directory / "results.parquet").to_pylist()


def test_the_best_arm_is_bold_only_beyond_doubt(rich):
    text = section(rich[1].markdown.read_text(), "Table by task")
    results = results_of(rich[0])
    sure = [
        results.gap("mlm_nsp", other, "blimp", "accuracy").estimate.low > 0
        for other in ("mlm", "clm", "nsp")
    ]
    assert len(re.findall(r"\*\*", text)) == 2 + 2 * all(sure) and re.search(
        r"^\| CLM \| \*\*60\.\d % ", text, re.MULTILINE
    )
    table = flat(markdown_tables(text))[0]
    assert [row[0] for row in table[1:5]] == [label for label, _, _ in ARMS.values()]
    assert table[0][1:] == ["Linear probe: Balanced accuracy ↑", "Blimp: Accuracy ↑"]
    assert "<strong>60." in rich[1].html.read_text()


def test_what_a_reader_must_know_of_a_task_stands_below_its_tables(rich):
    results, told = results_of(rich[0]), "Masked models are told how many pieces the last word has"
    assert told not in rich[1].markdown.read_text()
    results.comparison.about["tasks"]["blimp"]["task"] = "last_word"
    for parts in (task_scores.matrix(results), task_scores.details(results, False, "In full")):
        assert sum(told in part.caption for part in parts if isinstance(part, content.Table)) == 1


def test_what_was_left_out_of_a_task_s_files_stands_below_its_tables(tmp_path):
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


def test_parts_of_a_task_have_a_table_of_their_own(rich):
    text = section(rich[1].markdown.read_text(), "The shared yardsticks in full")
    tables = flat(markdown_tables(text))
    assert [row[0] for row in tables[-1]] == ["Part", "anaphor agreement", "binding"] and tables[
        -1
    ][1][1] == "400"
    assert "anaphor" not in " ".join(tables[1][0]) and "Blimp by part of its examples" in text


def test_samples_are_shown_as_text_and_only_where_they_are(rich, tmp_path):
    text, page = rich[1].markdown.read_text(), rich[1].html.read_text()
    assert "The \\[MASK\\] of names is sorted." in text or "The [MASK] of names is sorted." in text
    assert "sorted by &lt;b&gt;clm&lt;/b&gt; before" in page and page.count(
        "What it is asked:"
    ) == len(ARMS)
    directory = make(tmp_path / "W")
    (directory / "runs" / "clm-seed0" / "samples.json").write_text("[broken")
    assert "## Samples" not in report.write(directory).markdown.read_text()


def test_energy_adds_up_and_names_its_constants(rich):
    text = section(rich[1].markdown.read_text(), "Energy and CO2e")
    rows = flat(markdown_tables(text))[0]
    # Per arm three runs of 58.3, 59.3 and 60.3 s and three trials of 15 s, at 10 W: a core of two for each of two workers.
    joules = (58.3 + 59.3 + 60.3 + 45) * 10
    assert rows[1] == [
        "MLM",
        "6",
        "3 min 43 s",
        figures.energy(joules),
        figures.mass(joules * 1.1 / 3.6e6 * 0.4),
    ]
    assert rows[-1][:2] == ["All", "24"] and rows[-1][3] == figures.energy(4 * joules)
    assert all(
        name in text
        for name in (
            "assumed: 10 W a core, 1 core a run",
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
    assert row[3:] == ["3.00 kWh", figures.mass(3 * 1.5 * 0.02 + 450 * 1.5 / 3.6e6 * 0.02)]
    assert (
        "measured (RAPL); assumed" in text or "assumed: 10 W a core, 1 core a run; measured" in text
    )
    assert "PUE 1.5, as the config says" in text


@pytest.mark.parametrize(
    ("machine", "watts"),
    [
        ({"device": "NVIDIA H200", "devices": 2}, 1400), ({"device": "NVIDIA L40S", "devices": 1}, 300),
        ({"device": "TPU v4", "devices": 4}, 680), ({"device": "NVIDIA L4", "devices": 1}, 72), ({}, 10),
        ({"device": "quantum", "devices": 1}, 300), ({"device": "cpu", "cores": 8}, 80),
    ],
)  # fmt: skip
def test_assumed_power(machine, watts):
    found = energy.power({"machine": machine})
    assert found.watts == watts and found.assumed and found.why.startswith("assumed")


def test_given_power_is_no_assumption():
    found = energy.power({"machine": {"device": "cpu", "cores": 8}, "energy": {"watts": 33.0}})
    assert found.watts == 33 and not found.assumed
    # Of one device: eight of 400 W, which two runs side by side share.
    about = {"machine": {"device": "NVIDIA A100", "devices": 8}, "energy": {"watts": 400.0}}
    assert energy.power(about).watts == 3200 and "400 W a device" in energy.power(about).why
    assert (
        energy.power(about | {"workers": 2}).watts == 1600
        and "shared by 2 runs" in energy.power(about | {"workers": 2}).why
    )


def test_a_run_is_charged_the_cores_and_devices_that_it_had():
    """Workers are pinned: of eight cores each of four has two, and says so."""
    about, run = {"machine": {"device": "cpu", "cores": 8}, "workers": 4}, {"machine": {"cores": 2}}
    assert (
        energy.power(about, run).watts == energy.power(about).watts == 20
        and energy.power(about, run).parts == 2
    )
    # As records said before: the machine's cores were those of one worker.
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
    # Begun on one machine, continued on another: each run's own counts.
    elsewhere = energy.power(
        about, {"machine": {"device": "NVIDIA H200", "devices": 2, "cores": 16}}
    )
    assert elsewhere.watts == 2 * 700 / 4 and "H200" in elsewhere.why


def test_given_power_counts_more_than_measured():
    record, given = (
        {"energy_joules": 7.0, "energy_source": "RAPL"},
        energy.power({"energy": {"watts": 50.0}}),
    )
    assert (
        energy._joules(record, 10.0, given)[0] == 500
        and energy._joules(record, 10.0, energy.power({}))[0] == 7
    )


def test_headlines():
    class Told:
        def __init__(self, verdict):
            self.verdict = verdict

    told = {name: Told(name) for name in ("supported", "refuted", "inconclusive")}
    assert hypotheses.headline([]).startswith("The experiment's config states no hypotheses")
    assert hypotheses.headline([told["refuted"]]) == "The one hypothesis is refuted."
    assert hypotheses.headline([told["supported"]] * 2) == "All 2 hypotheses are supported."
    mixed = [told["inconclusive"], told["supported"], told["refuted"], told["supported"]]
    assert hypotheses.headline(mixed) == "4 hypotheses: 2 supported, 1 refuted, 1 inconclusive."


@pytest.mark.parametrize(
    ("low", "high", "log", "expected"),
    [
        (0, 1, False, [0, 0.2, 0.4, 0.6, 0.8, 1]), (-13, 14, False, [-10, -5, 0, 5, 10]), (4.03, 4.22, False, [4.05, 4.1, 4.15, 4.2]),
        (0.0009, 0.011, True, [0.001, 0.002, 0.003, 0.005, 0.01]), (1e6, 1e12, True, [1e6, 1e8, 1e10, 1e12]),
    ],
)  # fmt: skip
def test_ticks_are_round_numbers_within_the_axis(low, high, log, expected):
    assert chart.ticks(low, high, log, 6) == pytest.approx(expected)


def test_arms_differ_by_more_than_colour():
    looks = [(chart.colour(arm), chart.shape(arm)) for arm in range(36)]
    assert len(set(looks)) == 36
    assert (
        len({chart.shape(arm) for arm in range(6)})
        == len({chart.dashes(arm) for arm in range(6)})
        == 6
    )


def luminance(colour):
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_colours_stand_out_from_the_paper(rich):
    """WCAG 2.1: 4.5 for text, 3 for what carries meaning in a picture."""
    sheet = re.search("<style>(.*?)</style>", rich[1].html.read_text(), re.DOTALL)[1]
    for block in re.findall(r":root\{(--arm0.*?)\}", sheet):
        colours = dict(re.findall(r"--(\w+):(#[0-9a-fA-F]{3,6})", block))
        full = {
            name: colour if len(colour) == 7 else "#" + "".join(2 * letter for letter in colour[1:])
            for name, colour in colours.items()
        }
        assert all(
            contrast(full[name], full["paper"]) >= 4.5
            for name in ("ink", "faint", "good", "bad", "open")
        )
        assert all(
            contrast(colour, full["paper"]) >= 3
            for name, colour in full.items()
            if name.startswith("arm")
        )


def test_tables_and_pictures_are_named_for_those_who_do_not_see_them(rich):
    page = rich[1].html.read_text()
    assert all('role="img" aria-label="' in opening for opening in re.findall("<svg[^>]*>", page))
    assert all('scope="' in head for head in re.findall("<th[^>]*>", page.replace("<thead>", "")))
    named = set(re.findall(r'aria-labelledby="(.*?)"', page))
    assert named <= set(Reader(page).ids)
    assert all(
        f'for="{key}"' in page for key in re.findall(r'<input type="radio"[^>]* id="(.*?)"', page)
    )


@pytest.mark.parametrize("shared", [False, True])
def test_scaling_is_fitted_by_series_and_says_where_two_cross(tmp_path, shared):
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
        task_scores.forest_charts(results_of(directory)),
        "Arms that get other multiples of the budget stand beside each other",
    )
    whole = written.markdown.read_text()
    assert mixed in section(whole, "Each objective on its own yardstick")
    if not shared:
        assert (
            not forests
            and "The experiment asks no yardstick that all arms share" in whole
            and "## Table by task" not in whole
        )
        return
    assert [picture.title for _, picture in forests] == [
        f"Linear probe: accuracy, {times} × the budget" for times in (1, 4, 16)
    ]
    assert forests[1][1].y.names == tuple(arm for arm in arms if arm.endswith("4e+07"))[1:], (
        "no arm of another budget"
    )
    assert mixed in section(whole, "Table by task")
    pairs = results_of(directory).pairs("probe", "accuracy")
    assert len(pairs) == 3 * 15 and all(
        first.split("_")[2] == second.split("_")[2] for first, second in pairs
    )
    said = "Matched over the arms that get the same multiple of the budget: token positions, 1,048,576 × 1, 4, 16 a run."
    assert (
        said in section(written.markdown.read_text(), "Budgets")
        and "they are not matched" not in written.markdown.read_text()
    )
    assert 'class="mean"' in next(
        picture
        for picture in re.findall("<svg.*?</svg>", written.html.read_text())
        if "fitted" in picture
    )
