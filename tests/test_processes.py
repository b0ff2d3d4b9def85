"""Two processes compute what one does."""

import socket

import jax
import pytest
import runs
import small_corpus

from lm import mesh, trainer

STEPS = 4


def test_two_processes_are_one(tmp_path, monkeypatch):
    """Over gloo, a device each, from a corpus that neither finds built; beside them this process with two devices."""
    small_corpus.write(tmp_path)
    training = {"steps": STEPS, "log_every": 1, "evaluate_every": 2, "checkpoint_every": 2, "evaluate_tokens": 512}
    config = small_corpus.config("clm", tmp_path, model={"layers": 1}, training=training, mesh={"data": 1, "fsdp": 2, "tensor": 1})
    file = runs.config_file(config, tmp_path / "config.py")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    together = {"LM_COORDINATOR": f"localhost:{port}", "LM_PROCESSES": "2"}
    flags = ["-m", "lm.train", f"--config={file}"]
    processes = [runs.command(*flags, f"--workdir={tmp_path / 'two'}", LM_PROCESS=str(index), **together) for index in range(2)]
    try:
        said = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    make = mesh.make
    monkeypatch.setattr(mesh, "make", lambda config, devices=None: make(config, jax.devices()[:2]))
    trainer.train(config, tmp_path / "one", quiet=True)

    alone, both = runs.metrics(tmp_path / "one"), runs.metrics(tmp_path / "two")
    assert [line["step"] for line in both] == [1, 2, 2, 3, 4, 4]  # each line once: one process writes
    for line, other in zip(alone, both, strict=True):
        assert line.pop("split") == other.pop("split")
        assert other == pytest.approx(line, rel=1e-5)
    assert runs.record(tmp_path / "two")["machine"]["processes"] == 2
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["checkpoints", "metrics.jsonl", "run.json", "tokenizer.model"]
    ends = [runs.state(tmp_path / name) for name in ("one", "two")]
    for name in ends[0]:
        assert ends[1][name] == pytest.approx(ends[0][name], rel=1e-3, abs=1e-4), name
    assert "done: 4 steps" in said[0][1] and "done:" not in said[1][1]  # one process tells
