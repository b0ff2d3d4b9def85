"""TensorBoard and Weights & Biases show each trial under its experiment's name."""

import sys
import types

import pytest

from lm.core.plugins import UserError
from lm.training import events
from lm.training.program import TrainingConfig


class Session:
    """Stands in for a run of the package `wandb`."""

    def __init__(self, **options):
        self.options, self.logged, self.finished = options, [], False

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished = True


@pytest.fixture
def sessions(monkeypatch):
    runs = []
    module = types.ModuleType("wandb")
    module.init = lambda **options: runs.append(Session(**options)) or runs[-1]
    module.__spec__ = types.SimpleNamespace(name="wandb")
    monkeypatch.setitem(sys.modules, "wandb", module)
    return runs


def test_tensorboard_shows_all_trials_by_name(tmp_path):
    for trial in ("clm-seed0", "mlm-seed0"):
        group = events.Group(tmp_path, "my experiment", trial)
        for writer in events.writers(
            TrainingConfig(steps=1), tmp_path / "runs" / trial, {}, 0, group
        ):
            writer.write(1, {"train/loss": 1.5})
            writer.close()
    files = sorted((tmp_path / "tensorboard").rglob("events*"))
    assert [path.parent.relative_to(tmp_path / "tensorboard").as_posix() for path in files] == [
        "my experiment/clm-seed0",
        "my experiment/mlm-seed0",
    ]
    assert all(b"train/loss" in path.read_bytes() for path in files)
    assert events.directory(tmp_path, None) == tmp_path / "tensorboard"
    assert events.writers(TrainingConfig(steps=1, tensorboard=False), tmp_path, {}, 0, None) == []


def test_weights_and_biases_gets_the_group_and_resumes_a_run(tmp_path, sessions):
    training = TrainingConfig(steps=1, tensorboard=False, wandb=True)
    events.check_installed(training)
    for start in (0, 5):
        (writer,) = events.writers(
            training,
            tmp_path / "runs" / "a-seed0",
            {"seed": 0},
            start,
            events.Group(tmp_path, "objectives", "a-seed0"),
        )
        writer.write(start + 1, {"train/loss": 2.0})
        writer.close()
    first, second = sessions
    assert (
        first.options["group"] == "objectives"
        and first.options["name"] == "a-seed0"
        and first.options["config"] == {"seed": 0}
    )
    assert first.options["id"] == second.options["id"] and first.options["resume"] == "allow"
    assert (
        first.logged == [(1, {"train/loss": 2.0})] and second.logged[0][0] == 6 and first.finished
    )


def test_a_missing_package_names_what_to_install(monkeypatch):
    monkeypatch.setattr(events.importlib.util, "find_spec", lambda name: None)
    events.check_installed(TrainingConfig(steps=1))
    with pytest.raises(UserError, match=r"pip install -e '\.\[wandb\]'"):
        events.check_installed(TrainingConfig(steps=1, wandb=True))
