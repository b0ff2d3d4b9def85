"""Several processes compute what one does, stop together, and resume in another number."""

import os
import subprocess
import sys

import jax
import pytest
import runs
import small_corpus

from lm.parallel import mesh
from lm.training import loop, stopping
from lm.training.checkpoint import Checkpoints

STEPS = 4
quick_compilation = pytest.fixture(autouse=True)(small_corpus.quick_compilation)


def config(root, **training):
    """A run of STEPS steps on a mesh of all devices, which split the parameters."""
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
    """Runs Python with these arguments on `count` hosts of one device: (exit status, output)."""
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
    """Runs the same config in this process, on `devices` devices."""
    make = mesh.make
    with monkeypatch.context() as patch:
        patch.setattr(
            mesh, "make", lambda config, given=None: make(config, jax.devices()[:devices])
        )
        return loop.train(settings, workdir, quiet=True)


def assert_alike(one, other):
    """Asserts equal curves and final states, up to the order of float additions."""
    for line, again in zip(runs.metrics(one), runs.metrics(other), strict=True):
        assert line.pop("split") == again.pop("split")
        assert again == pytest.approx(line, rel=1e-5)
    ends = [runs.state(workdir) for workdir in (one, other)]
    for name in ends[0]:
        assert ends[1][name] == pytest.approx(ends[0][name], rel=1e-3, abs=1e-4), name


def test_four_processes_are_one(tmp_path, monkeypatch):
    """Four processes of one device, over gloo, against this process with four devices.

    The corpus does not exist yet: one of the processes writes it.
    """
    small_corpus.write(tmp_path)
    settings = config(tmp_path)
    file = runs.config_file(settings, tmp_path / "config.py")
    status, output = hosts(
        4, "-m", "lm.train", f"--config={file}", f"--workdir={tmp_path / 'many'}"
    )
    assert status == 0, output
    alone(monkeypatch, 4, settings, tmp_path / "one")
    # Each line is there once: one process writes.
    steps = [line["step"] for line in runs.metrics(tmp_path / "many")]
    assert steps == [1, 2, 2, 3, 4, 4]
    assert_alike(tmp_path / "one", tmp_path / "many")
    assert runs.record(tmp_path / "many")["machine"]["processes"] == 4
    assert sorted(path.name for path in (tmp_path / "many").iterdir()) == [
        "checkpoints",
        "metrics.jsonl",
        "run.json",
        "tokenizer.model",
    ]
    assert "[0] done: 4 steps" in output and output.count("done:") == 1  # one process prints


# The faults of host 1: SIGKILL in its first life, SIGTERM in its second.
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

        def terminated(self, params, before_batch):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1.0)  # until the other host has the message
            return sums(self, params, before_batch)

        patch.setattr(validation.Validation, "sums", terminated)
sys.argv = ["lm.train", "--config={file}", f"--workdir={{workdir}}"]
runpy.run_module("lm.train", run_name="__main__")
"""


def test_a_host_is_killed_and_later_one_is_terminated(tmp_path, monkeypatch):
    """One process is killed; two hosts resume.

    SIGKILL of one host ends both, and they restart. SIGTERM to one stops both in the middle of the
    validation of step 6. Then one process finishes the run.
    """
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
    status, output = hosts(
        2, "-c", code, options="--restarts=1", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "compiled")
    )
    assert status == stopping.EXIT_STATUS, output
    assert "tpu.local: host 1 ended with 137; ending the others" in output
    assert "[0] continues from step 2" in output and "[0] continues from step 4" in output
    assert "[0] stopped at step 6, saved in " in output
    assert Checkpoints(workdir, read_only=True).latest() == 6
    assert [line["split"] for line in runs.metrics(workdir) if line["step"] == 6] == ["train"]
    alone(monkeypatch, 2, settings, workdir)
    alone(monkeypatch, 2, settings, tmp_path / "one")
    assert_alike(tmp_path / "one", workdir)
