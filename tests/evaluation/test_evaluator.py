"""Every checkpoint is evaluated on what suits it, reproducibly; bad input is refused."""

import json
import shutil

import numpy as np
import pytest
import runs
from runs import STEPS, home  # noqa: F401

from lm.core import plugins
from lm.core.plugins import UserError
from lm.evaluation import evaluator
from lm.inference.load import load_run
from lm.training.program import divide_sums
from lm.training.validation import Validation

# Objective: (task, metric) of the model, beside the probe.
SUITABLE = {
    "clm": {
        ("causal", "nll"),
        ("causal", "perplexity"),
        ("causal", "bits_per_byte"),
        ("causal", "accuracy"),
        ("suffix", "nll"),
        ("suffix", "accuracy"),
    },
    "nsp": {("next_sentence", "accuracy"), ("sentence_order", "accuracy")},
    "mlm_nsp": {
        ("masked", "ce"),
        ("masked", "accuracy"),
        ("next_sentence", "accuracy"),
        ("sentence_order", "accuracy"),
    },
}
PROBE = {("probe", "balanced_accuracy"), ("probe", "accuracy")}
LAST_WORD = {("last_word", "accuracy"), ("last_word", "nll")}
BASELINES = {
    "causal": {"unigram", "bigram"},
    "masked": {"unigram", "bigram"},
    "next_sentence": {"TF-IDF overlap", "majority"},
    "sentence_order": {"naive Bayes", "majority"},
    "suffix": {"unigram", "bigram"},
    "probe": {"bag of words", "majority"},
    "last_word": {"unigram", "bigram", "most frequent last word"},
}


@pytest.fixture
def copy(home, tmp_path):
    """A finished run of clm that may be damaged."""
    return shutil.copytree(home.finished("clm"), tmp_path / "run")


def measured(rows, kind):
    return {(row["task"], row["metric"]) for row in rows if row["kind"] == kind}


@pytest.mark.parametrize("objective", SUITABLE)
def test_every_suitable_task_is_scored_beside_its_baselines(home, tmp_path, objective):
    workdir = shutil.copytree(home.finished(objective), tmp_path / "run")
    rows = evaluator.evaluate(workdir, "test", [], "latest")
    shared = PROBE | (
        set() if objective == "nsp" else LAST_WORD
    )  # a classifier of pairs predicts no words
    assert (
        measured(rows, "model") == SUITABLE[objective] | shared
        and measured(rows, "untrained") == shared
    )
    for task in {task for task, _ in SUITABLE[objective] | shared}:
        assert {
            row["arm"] for row in rows if row["task"] == task and row["kind"] == "baseline"
        } == BASELINES[task]
    for row in rows:
        assert set(row) == {
            "arm",
            "seed",
            "task",
            "metric",
            "value",
            "count",
            "unit",
            "better",
            "kind",
            "own",
        }
        assert (
            np.isfinite(row["value"]) and row["count"] > 0 and row["better"] in ("lower", "higher")
        )
        assert row["unit"] != "share" or 0 <= row["value"] <= 1
        assert row["seed"] == (-1 if row["kind"] == "baseline" else 0)
        assert row["own"] == (row["task"] not in ("probe", "last_word"))
    file = workdir / "evaluation-test.json"
    assert json.loads(file.read_text()) == {"step": STEPS, "split": "test", "rows": rows}
    once = file.read_text()
    assert evaluator.evaluate(workdir, "test", [], "latest") == rows
    assert file.read_text() == once
    lines = evaluator.table(rows).splitlines()
    assert len(lines) == len(SUITABLE[objective] | shared) and all(
        "model" in line and "n=" in line for line in lines
    )


def test_the_model_and_its_baselines_have_the_same_targets(home):
    trained = load_run(home.finished("clm"), progress=False)
    tasks = evaluator.make_tasks(["causal"], trained.corpus, "test", trained.program.length)
    rows = (
        evaluator.score(tasks, trained.program, trained.params, "model", 0)
        + evaluator.baselines(tasks, trained.program)
    ).rows
    counts = {(row["metric"], row["count"]) for row in rows if row["metric"] != "accuracy"}
    assert len(counts) == 3, counts


def test_a_step_is_latest_best_or_a_number(home, copy):
    assert load_run(copy, progress=False).step == STEPS
    assert load_run(copy, "9", progress=False).step == 9
    best = load_run(copy, "best", progress=False)
    losses = {
        line["step"]: line["loss"] for line in runs.metrics(copy) if line["split"] == "validation"
    }
    assert best.step == min(
        (step for step in losses if (copy / "checkpoints" / str(step)).exists()), key=losses.get
    )
    for step in ("8", "last", "-1", ""):
        with pytest.raises(
            UserError, match=rf"has no checkpoint '{step}'; there are: latest, best, 9, 10"
        ):
            load_run(copy, step, progress=False)


def test_the_loss_is_that_of_training(home):
    """The restored parameters give the validation loss in the run's record."""
    trained = load_run(home.finished("clm"), progress=False)
    config = trained.record["config"]["training"]
    store = trained.corpus.stores["validation"]
    validation = Validation(
        trained.program,
        trained.program.objective,
        store,
        "validation",
        config["evaluate_tokens"],
        config["batch_size"],
    )
    means = divide_sums(validation.sums(trained.params))
    assert means["clm"] == trained.record["final"]["clm"]


def test_a_run_of_another_machine_uses_the_devices_of_this_one(home, copy):
    record = runs.record(copy)
    record["config"]["mesh"] = {"data": 64, "fsdp": 2, "tensor": 1}
    (copy / "run.json").write_text(json.dumps(record))
    here = load_run(copy, progress=False)
    assert set(here.program.mesh.shape.values()) == {1}


@pytest.mark.parametrize(
    ("damage", "words"),
    {
        "no workdir": (
            lambda run: shutil.rmtree(run),
            r"has no run\.json .*is it the right directory\?",
        ),
        "no record": (
            lambda run: (run / "run.json").unlink(),
            r"has no run\.json .*is it the right directory\?",
        ),
        "half a record": (
            lambda run: (run / "run.json").write_text("{"),
            r"run\.json .* cannot be read",
        ),
        "no record of a run": (
            lambda run: (run / "run.json").write_text("{}"),
            r"run\.json is no record of a run of lm\.train",
        ),
        "no checkpoints": (
            lambda run: shutil.rmtree(run / "checkpoints"),
            r"has no checkpoints; give the workdir of a finished or running",
        ),
        "empty checkpoints": (
            lambda run: [shutil.rmtree(step) for step in (run / "checkpoints").iterdir()],
            r"there are: .* none yet",
        ),
        "damaged": (
            lambda run: [
                path.write_bytes(b"") for path in (run / "checkpoints" / "10").rglob("d/*")
            ],
            r"the checkpoint of step 10 in .* cannot be read.*--step=9 names another",
        ),
        "other text": (
            lambda run: (run / "run.json").write_text(
                (run / "run.json").read_text().replace('"fingerprint": "', '"fingerprint": "0')
            ),
            r"has changed since training: its fingerprint was 0\w+ and is \w+ now",
        ),
    }.values(),
    ids=[
        "no workdir",
        "no record",
        "half a record",
        "no record of a run",
        "no checkpoints",
        "empty checkpoints",
        "damaged",
        "other text",
    ],
)
# A read that fails closes orbax's event loop while other reads are running.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_workdir_is_refused(copy, damage, words):
    damage(copy)
    with pytest.raises(UserError, match=words):
        evaluator.evaluate(copy, "test", [], "latest")
    assert not (copy / "evaluation-test.json").exists()


def test_a_task_that_does_not_suit_is_refused(home, copy):
    with pytest.raises(UserError, match="task 'masked' does not suit objective 'clm'"):
        evaluator.evaluate(copy, "test", ["masked"], "latest")
    valid = ", ".join(plugins.names("tasks"))
    with pytest.raises(
        UserError, match=f"no tasks plug-in is called 'maskd' .*there are: {valid}$"
    ):
        evaluator.evaluate(copy, "test", ["maskd"], "latest")
    trained = load_run(copy, progress=False)
    with pytest.raises(UserError, match="split 'dev' is not one of train, validation, test"):
        evaluator.make_tasks(["causal"], trained.corpus, "dev", trained.program.length)
    with pytest.raises(UserError, match="tasks.causal.token=5 is not known"):
        evaluator.make_tasks(
            ["causal"], trained.corpus, "test", trained.program.length, {"causal": {"token": 5}}
        )
