"""Resumed runs end with the bits of uninterrupted ones; runs that cannot continue report why."""

import gc
import json
import os
import resource
import shutil
import signal
import time

import numpy as np
import pytest
import runs
from runs import STEPS, home  # noqa: F401

from lm.core.plugins import UserError
from lm.training import loop, meter, run_log, stopping, validation
from lm.training.checkpoint import Checkpoints
from lm.training.program import Program

OBJECTIVES = ("clm", "mlm", "nsp", "mlm_nsp")


def train(home, workdir, objective="clm", **overrides):
    return loop.train(home.config(objective, **overrides), workdir, quiet=True)


def interrupted(home, workdir, monkeypatch, step, action, expected, objective="clm", **overrides):
    """Calls `action` before a step of a run; returns the exception that the run raises."""
    with monkeypatch.context() as patch:
        runs.at_step(patch, step, action)
        with pytest.raises(expected) as raised:
            train(home, workdir, objective, **overrides)
    return raised.value


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_killed_run_resumes_to_the_same_bits(home, tmp_path, monkeypatch, objective):
    interrupted(home, tmp_path / "run", monkeypatch, 9, runs.kill, runs.Killed, objective)
    assert runs.record(tmp_path / "run")["status"] == "running"
    train(home, tmp_path / "run", objective)
    runs.assert_same_run(home.finished(objective), tmp_path / "run")


def test_a_finished_run_has_a_complete_record(home):
    workdir = home.finished("mlm_nsp")
    lines = runs.metrics(workdir)
    assert [line["step"] for line in lines if line["split"] == "train"] == [2, 3, 4, 5, 6, 8, 9, 10]
    assert [line["step"] for line in lines if line["split"] == "validation"] == [5, 10]
    assert all(line["loss"] == pytest.approx(line["mlm"] + line["nsp"]) for line in lines)
    record = runs.record(workdir)
    assert (
        record["status"] == "done"
        and record["tokens"] == STEPS * 8 * 32
        and record["final"]["step"] == STEPS
    )
    assert record["final"]["loss"] == lines[-1]["loss"]
    assert STEPS * 8 < record["loss_tokens"] < record["tokens"]
    for part in (
        "config",
        "versions",
        "machine",
        "git",
        "mesh",
        "parameters",
        "flops",
        "data",
        "started",
        "input_wait_share",
    ):
        assert record[part], part
    assert 0.0 <= record["padding"] < 1.0


def test_killed_by_the_system(home, tmp_path):
    """SIGKILL during the save of step 9, after its arrays and before its checksums are written."""
    workdir = tmp_path / "run"
    file = runs.config_file(home.config("clm"), tmp_path / "config.py")
    arguments = ["lm.train", f"--config={file}", f"--workdir={workdir}"]
    code = f"""
import os, runpy, signal, sys
import pytest, runs
from lm.training import checksums

patch = pytest.MonkeyPatch()
runs.one_device(patch)
write = checksums.write_checksums

def write_or_die(folder):
    if folder.name.startswith("9."):
        os.kill(os.getpid(), signal.SIGKILL)
    write(folder)

patch.setattr(checksums, "write_checksums", write_or_die)
sys.argv = {arguments!r}
runpy.run_module("lm.train", run_name="__main__")
"""
    process = runs.command(
        "-c",
        code,
        PYTHONPATH=f"{runs.TESTS}:{runs.TESTS.parent}",
        XLA_FLAGS=os.environ["XLA_FLAGS"],
        JAX_COMPILATION_CACHE_DIR=str(home.root / "compiled"),
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0.1",
    )
    _, printed = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, printed
    assert runs.record(workdir)["status"] == "running" and runs.metrics(workdir)[-1]["step"] >= 8
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == [
        "3",
        "6",
        "9.orbax-checkpoint-tmp",
    ]
    train(home, workdir)
    runs.assert_same_run(home.finished("clm"), workdir)


def test_a_stopped_run_saves_its_step_and_resumes_to_the_same_bits(home, tmp_path, monkeypatch):
    stop = interrupted(
        home,
        tmp_path / "run",
        monkeypatch,
        7,
        lambda: os.kill(os.getpid(), signal.SIGTERM),
        SystemExit,
    )
    assert stop.code == stopping.EXIT_STATUS == 42
    assert Checkpoints(tmp_path / "run", read_only=True).latest() == 7
    train(home, tmp_path / "run")
    runs.assert_same_run(home.finished("clm"), tmp_path / "run")


@pytest.mark.parametrize("step", [5, STEPS])
def test_stopped_during_validation(home, tmp_path, monkeypatch, step):
    """It saves without finishing the validation; the resumed run repeats it exactly once."""
    workdir, sums = tmp_path / "run", validation.Validation.sums
    number = step // 5

    def signalled(self, params, before_batch):
        nonlocal number
        number -= 1
        batches = 0

        def poll():
            nonlocal batches
            batches += 1
            if not number and batches == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            before_batch()

        try:
            return sums(self, params, poll)
        finally:
            assert batches == (4 if number else 2)  # of four

    with monkeypatch.context() as patch:
        patch.setattr(validation.Validation, "sums", signalled)
        with pytest.raises(SystemExit) as stop:
            train(home, workdir)
    assert (
        stop.value.code == stopping.EXIT_STATUS
        and Checkpoints(workdir, read_only=True).latest() == step
    )
    assert [line["split"] for line in runs.metrics(workdir) if line["step"] == step] == ["train"]
    if step < STEPS:
        interrupted(home, workdir, monkeypatch, step + 1, runs.kill, runs.Killed)
        assert [line["split"] for line in runs.metrics(workdir) if line["step"] == step] == [
            "train",
            "validation",
        ]
    train(home, workdir)
    runs.assert_same_run(home.finished("clm"), workdir)


@pytest.mark.parametrize("number", [1, 3])
def test_killed_while_run_json_is_written(home, tmp_path, monkeypatch, number):
    """Half of the new file is written, beside the old one or before there is one."""
    workdir, replace, writes = tmp_path / "run", os.replace, []

    def torn(source, target):
        if str(target).endswith("run.json"):
            writes.append(target)
            if len(writes) == number:
                with open(source, "r+") as file:
                    file.truncate(100)
                raise runs.Killed
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", torn)
        with pytest.raises(runs.Killed):
            train(home, workdir)
    assert (workdir / "run.json").exists() == (number > 1)
    train(home, workdir)
    runs.assert_same_run(home.finished("clm"), workdir)


def test_signal_handlers_are_restored(home, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    interrupted(
        home,
        tmp_path / "run",
        monkeypatch,
        2,
        lambda: os.kill(os.getpid(), signal.SIGINT),
        SystemExit,
    )
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_finished_run_is_not_computed_again(home, tmp_path, monkeypatch):
    shutil.copytree(home.finished("clm"), tmp_path / "run")
    before = runs.files(tmp_path / "run")
    monkeypatch.setattr(Program, "step", lambda *_: pytest.fail("computed again"))
    record = train(home, tmp_path / "run")
    assert record["final"]["step"] == STEPS and record["status"] == "done"
    assert runs.files(tmp_path / "run") == before


def test_killed_between_the_last_checkpoint_and_the_end(home, tmp_path, monkeypatch):
    save = Checkpoints.save

    def save_and_die(self, step, *rest):
        save(self, step, *rest)
        if step == STEPS:
            raise runs.Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_die)
        with pytest.raises(runs.Killed):
            train(home, tmp_path / "run")
    assert runs.record(tmp_path / "run")["status"] == "running"
    train(home, tmp_path / "run")
    runs.assert_same_run(home.finished("clm"), tmp_path / "run")


def test_killed_before_the_first_checkpoint(home, tmp_path, monkeypatch):
    def open_and_die(self, workdir, *rest):
        (workdir / "checkpoints").mkdir()
        raise runs.Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "__init__", open_and_die)
        with pytest.raises(runs.Killed):
            train(home, tmp_path / "run")
    interrupted(home, tmp_path / "run", monkeypatch, 2, runs.kill, runs.Killed)
    train(home, tmp_path / "run")
    runs.assert_same_run(home.finished("clm"), tmp_path / "run")


def test_another_config_or_other_data_is_refused(home, tmp_path, monkeypatch):
    shutil.copytree(home.finished("clm"), tmp_path / "run")
    before = runs.files(tmp_path / "run")
    with pytest.raises(UserError, match=r"another config") as raised:
        train(home, tmp_path / "run", optimizer={"learning_rate": 0.5}, seed=3)
    assert "config.optimizer.learning_rate: 0.001 there, 0.5 now" in str(raised.value)
    assert "config.seed: 0 there, 3 now" in str(raised.value)
    record = runs.record(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text(
        json.dumps(record | {"data": {"fingerprint": "other"}})
    )
    changed = runs.files(tmp_path / "run")
    with pytest.raises(UserError, match="trained on other data: fingerprint other there"):
        train(home, tmp_path / "run")
    assert runs.files(tmp_path / "run") == changed != before


def test_a_loss_that_is_not_finite_stops_the_run(home, tmp_path):
    """The first update ruins the parameters, and the loss of a later step overflows."""
    workdir = tmp_path / "run"
    overrides = {
        "optimizer": {"learning_rate": 1e30, "warmup": 0.0, "clip": 0.0},
        "training": {"checkpoint_every": 1, "evaluate_every": STEPS},
    }
    with pytest.raises(meter.Diverged, match=r"is (nan|inf) at step (\d+)") as raised:
        train(home, workdir, **overrides)
    record = runs.record(workdir)
    assert record["status"] == "diverged" and record["error"] == str(raised.value)
    good = Checkpoints(workdir, read_only=True).latest()
    assert f"The last good checkpoint is that of step {good}." in str(raised.value)
    assert "config.optimizer.learning_rate" in str(raised.value)
    assert all(np.isfinite(value).all() for value in runs.state(workdir, good).values())
    assert all(isinstance(line["loss"], float) for line in runs.metrics(workdir))
    with pytest.raises(meter.Diverged) as again:  # the same command fails the same way
        train(home, workdir, **overrides)
    assert str(again.value) == str(raised.value)


def test_a_state_whose_validation_loss_is_not_finite_is_not_saved(home, tmp_path, monkeypatch):
    sums = validation.Validation.sums

    def not_finite(self, params, *rest):
        return {
            name: (float("nan"), weight) for name, (_, weight) in sums(self, params, *rest).items()
        }

    with monkeypatch.context() as patch:
        patch.setattr(validation.Validation, "sums", not_finite)
        with pytest.raises(meter.Diverged, match="validation clm is nan at step 5.*of step 3"):
            train(home, tmp_path / "run")
    assert "error" in runs.record(tmp_path / "run")
    train(home, tmp_path / "run")
    runs.assert_same_run(home.finished("clm"), tmp_path / "run")
    assert "error" not in runs.record(tmp_path / "run")


# A failing write closes orbax's event loop while others are still pending; those then warn.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_disk_that_fills_up_keeps_the_last_checkpoint(home, tmp_path, monkeypatch):
    """Once step 3 is saved, no file can grow beyond 4 kB, so writes fail as on a full disk."""
    home.finished("clm")  # compiles: no compiled program can be cached on the full disk
    workdir = tmp_path / "run"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill():
        while not (workdir / "checkpoints" / "3").is_dir():
            time.sleep(0.01)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))

    try:
        error = interrupted(home, workdir, monkeypatch, 5, fill, UserError)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert "could not be saved" in str(error) and "File too large" in str(error)
    assert "the last good checkpoint is that of step 3. Free some space" in str(error)
    assert Checkpoints(workdir, read_only=True).steps() == [3]
    train(home, workdir)
    runs.assert_same_run(home.finished("clm"), workdir)
    del error
    gc.collect()  # of orbax's pending writes, while their warnings are ignored


def test_a_disk_without_room_is_refused_before_the_start(home, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=200_000))
    with pytest.raises(
        UserError, match=r"GiB free, but 4 checkpoints of .* must fit.*config.training.keep"
    ):
        train(home, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_metrics_that_cannot_be_written_end_the_run_with_a_message(home, tmp_path, monkeypatch):
    start = run_log.RunLog.__init__

    def on_a_full_disk(self, *rest, **named):
        start(self, *rest, **named)
        self.file.close()
        self.file = open("/dev/full", "a", encoding="utf-8")

    monkeypatch.setattr(run_log.RunLog, "__init__", on_a_full_disk)
    with pytest.raises(UserError, match=r"metrics.jsonl: \[Errno 28\] No space left"):
        train(home, tmp_path / "run")
