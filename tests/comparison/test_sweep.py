"""Sweeps: each combination runs once, the best is the best mean over seeds, and sweeps resume."""

import json

import pytest
import runs
from runs import home  # noqa: F401

from lm.comparison import optuna_search, selection, sweep, sweep_results
from lm.comparison.ranges import parse
from lm.comparison.sweep import Options
from lm.core.plugins import UserError
from lm.training import loop

RATES = "1e-3,1e-2"


@pytest.fixture
def direct(monkeypatch):
    runs.in_this_process(monkeypatch)


def config(home):
    return home.config("clm", training={"steps": 3, "log_every": 1})


def test_a_grid_over_seeds(home, direct, tmp_path, capsys, monkeypatch):
    swept = {"optimizer.learning_rate": RATES, "seed": "0,1"}
    assert sweep.sweep(config(home), tmp_path / "s", swept, Options()) == 0
    out = capsys.readouterr().out
    record = json.loads((tmp_path / "s" / "sweep.json").read_text())
    assert sorted(path.name for path in (tmp_path / "s" / "runs").iterdir()) == [
        "000-seed0",
        "000-seed1",
        "001-seed0",
        "001-seed1",
    ]
    finals = {
        name: runs.record(tmp_path / "s" / "runs" / name)
        for name in ("000-seed0", "000-seed1", "001-seed0", "001-seed1")
    }
    assert (
        finals["001-seed1"]["config"]["optimizer"]["learning_rate"] == 1e-2
        and finals["001-seed1"]["config"]["seed"] == 1
    )
    means = [
        sum(finals[f"00{arm}-seed{seed}"]["final"]["loss"] for seed in (0, 1)) / 2 for arm in (0, 1)
    ]
    assert [arm["mean"] for arm in record["arms"]] == pytest.approx(means)
    best = min((0, 1), key=means.__getitem__)
    assert (
        record["best"]["index"] == best
        and f"--config.optimizer.learning_rate={(1e-3, 1e-2)[best]}" in out
    )
    assert "is best at an end of what was tried" in out
    assert (tmp_path / "s" / "sweep.png").read_bytes().startswith(b"\x89PNG") and "± " in (
        tmp_path / "s" / "sweep.md"
    ).read_text()
    # A second call computes nothing; another sweep in the same workdir raises UserError.
    monkeypatch.setattr(loop, "train", lambda *_, **__: pytest.fail("trained again"))
    assert sweep.sweep(config(home), tmp_path / "s", swept, Options()) == 0
    with pytest.raises(UserError, match="holds another sweep:\n  sweep.seed: '0,1' there, '0' now"):
        sweep.sweep(config(home), tmp_path / "s", swept | {"seed": "0"}, Options())


def test_a_combination_that_diverged_is_listed_but_not_the_best(tmp_path):
    ranges = {"optimizer.learning_rate": parse("optimizer.learning_rate", "1e-3,1.0", 0.1)}
    for name, status, loss in (
        ("000-seed0", "done", 5.0),
        ("000-seed1", "done", 5.2),
        ("001-seed0", "done", 1.0),
        ("001-seed1", "diverged", 0.5),
    ):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text(
            json.dumps({"status": status, "final": {"loss": loss, "step": 3}})
        )
    (tmp_path / "sweep.json").write_text("{}")
    arms = [
        sweep_results.collect(
            tmp_path, index, {"optimizer.learning_rate": rate}, [0, 1], "validation.loss"
        )
        for index, rate in enumerate((1e-3, 1.0))
    ]
    text = sweep_results.write(tmp_path, arms, ranges, [0, 1], "validation.loss")
    assert (
        "diverged" in text
        and "--config.optimizer.learning_rate=0.001" in text
        and json.loads((tmp_path / "sweep.json").read_text())["best"]["index"] == 0
    )


MISTAKES = {
    "nothing": ({}, Options(), "nothing is swept"),
    "a metric": (
        {"seed": "0,1"},
        Options(metric="loss"),
        "should be validation.loss or TASK.METRIC",
    ),
    "a task's metric": ({"seed": "0,1"}, Options(metric="causal.ce"), "task 'causal' measures nll"),
    "no task": (
        {"seed": "0,1"},
        Options(metric="cusal.nll"),
        "no task is called 'cusal'; there are: validation .*causal",
    ),
    "a field that changes the loss": (
        {"objective.name": "clm,mlm"},
        Options(),
        "changes what it measures, and the lowest value is not the best",
    ),
    "no trials": ({"seed": "0,1"}, Options(sampler="random"), "needs --trials"),
    "trials of a grid": ({"seed": "0,1"}, Options(trials=3), "is for --sampler=random or optuna"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_mistakes_are_rejected_before_anything_is_written(home, tmp_path, what):
    swept, options, words = MISTAKES[what]
    with pytest.raises(UserError, match=words):
        sweep.sweep(config(home), tmp_path / "s", swept, options)
    assert not (tmp_path / "s").exists()


@pytest.mark.filterwarnings("ignore")
def test_optuna_resumes_from_its_journal(home, direct, tmp_path):
    pytest.importorskip("optuna")
    swept = {"optimizer.learning_rate": "log(1e-3,1e-1)", "training.log_every": "int(1,3)"}
    for trials in (2, 3):
        options = Options(sampler="optuna", trials=trials, workers=1, metric="causal.accuracy")
        assert sweep.sweep(config(home), tmp_path / "s", swept, options) == 0
        record = json.loads((tmp_path / "s" / "sweep.json").read_text())
        assert len(record["arms"]) == trials and record["better"] == "higher"
    rates = [arm["values"]["optimizer.learning_rate"] for arm in record["arms"]]
    assert len(set(rates)) == 3 and all(1e-3 <= rate <= 1e-1 for rate in rates)
    assert record["best"]["mean"] == max(arm["mean"] for arm in record["arms"])


def write_runs(tmp_path, values, better, metric="f1"):
    """Writes finished runs of three combinations, with scores of an untrained model too."""
    for index, value in enumerate(values):
        run = tmp_path / "runs" / f"{index:03d}-seed0"
        run.mkdir(parents=True)
        (run / "run.json").write_text(
            json.dumps({"status": "done", "final": {"loss": 1.0, "mlm_accuracy": value, "step": 3}})
        )
        row = {"task": "t", "metric": metric, "better": better}
        rows = [row | {"kind": "untrained", "value": 99.0}, row | {"kind": "model", "value": value}]
        (run / "scores.json").write_text(json.dumps({"rows": rows}))
    (tmp_path / "sweep.json").write_text("{}")


@pytest.mark.parametrize(
    ("metric", "better", "best"),
    [
        ("t.f1", "higher", 1),
        ("t.f1", "lower", 0),
        ("t.accuracy", "lower", 0),
        ("validation.mlm_accuracy", "lower", 1),
    ],
)
def test_the_direction_comes_from_the_scores(tmp_path, monkeypatch, metric, better, best):
    write_runs(tmp_path, [0.2, 0.8, 0.5], better, metric.partition(".")[2])
    drawn = []
    monkeypatch.setattr(sweep_results, "draw", lambda *arguments: drawn.append(arguments[-1]))
    arms = [
        sweep_results.collect(tmp_path, index, {"seed": index}, [0], metric) for index in range(3)
    ]
    text = sweep_results.write(tmp_path, arms, {"seed": parse("seed", "0,1,2", 0)}, [0], metric)
    record, wanted = (
        json.loads((tmp_path / "sweep.json").read_text()),
        "higher" if best else "lower",
    )
    assert (
        record["best"]["index"] == best
        and record["better"] == wanted
        and drawn == [wanted]
        and f"({wanted} is better)" in text
    )
    costs = [sweep_results.cost(tmp_path, [0], metric, index) for index in range(3)]
    assert min(range(3), key=costs.__getitem__) == best


UNFIT = {
    "a task of another objective": (
        {},
        {"objective.name": "clm,mlm"},
        "masked.ce",
        "'masked' does not suit objective 'clm'; these do:.*causal",
    ),
    "with Optuna": (
        {"sampler": "optuna", "trials": 2},
        {"objective.name": "mlm,clm"},
        "masked.ce",
        "does not suit objective 'clm'",
    ),
    "validation's": (
        {},
        {"seed": "0,1"},
        "validation.mlm_accuracy",
        "validation of objective 'clm' has loss, clm, clm_accuracy",
    ),
}


@pytest.mark.parametrize("what", UNFIT)
def test_a_metric_that_some_run_lacks_is_rejected_before_training(
    home, direct, tmp_path, what, monkeypatch
):
    given, swept, metric, words = UNFIT[what]
    monkeypatch.setattr(optuna_search, "check_installed", lambda: None)  # no trial starts
    monkeypatch.setattr(loop, "train", lambda *_, **__: pytest.fail("trained"))
    base = config(home)
    with pytest.raises(UserError, match=words):
        sweep.sweep(base, tmp_path / "s", swept, Options(metric=metric, **given))
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("field", ["objective.name", "tokenizer.vocab_size", "data.length"])
def test_losses_that_measure_different_things_are_not_compared(field):
    with pytest.raises(
        UserError, match=rf"--sweep.{field} with --metric=validation.loss: .*--metric=causal.nll"
    ):
        selection.check_comparable("validation.loss", ["optimizer.learning_rate", field])
    selection.check_comparable("causal.nll", [field])
    selection.check_comparable("validation.loss", ["data.workers", "data.cache", "model.width"])
