"""Comparisons: each run is trained once, interruptions change nothing, all arms start alike."""

import copy
import itertools
import json
import os
import shutil
import signal
import time

import jax
import numpy as np
import pyarrow.parquet
import pytest
import runs
from runs import STEPS, home  # noqa: F401

from lm.comparison import jobs, trial
from lm.comparison import run as comparison_run
from lm.core import compatibility
from lm.core.plugins import UserError
from lm.data import corpus as corpora
from lm.data import loader
from lm.training import loop, meter, stopping
from lm.training.program import Program

RUNS = ["clm-seed0", "nsp-seed0", "clm-seed1", "nsp-seed1"]


CHECK = {
    "text": "better than dice",
    "arm": "nsp",
    "task": "next_sentence",
    "metric": "accuracy",
    "compare": "",
    "op": "above",
    "value": 0.0,
}


@pytest.fixture
def direct(monkeypatch):
    runs.in_this_process(monkeypatch)


def experiment(home) -> dict:
    """Two objectives, two seeds, as many steps as `home.finished`."""
    arms = {
        name: {"label": name.upper(), "describe": "a test", "run": home.config(name)}
        for name in ("clm", "nsp")
    }
    return {
        "name": "test",
        "question": "Does it run?",
        "seeds": (0, 1),
        "budget": {"matched": "tokens", "value": STEPS * 8 * 32},
        "split": "test",
        "tasks": ("causal", "next_sentence", "probe"),
        "workers": 2,
        "arms": arms,
        "hypotheses": (CHECK,),
    }


def compare(wanted, workdir) -> int:
    return comparison_run.compare(wanted, workdir, "python -m lm.compare", "a test")


def results(workdir) -> dict[tuple, float]:
    rows = pyarrow.parquet.read_table(workdir / "results.parquet").to_pylist()
    return {
        (row["arm"], row["seed"], row["kind"], row["task"], row["metric"]): row["value"]
        for row in rows
    }


@pytest.fixture(scope="module")
def complete(home, tmp_path_factory):
    """An uninterrupted comparison, in this process."""
    home.finished("clm")
    workdir = tmp_path_factory.mktemp("complete") / "comparison"
    with pytest.MonkeyPatch.context() as patch:
        runs.in_this_process(patch)
        assert compare(experiment(home), workdir) == 0
    return workdir


def test_a_comparison_writes_all_runs_and_a_report(complete):
    assert sorted(path.name for path in (complete / "runs").iterdir()) == sorted(RUNS)
    rows = results(complete)
    trained = {(arm, seed, task) for arm, seed, kind, task, _ in rows if kind == "model"}
    own = {("clm", "causal"), ("nsp", "next_sentence"), ("clm", "probe"), ("nsp", "probe")}
    assert trained == {(arm, seed, task) for arm, task in own for seed in (0, 1)}
    assert {arm for arm, _, kind, _, _ in rows if kind == "untrained"} == {
        "untrained decoder",
        "untrained encoder",
    }
    assert {arm for arm, seed, kind, _, _ in rows if kind == "baseline" and seed == -1} >= {
        "unigram",
        "bigram",
        "majority",
        "bag of words",
    }
    record = json.loads((complete / "comparison.json").read_text())
    assert (
        record["seeds"] == [0, 1]
        and record["arms"]["clm"]["parameters"] > 10_000
        and record["seconds"] > 0
    )
    assert all(
        runs.record(complete / "runs" / name)["tokens"] == record["budget"]["value"]
        for name in RUNS
    )
    for arm, plan in record["planned"].items():
        made = runs.record(complete / "runs" / f"{arm}-seed0")
        assert (plan["steps"], plan["tokens"], plan["flops"]) == (
            made["step"],
            made["tokens"],
            made["flops"],
        )
        # The expected number, against that of a run.
        assert plan["loss_tokens"] == pytest.approx(made["loss_tokens"], rel=0.03)
        assert (
            record["arms"][arm]["flops_per_token"] == made["flops"] / made["tokens"]
            and record["arms"][arm]["series"] == arm
        )
    assert record["planned"]["nsp"]["loss_tokens"] == STEPS * 8
    assert record["tasks"]["probe"] == {
        "task": "probe",
        "shared": True,
        "metrics": ["balanced_accuracy", "accuracy"],
    }
    assert record["hypotheses_fixed"] == record["started"] and "tuning" not in record
    line = json.loads(
        (complete / "runs" / "clm-seed0" / "metrics.jsonl").read_text().splitlines()[-1]
    )
    assert line["flops"] == record["planned"]["clm"]["flops"] and line["seconds"] > 0
    assert "Does it run?" in (complete / "report.html").read_text()
    assert (complete / "report.md").exists()


def test_an_arm_equals_a_run_of_lm_train(home, complete):
    """The same config and seed give the same bits."""
    config = home.config("clm")
    assert config["training"]["tokens"] == 0  # the comparison sets tokens, this config steps
    assert (
        runs.record(complete / "runs" / "clm-seed0")["final"]
        == runs.record(home.finished("clm"))["final"]
    )


def test_a_finished_comparison_is_not_computed_again(home, complete, direct, monkeypatch, capsys):
    before, table = runs.files(complete / "runs"), results(complete)
    monkeypatch.setattr(loop, "train", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr(trial, "baselines", lambda *_, **__: pytest.fail("measured again"))
    assert compare(experiment(home), complete) == 0
    assert runs.files(complete / "runs") == before and results(complete) == table
    assert "4 of 4 runs were finished before" in capsys.readouterr().err


def test_a_killed_comparison_resumes_with_the_same_results(home, complete, tmp_path):
    """The command with worker processes; the process group is killed once one run is finished."""
    file, workdir = (
        runs.config_file(experiment(home), tmp_path / "config.py"),
        tmp_path / "comparison",
    )
    # Record and compiled programs exist, which would take most of the time.
    workdir.mkdir()
    shutil.copy(complete / "comparison.json", workdir)
    shutil.copytree(home.root / "compiled", trial.compilation_cache(workdir))
    arguments = ("-m", "lm.compare", f"--config={file}", f"--workdir={workdir}")
    first = runs.command(*arguments)
    deadline = time.monotonic() + 300
    while not (finished := list(workdir.glob("runs/*/scores.json"))):
        assert first.poll() is None and time.monotonic() < deadline, first.communicate()
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert not (workdir / "results.parquet").exists()
    kept = {
        path: path.stat().st_mtime_ns
        for run in finished
        for path in run.parent.iterdir()
        if path.is_file()
    }
    again = runs.command(*arguments)
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, out + err
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert f"report: {workdir.resolve() / 'report.html'}" in out and "4 of 4 runs" in out
    assert all(runs.record(workdir / "runs" / name)["status"] == "done" for name in RUNS)
    ended, uninterrupted = results(workdir), results(complete)
    assert ended == uninterrupted
    # The session that was killed counts in the wall time as well.
    before, after = (
        json.loads((directory / "comparison.json").read_text())["sessions"]
        for directory in (complete, workdir)
    )
    assert after[: len(before)] == before and len(after) == len(before) + 2
    assert all(
        session["began"] < session["ended"] <= later["began"]
        for session, later in itertools.pairwise(after[len(before) :])
    )


def test_a_run_that_fails_is_reported_and_not_counted(
    home, complete, direct, tmp_path, monkeypatch, capsys
):
    def fail(config, workdir, **options):
        if workdir.name == "nsp-seed1":
            raise RuntimeError("the disk caught fire")
        raise meter.Diverged("nsp is nan at step 3; training stops.")

    workdir = shutil.copytree(complete, tmp_path / "comparison")
    for name in ("nsp-seed0", "nsp-seed1"):
        shutil.rmtree(workdir / "runs" / name)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train", fail)
        assert compare(experiment(home), workdir) == 1
    output = capsys.readouterr()
    assert "nsp-seed1 failed: RuntimeError: the disk caught fire" in output.err
    assert "nsp-seed0 diverged: nsp is nan at step 3; training stops." in output.err
    assert "2 of 4 runs" in output.out
    assert {(arm, seed) for arm, seed, kind, *_ in results(workdir) if kind == "model"} == {
        ("clm", 0),
        ("clm", 1),
    }
    assert "failed" in (workdir / "report.md").read_text()
    assert compare(experiment(home), workdir) == 0  # started again, it runs what failed
    assert results(workdir) == results(complete)


def test_a_run_that_diverged_is_a_result(home, complete, direct, tmp_path, monkeypatch, capsys):
    workdir = shutil.copytree(complete, tmp_path / "comparison")
    made = runs.record(workdir / "runs" / "nsp-seed0")
    (workdir / "runs" / "nsp-seed0" / "run.json").write_text(
        json.dumps(made | {"status": "diverged", "error": "nsp is nan at step 3"})
    )
    (workdir / "runs" / "nsp-seed0" / "scores.json").unlink()
    monkeypatch.setattr(loop, "train", lambda *_, **__: pytest.fail("trained again"))
    assert compare(experiment(home), workdir) == 0
    output = capsys.readouterr()
    assert "nsp-seed0 diverged: nsp is nan at step 3" in output.err and "3 of 4 runs" in output.out
    assert ("nsp", 0, "model", "next_sentence", "accuracy") not in results(workdir)
    assert "diverged" in (workdir / "report.md").read_text()


def test_a_hypothesis_without_a_comparison_is_rejected_and_may_be_corrected(
    home, complete, direct, tmp_path
):
    workdir = shutil.copytree(complete, tmp_path / "comparison")
    wanted = experiment(home) | {
        "hypotheses": (
            {**CHECK, "arm": "clm", "task": "causal", "metric": "nll", "compare": "unigrm"},
        )
    }
    record = json.loads((workdir / "comparison.json").read_text())
    (workdir / "comparison.json").unlink()
    shutil.rmtree(workdir / ".claims")
    record |= {
        "hypotheses": list(wanted["hypotheses"]),
        "experiment": record["experiment"] | {"hypotheses": list(wanted["hypotheses"])},
    }
    (workdir / "comparison.json").write_text(json.dumps(record))
    with pytest.raises(
        UserError,
        match="compares with 'unigrm', which is no .* with a score on causal nll;"
        " there are: bigram, clm, nsp, uni",
    ):
        compare(wanted, workdir)
    wanted["hypotheses"][0]["compare"] = "unigram"
    assert compare(wanted, workdir) == 0
    wanted["hypotheses"][0]["compare"] = "bigram"
    with pytest.raises(
        UserError,
        match="(?s)hypotheses.0.compare: 'unigram' there, 'bigram' now.*were fixed at the first"
        " start, 20",
    ):
        compare(wanted, workdir)


def test_more_seeds_may_be_added_but_nothing_else_changed(home, complete, direct):
    table = results(complete)
    before = {
        name: stat for name, stat in runs.files(complete).items() if not name.startswith(".claims")
    }
    wanted = experiment(home)
    wanted["arms"]["nsp"]["run"]["optimizer"]["learning_rate"] = 0.5
    with pytest.raises(UserError, match="holds another experiment:\n") as raised:
        compare(wanted, complete)
    assert "config.arms.nsp.run.optimizer.learning_rate: 0.001 there, 0.5 now" in str(raised.value)
    assert {
        name: stat for name, stat in runs.files(complete).items() if not name.startswith(".claims")
    } == before
    with pytest.raises(
        UserError, match=r"has runs of the seeds \[1\]: seeds may be added, not left out"
    ):
        compare(experiment(home) | {"seeds": (0,)}, complete)
    record = json.loads((complete / "comparison.json").read_text())
    other = record | {"data": record["data"] | {"fingerprint": "another"}}
    (complete / "comparison.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match="was compared on other data: fingerprint another there"):
        compare(experiment(home), complete)
    # As after a comparison of seed 0 alone; seed 1 is added.
    (complete / "comparison.json").write_text(json.dumps(record | {"seeds": [0]}))
    assert compare(experiment(home), complete) == 0
    assert results(complete) == table
    (added,) = json.loads((complete / "comparison.json").read_text())["seeds_added"]
    at = added["at"].replace("T", " ").removesuffix("Z")
    note = f"Seeds added later: 1 ({at}). The intervals and p-values do not account for"
    assert added["seeds"] == [1] and note in (complete / "report.md").read_text()
    assert compare(experiment(home), complete) == 0, "noted once"
    assert json.loads((complete / "comparison.json").read_text())["seeds_added"] == [added]


def test_a_workdir_with_other_files_is_rejected(home, tmp_path):
    (tmp_path / "file").write_text("kept")
    before = runs.files(tmp_path)
    with pytest.raises(
        UserError,
        match="contains files that are not of a comparison; give an empty or new directory",
    ):
        compare(experiment(home), tmp_path)
    with pytest.raises(UserError, match="is a file; give a directory"):
        compare(experiment(home), tmp_path / "file")
    with pytest.raises(UserError, match="cannot be written"):
        compare(experiment(home), tmp_path / "file" / "below")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "comparison.json").write_text("{}")
    with pytest.raises(UserError, match=r"comparison\.json"):
        compare(experiment(home), tmp_path / "damaged")
    assert {
        name: stat for name, stat in runs.files(tmp_path).items() if not name.startswith("damaged/")
    } == before


def _with(path: str, value):
    """Sets a field, its path separated by dots."""

    def change(wanted):
        *sections, field = path.split(".")
        for section in sections:
            wanted = wanted[section]
        wanted[field] = value

    return change


IMPOSSIBLE = {
    "the budget's kind": (
        _with("budget.matched", "steps"),
        "config.budget: matched='steps' is not one of tokens, flops, loss_tokens",
    ),
    "no budget": (
        _with("budget.value", 0),
        "config.budget: value=0.0 must be a number of tokens above 0",
    ),
    "less than a step": (
        _with("budget.value", 100),
        "config.budget.value=100 tokens are less than one step of arm 'clm', 256",
    ),
    "unequal steps": (
        _with("arms.nsp.run.training.batch_size", 24),
        "the arms cannot be matched within 1.00% of tokens: 'clm' would get 11.11% more than"
        " 'nsp'.*config.budget.value=3072 would match",
    ),
    "batch of nothing": (_with("arms.nsp.run.training.batch_size", 0), "arm 'nsp'.*batch_size=0"),
    "no seeds": (
        _with("seeds", ()),
        r"config.seeds=\[\] must be different whole numbers from 0",
    ),
    "equal seeds": (_with("seeds", (1, 1)), "must be different whole numbers"),
    "a float seed": (_with("seeds", (0.5,)), "must be different whole numbers"),
    "an arm's name": (
        lambda wanted: wanted["arms"].update({"a/b": wanted["arms"]["clm"]}),
        "names of arms have letters",
    ),
    "the reference": (
        _with("reference", "mlm"),
        "config.reference='mlm' is no arm; arms: clm, nsp",
    ),
    "a hypothesis's arm": (
        _with("hypotheses", ({**CHECK, "arm": "mlm"},)),
        r"config.hypotheses\[0\] \(better than dice\): arm='mlm' is not",
    ),
    "a hypothesis's task": (
        _with("hypotheses", ({**CHECK, "task": "masked"},)),
        "task='masked' is not one of causal, next_sentence, probe",
    ),
    "a hypothesis's metric": (
        _with("hypotheses", ({**CHECK, "metric": "nll"},)),
        "metric='nll' is not one of accuracy",
    ),
    "a hypothesis's op": (
        _with("hypotheses", ({**CHECK, "op": "over"},)),
        "op='over' is not one of above, below",
    ),
    "a hypothesis's value": (
        _with("hypotheses", ({**CHECK, "value": "a"},)),
        "value='a' should be a finite number",
    ),
    "a hypothesis alone": (
        _with("hypotheses", ({**CHECK, "op": "ratio_above"},)),
        "op='ratio_above' needs compare",
    ),
    "an untrained model": (
        _with("hypotheses", ({**CHECK, "compare": "untrained rnn"},)),
        "untrained models of this experiment are: untrained decoder, un",
    ),
    "a task that does not suit an arm": (
        _with("hypotheses", ({**CHECK, "arm": "nsp", "task": "causal", "metric": "nll"},)),
        "is about causal of 'nsp', but that task does not suit its objective; arms that it suits:"
        " clm",
    ),
    "a tuned field": (
        _with("tuning", {"field": "optimizer.rate", "factors": (1, 2)}),
        "field='optimizer.rate' is no number in arm 'clm'",
    ),
    "a tuned seed": (
        _with("tuning", {"factors": (1, 2), "seed": 1}),
        "config.tuning.seed=1 is a seed of the main runs",
    ),
    "tuning of nothing": (
        _with("tuning", {"factors": (1, 2), "share": 0.0}),
        "config.tuning: share=0.0 must be a fraction",
    ),
    "a task's option": (
        _with("tasks", {"mine": {"task": "causal", "bytes": 3}}),
        "config.tasks.mine.bytes=3 is not known",
    ),
    "no arms": (_with("arms", {}), "config.arms is empty"),
    "tasks": (
        _with("tasks", ("causal", "glue")),
        "no tasks plug-in is called 'glue'; there are: brackets, causal",
    ),
    "split": (_with("split", "dev"), "split 'dev' is not one of train, validation, test"),
    "an arm": (_with("arms.nsp.run.model.heads", 3), "arm 'nsp': .*heads=3"),
    "an arm's batch": (
        _with("arms.nsp.run.mesh", {"data": 1, "fsdp": 8, "tensor": 2}),
        "arm 'nsp': config.mesh asks for",
    ),
    "another corpus": (
        _with("arms.nsp.run.data.test", 0.2),
        "the arms read different corpora or tokenizers",
    ),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_an_impossible_experiment_is_rejected_before_anything_is_written(
    home, direct, tmp_path, what
):
    change, words = IMPOSSIBLE[what]
    wanted = copy.deepcopy(experiment(home))
    change(wanted)
    with pytest.raises(UserError, match=words):
        compare(wanted, tmp_path / "comparison")
    assert list((tmp_path / "comparison").glob("[!.]*")) == []


def test_a_worker_exits_when_its_run_is_stopped(tmp_path, monkeypatch):
    """If it waited for more work, it would outlive its parent."""
    ends = []

    def stop(*_, **__):
        raise SystemExit(stopping.EXIT_STATUS)

    def end(code):
        ends.append(code)
        raise runs.Killed

    monkeypatch.setattr(loop, "train", stop)
    monkeypatch.setattr(os, "_exit", end)
    directory = tmp_path / "runs" / "clm-seed0"
    with pytest.raises(runs.Killed), runs.compiled(tmp_path):
        jobs.perform(
            tmp_path / "claims",
            "clm-seed0",
            directory,
            lambda: None,
            trial.run,
            (directory, "clm", 0, {}, "test", {}, "test", ""),
        )
    assert ends == [stopping.EXIT_STATUS]


def test_shared_parameters_have_equal_initial_values_in_all_arms(home):
    """Parameters that two objectives' models share are equal at one seed; seeds differ."""
    initial = {}
    for objective in ("clm", "mlm", "nsp", "mlm_nsp"):
        config = home.config(objective)
        corpus = corpora.prepare(config["data"], config["tokenizer"], progress=False)
        for seed in (0, 1) if objective == "clm" else (0,):
            params = Program(config | {"seed": seed}, corpus.tokenizer).init()["params"]
            initial[objective, seed] = {
                jax.tree_util.keystr(path): np.asarray(x)
                for path, x in jax.tree_util.tree_leaves_with_path(params)
            }
    shared = set.intersection(*map(set, initial.values()))
    assert len(shared) >= 8
    random = [name for name in shared if np.unique(initial["clm", 0][name]).size > 1]
    assert len(random) >= 2
    for objective in ("mlm", "nsp", "mlm_nsp"):
        for name in shared:
            np.testing.assert_array_equal(
                initial[objective, 0][name], initial["clm", 0][name], err_msg=name
            )
    for name in random:
        assert (initial["clm", 1][name] != initial["clm", 0][name]).mean() > 0.9


def test_masked_and_causal_models_read_the_same_text_in_the_same_order(home):
    rows = {}
    for objective in ("clm", "mlm"):
        config = home.config(objective)
        corpus = corpora.prepare(config["data"], config["tokenizer"], progress=False)
        made = compatibility.make(
            config["objective"], corpus.tokenizer, config["data"]["length"], config["model"]["name"]
        )
        rows[objective] = loader.examples(
            made, corpus.stores["train"], made.plan(corpus.stores["train"]), 3
        )
    assert len(rows["clm"]) == len(rows["mlm"]) > 20
    specials = corpus.tokenizer.special_ids
    for index in range(20):
        causal, masked = rows["clm"][index], rows["mlm"][index]
        tokens = masked["tokens"].copy()
        is_target = masked["weights"] > 0
        tokens[masked["target_positions"][is_target]] = masked["targets"][is_target]
        assert [t for t in tokens if t not in specials] == [
            t for t in causal["targets"] if t not in specials
        ]
