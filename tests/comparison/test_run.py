"""A comparison computes each run once, whoever stops it, counts what counts, and gives every arm the same start."""

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
from lm.training import loop
from lm.training.program import Program

RUNS = ["clm-seed0", "nsp-seed0", "clm-seed1", "nsp-seed1"]


CHECK = {
    "text": "better than dice", "arm": "nsp", "task": "next_sentence", "metric": "accuracy", "compare": "", "op": "above", "value": 0.0,
}  # fmt: skip


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
def whole(home, tmp_path_factory):
    """An uninterrupted comparison, in this process."""
    home.finished("clm")
    workdir = tmp_path_factory.mktemp("whole") / "comparison"
    with pytest.MonkeyPatch.context() as patch:
        runs.in_this_process(patch)
        assert compare(experiment(home), workdir) == 0
    return workdir


def test_a_comparison_leaves_every_run_and_a_report(whole):
    assert sorted(path.name for path in (whole / "runs").iterdir()) == sorted(RUNS)
    found = results(whole)
    trained = {(arm, seed, task) for arm, seed, kind, task, _ in found if kind == "model"}
    own = {("clm", "causal"), ("nsp", "next_sentence"), ("clm", "probe"), ("nsp", "probe")}
    assert trained == {(arm, seed, task) for arm, task in own for seed in (0, 1)}
    assert {arm for arm, _, kind, _, _ in found if kind == "untrained"} == {
        "untrained decoder",
        "untrained encoder",
    }
    assert {arm for arm, seed, kind, _, _ in found if kind == "baseline" and seed == -1} >= {
        "unigram",
        "bigram",
        "majority",
        "bag of words",
    }
    record = json.loads((whole / "comparison.json").read_text())
    assert (
        record["seeds"] == [0, 1]
        and record["arms"]["clm"]["parameters"] > 10_000
        and record["seconds"] > 0
    )
    assert all(
        runs.record(whole / "runs" / name)["tokens"] == record["budget"]["value"] for name in RUNS
    )
    for arm, plan in record["planned"].items():
        made = runs.record(whole / "runs" / f"{arm}-seed0")
        assert (plan["steps"], plan["tokens"], plan["flops"]) == (
            made["step"],
            made["tokens"],
            made["flops"],
        )
        assert plan["loss_tokens"] == pytest.approx(
            made["loss_tokens"], rel=0.03
        )  # expected, and drawn
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
    line = json.loads((whole / "runs" / "clm-seed0" / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["flops"] == record["planned"]["clm"]["flops"] and line["seconds"] > 0
    assert "Does it run?" in (whole / "report.html").read_text()
    assert (whole / "report.md").exists()


def test_an_arm_is_the_run_that_lm_train_makes(home, whole):
    """The same config with the same seed: the same bits."""
    config = home.config("clm")
    assert config["training"]["tokens"] == 0  # the comparison says tokens, the run said steps
    assert (
        runs.record(whole / "runs" / "clm-seed0")["final"]
        == runs.record(home.finished("clm"))["final"]
    )


def test_a_finished_comparison_computes_nothing_again(home, whole, direct, monkeypatch, capsys):
    before, table = runs.files(whole / "runs"), results(whole)
    monkeypatch.setattr(loop, "train", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr(trial, "baselines", lambda *_, **__: pytest.fail("measured again"))
    assert compare(experiment(home), whole) == 0
    assert runs.files(whole / "runs") == before and results(whole) == table
    assert "4 of 4 runs were finished before" in capsys.readouterr().err


def test_killed_and_started_again_it_ends_alike(home, whole, tmp_path):
    """By the command, with worker processes; the kill takes the whole process group once one run is finished."""
    file, workdir = (
        runs.config_file(experiment(home), tmp_path / "config.py"),
        tmp_path / "comparison",
    )
    # It knows what it is about, and has compiled its programs: most of the time would go there.
    workdir.mkdir()
    shutil.copy(whole / "comparison.json", workdir)
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
    ended, uninterrupted = results(workdir), results(whole)
    assert ended == uninterrupted
    # The session that was killed counts in the wall time as well.
    before, after = (
        json.loads((each / "comparison.json").read_text())["sessions"] for each in (whole, workdir)
    )
    assert after[: len(before)] == before and len(after) == len(before) + 2
    assert all(
        each["began"] < each["ended"] <= later["began"]
        for each, later in itertools.pairwise(after[len(before) :])
    )


def test_a_run_that_fails_is_told_and_not_counted(
    home, whole, direct, tmp_path, monkeypatch, capsys
):
    def fail(config, workdir, **options):
        if workdir.name == "nsp-seed1":
            raise RuntimeError("the disk caught fire")
        raise loop.Diverged("nsp is nan at step 3; training stops.")

    workdir = shutil.copytree(whole, tmp_path / "comparison")
    for name in ("nsp-seed0", "nsp-seed1"):
        shutil.rmtree(workdir / "runs" / name)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train", fail)
        assert compare(experiment(home), workdir) == 1
    told = capsys.readouterr()
    assert "nsp-seed1 failed: RuntimeError: the disk caught fire" in told.err
    assert "nsp-seed0 diverged: nsp is nan at step 3; training stops." in told.err
    assert "2 of 4 runs" in told.out
    assert {(arm, seed) for arm, seed, kind, *_ in results(workdir) if kind == "model"} == {
        ("clm", 0),
        ("clm", 1),
    }
    assert "failed" in (workdir / "report.md").read_text()
    assert compare(experiment(home), workdir) == 0  # started again, what failed is run
    assert results(workdir) == results(whole)


def test_a_run_that_diverged_is_kept_as_a_result(
    home, whole, direct, tmp_path, monkeypatch, capsys
):
    workdir = shutil.copytree(whole, tmp_path / "comparison")
    made = runs.record(workdir / "runs" / "nsp-seed0")
    (workdir / "runs" / "nsp-seed0" / "run.json").write_text(
        json.dumps(made | {"status": "diverged", "error": "nsp is nan at step 3"})
    )
    (workdir / "runs" / "nsp-seed0" / "scores.json").unlink()
    monkeypatch.setattr(loop, "train", lambda *_, **__: pytest.fail("trained again"))
    assert compare(experiment(home), workdir) == 0
    told = capsys.readouterr()
    assert "nsp-seed0 diverged: nsp is nan at step 3" in told.err and "3 of 4 runs" in told.out
    assert ("nsp", 0, "model", "next_sentence", "accuracy") not in results(workdir)
    assert "diverged" in (workdir / "report.md").read_text()


def test_a_hypothesis_against_nobody_is_refused_and_may_be_corrected(home, whole, direct, tmp_path):
    workdir = shutil.copytree(whole, tmp_path / "comparison")
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
        match="compares with 'unigrm', which is no .* with a score on causal nll; there are: bigram, clm, nsp, uni",
    ):
        compare(wanted, workdir)
    wanted["hypotheses"][0]["compare"] = "unigram"
    assert compare(wanted, workdir) == 0
    wanted["hypotheses"][0]["compare"] = "bigram"
    with pytest.raises(
        UserError,
        match="(?s)hypotheses.0.compare: 'unigram' there, 'bigram' now.*were fixed at the first start, 20",
    ):
        compare(wanted, workdir)


def test_more_seeds_may_be_added_but_nothing_else_changed(home, whole, direct):
    table = results(whole)
    before = {
        name: stat for name, stat in runs.files(whole).items() if not name.startswith(".claims")
    }
    wanted = experiment(home)
    wanted["arms"]["nsp"]["run"]["optimizer"]["learning_rate"] = 0.5
    with pytest.raises(UserError, match="holds another experiment:\n") as raised:
        compare(wanted, whole)
    assert "config.arms.nsp.run.optimizer.learning_rate: 0.001 there, 0.5 now" in str(raised.value)
    assert {
        name: stat for name, stat in runs.files(whole).items() if not name.startswith(".claims")
    } == before
    with pytest.raises(
        UserError, match=r"has runs of the seeds \[1\]: seeds may be added, not left out"
    ):
        compare(experiment(home) | {"seeds": (0,)}, whole)
    record = json.loads((whole / "comparison.json").read_text())
    other = record | {"data": record["data"] | {"fingerprint": "another"}}
    (whole / "comparison.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match="was compared on other data: fingerprint another there"):
        compare(experiment(home), whole)
    # As a comparison of seed 0 alone would have left it: seed 1 is added.
    (whole / "comparison.json").write_text(json.dumps(record | {"seeds": [0]}))
    assert compare(experiment(home), whole) == 0
    assert results(whole) == table
    (added,) = json.loads((whole / "comparison.json").read_text())["seeds_added"]
    said = f"Seeds added later: 1 ({added['at'].replace('T', ' ').removesuffix('Z')}). Intervals and p take no account"
    assert added["seeds"] == [1] and said in (whole / "report.md").read_text()
    assert compare(experiment(home), whole) == 0, "and said once"
    assert json.loads((whole / "comparison.json").read_text())["seeds_added"] == [added]


def test_a_workdir_of_something_else_is_refused(home, tmp_path):
    (tmp_path / "file").write_text("kept")
    before = runs.files(tmp_path)
    with pytest.raises(
        UserError, match="holds something that is no comparison; give an empty or new directory"
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
        "the arms cannot be matched within 1.00% of tokens: 'clm' would get 11.11% more than 'nsp'.*config.budget.value=3072 would match",
    ),
    "batch of nothing": (_with("arms.nsp.run.training.batch_size", 0), "arm 'nsp'.*batch_size=0"),
    "no seeds": (_with("seeds", ()), r"config.seeds=\[\] must be different whole numbers from 0"),
    "equal seeds": (_with("seeds", (1, 1)), "must be different whole numbers"),
    "a float seed": (_with("seeds", (0.5,)), "must be different whole numbers"),
    "an arm's name": (
        lambda wanted: wanted["arms"].update({"a/b": wanted["arms"]["clm"]}),
        "an arm's name is made of letters",
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
        "untrained models here are: untrained decoder, un",
    ),
    "a task that an arm cannot be asked": (
        _with("hypotheses", ({**CHECK, "arm": "nsp", "task": "causal", "metric": "nll"},)),
        "asks 'nsp' for causal, which its objective cannot be asked; arms that can: clm",
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
        "config.tuning: share=0.0 must be a share",
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
def test_an_impossible_experiment_ends_before_it_starts(home, direct, tmp_path, what):
    change, words = IMPOSSIBLE[what]
    wanted = copy.deepcopy(experiment(home))
    change(wanted)
    with pytest.raises(UserError, match=words):
        compare(wanted, tmp_path / "comparison")
    assert list((tmp_path / "comparison").glob("[!.]*")) == []


def test_a_worker_that_was_told_to_stop_ends(tmp_path, monkeypatch):
    """Were it to wait for more work, it would outlive its parent."""
    ends = []

    def stop(*_, **__):
        raise SystemExit(loop.STOPPED)

    def end(code):
        ends.append(code)
        raise runs.Killed

    monkeypatch.setattr(loop, "train", stop)
    monkeypatch.setattr(os, "_exit", end)
    where = tmp_path / "runs" / "clm-seed0"
    with pytest.raises(runs.Killed), runs.compiled(tmp_path):
        jobs.perform(
            tmp_path / "claims",
            "clm-seed0",
            where,
            lambda: None,
            trial.run,
            (where, "clm", 0, {}, "test", {}, "test", ""),
        )
    assert ends == [loop.STOPPED]


def test_shared_parameters_start_alike_in_every_arm(home):
    """What two objectives' models have in common has the same initial values at one seed, and other ones at another."""
    program = {}
    for objective in ("clm", "mlm", "nsp", "mlm_nsp"):
        config = home.config(objective)
        corpus = corpora.prepare(config["data"], config["tokenizer"], progress=False)
        for seed in (0, 1) if objective == "clm" else (0,):
            params = Program(config | {"seed": seed}, corpus.tokenizer).init()["params"]
            program[objective, seed] = {
                jax.tree_util.keystr(path): np.asarray(x)
                for path, x in jax.tree_util.tree_leaves_with_path(params)
            }
    shared = set.intersection(*map(set, program.values()))
    assert len(shared) >= 8
    random = [name for name in shared if np.unique(program["clm", 0][name]).size > 1]
    assert len(random) >= 2
    for objective in ("mlm", "nsp", "mlm_nsp"):
        for name in shared:
            np.testing.assert_array_equal(
                program[objective, 0][name], program["clm", 0][name], err_msg=name
            )
    for name in random:
        assert (program["clm", 1][name] != program["clm", 0][name]).mean() > 0.9


def test_masked_and_causal_models_see_the_same_text_in_the_same_order(home):
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
        asked = masked["weights"] > 0
        tokens[masked["target_positions"][asked]] = masked["targets"][asked]
        assert [t for t in tokens if t not in specials] == [
            t for t in causal["targets"] if t not in specials
        ]
