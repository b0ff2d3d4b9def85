"""Several processes compute what one does, stop together, and go on in other numbers."""

import os
import subprocess
import sys

import jax
import pytest
import runs
import small_corpus

from lm.parallel import mesh
from lm.training import loop
from lm.training.checkpoint import Checkpoints

STEPS = 4
quick_compilation = pytest.fixture(autouse=True)(small_corpus.quick_compilation)


def config(root, **training):
    """A run of STEPS steps on a mesh of as many devices as there are, parameters split over them."""
    training = {
        "steps": STEPS,
        "log_every": 1,
        "evaluate_every": 2,
        "checkpoint_every": 2,
        "evaluate_tokens": 512,
    } | training
    return small_corpus.config(
        "clm",
        root,
        model={"layers": 1},
        training=training,
        mesh={"data": 1, "fsdp": -1, "tensor": 1},
    )


def hosts(count, *command, **environment):
    """Runs python with these arguments on `count` hosts of one device: exit status, and what was printed."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("XLA_", "JAX_", "LM_", "PYTEST"))
    }
    added = {
        "PYTHONPATH": f"{runs.TESTS}:{runs.TESTS.parent}",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    environment = inherited | added | environment
    options = [f"--n={count}", *(environment.pop("options", "").split())]
    command = [sys.executable, "-m", "tpu.local", *options, "--", sys.executable, *command]
    done = subprocess.run(
        command, cwd=runs.TESTS.parent, env=environment, capture_output=True, text=True, timeout=240
    )
    return done.returncode, done.stdout + done.stderr


def alone(monkeypatch, devices, settings, workdir):
    """The same run in this process, on as many devices."""
    make = mesh.make
    with monkeypatch.context() as patch:
        patch.setattr(
            mesh, "make", lambda config, found=None: make(config, jax.devices()[:devices])
        )
        return loop.train(settings, workdir, quiet=True)


def assert_alike(one, other):
    """The same curves and the same end, but for the order of float additions."""
    for line, again in zip(runs.metrics(one), runs.metrics(other), strict=True):
        assert line.pop("split") == again.pop("split")
        assert again == pytest.approx(line, rel=1e-5)
    ends = [runs.state(workdir) for workdir in (one, other)]
    for name in ends[0]:
        assert ends[1][name] == pytest.approx(ends[0][name], rel=1e-3, abs=1e-4), name


def test_four_processes_are_one(tmp_path, monkeypatch):
    """Over gloo, a device each, from a corpus that none finds built; beside them this process with four devices."""
    small_corpus.write(tmp_path)
    settings = config(tmp_path)
    file = runs.config_file(settings, tmp_path / "config.py")
    status, said = hosts(4, "-m", "lm.train", f"--config={file}", f"--workdir={tmp_path / 'many'}")
    assert status == 0, said
    alone(monkeypatch, 4, settings, tmp_path / "one")
    assert [line["step"] for line in runs.metrics(tmp_path / "many")] == [
        1,
        2,
        2,
        3,
        4,
        4,
    ]  # each line once: one process writes
    assert_alike(tmp_path / "one", tmp_path / "many")
    assert runs.record(tmp_path / "many")["machine"]["processes"] == 4
    assert sorted(path.name for path in (tmp_path / "many").iterdir()) == [
        "checkpoints",
        "metrics.jsonl",
        "run.json",
        "tokenizer.model",
    ]
    assert "[0] done: 4 steps" in said and said.count("done:") == 1  # one process tells


# What a host does in its first and in its second life.
FAULTS = """
import os, pathlib, runpy, runs, signal, sys, time, pytest
from lm.training import validation

patch, workdir, lives = pytest.MonkeyPatch(), pathlib.Path({workdir!r}), pathlib.Path({lives!r})


def die():
    while not (workdir / "checkpoints" / "4").is_dir():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


if os.environ["LM_PROCESS"] == "1":
    lives.write_text(lives.read_text() + "I")
    if lives.read_text() == "I":
        runs.at_step(patch, 6, die)
    else:
        sums = validation.Validation.sums

        def told(self, params, before_each):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1.0)  # until the other host knows
            return sums(self, params, before_each)

        patch.setattr(validation.Validation, "sums", told)
sys.argv = ["lm.train", "--config={file}", f"--workdir={{workdir}}"]
runpy.run_module("lm.train", run_name="__main__")
"""


def test_a_host_dies_and_later_one_is_told_to_stop(tmp_path, monkeypatch):
    """One process is killed; two hosts go on. kill -9 of one ends both, which start again; SIGTERM to one stops both in the middle of the
    validation of step 6. Then one process finishes."""
    small_corpus.write(tmp_path)
    settings = config(tmp_path, steps=8)
    workdir, lives = tmp_path / "two", tmp_path / "lives"
    lives.touch()
    with monkeypatch.context() as patch:
        runs.at_step(patch, 3, runs.kill)
        with pytest.raises(runs.Killed):
            alone(monkeypatch, 2, settings, workdir)
    code = FAULTS.format(
        lives=str(lives),
        workdir=str(workdir),
        file=runs.config_file(settings, tmp_path / "config.py"),
    )
    status, said = hosts(
        2, "-c", code, options="--restarts=1", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "compiled")
    )
    assert status == loop.STOPPED, said
    assert "tpu.local: host 1 ended with 137; ending the others" in said
    assert "[0] continues from step 2" in said and "[0] continues from step 4" in said
    assert "[0] stopped at step 6, saved in " in said
    assert Checkpoints(workdir, read_only=True).latest() == 6
    assert [line["split"] for line in runs.metrics(workdir) if line["step"] == 6] == ["train"]
    alone(monkeypatch, 2, settings, workdir)
    alone(monkeypatch, 2, settings, tmp_path / "one")
    assert_alike(tmp_path / "one", workdir)
