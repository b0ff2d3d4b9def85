"""A dry run prints what would run, and writes nothing."""

import json
import runpy
import subprocess
import types

import pytest
import runs
from runs import home  # noqa: F401

from lm.comparison import dry_run, trial
from lm.core.plugins import UserError


def experiment(home) -> dict:
    arms = {
        name: {"label": name, "describe": "", "run": home.config(name)} for name in ("clm", "nsp")
    }
    return {
        "name": "dry",
        "seeds": (0, 1, 2),
        "split": "test",
        "tasks": ("causal",),
        "workers": 2,
        "arms": arms,
        "budget": {"matched": "tokens", "value": 100 * 8 * 32},
        "tuning": {"factors": (0.5, 1, 2), "share": 0.5},
    }


@pytest.fixture
def aot(monkeypatch):
    """Replaces tpu.aot, and returns the configs it is called with."""
    configs = []
    run = subprocess.run

    def fake(command, **options):
        if "tpu.aot" not in command:
            return run(command, **options)
        flag = next(part for part in command if part.startswith("--config="))
        configs.append(runpy.run_path(flag.removeprefix("--config="))["get_config"]().to_dict())
        fits = configs[-1]["objective"]["name"] == "clm"
        answer = {
            "fits": fits,
            "memory": {"peak": 1.5},
            "usable_gib": 15.75,
            "step_seconds": 0.002,
            "needs_gib": 20.0,
            "has_gib": 15.75,
        }
        return types.SimpleNamespace(stdout=json.dumps(answer), stderr="", returncode=0)

    monkeypatch.setattr(dry_run.subprocess, "run", fake)
    return configs


def test_it_prints_what_would_run(home, monkeypatch, tmp_path, capsys, aot):
    runs.in_this_process(monkeypatch)
    monkeypatch.setattr(
        trial,
        "seconds_per_step",
        lambda config: {"clm": 0.5, "nsp": 0.1}[config["objective"]["name"]],
    )
    assert (
        dry_run.run(experiment(home), str(tmp_path / "new"), True, "v5e-4") == 1
    )  # one arm does not fit
    out = " ".join(capsys.readouterr().out.split())
    assert "25,600" in out and "800" in out and "50 s" in out and "10 s" in out
    assert (
        "trials: 12 (2 arms × (3 of optimizer.learning_rate at 50% of its budget and 3 seeds)), 2"
        " side by side" in out
    )
    assert (
        "expected: 2 min 15 s of training" in out
    )  # (50 + 10) s × (3 + 3/2) runs, two at a time: 135 s
    assert "fits: 1.50 of 15.75 GiB" in out and "does not fit: needs 20.0 of 15.8 GiB" in out
    assert [config["training"]["steps"] for config in aot] == [100, 100]
    assert not (tmp_path / "new").exists()


def test_a_missing_libtpu_is_named(home, monkeypatch, tmp_path):
    answer = types.SimpleNamespace(
        stdout="", stderr="error: libtpu is not installed; pip install it", returncode=2
    )
    monkeypatch.setattr(dry_run.subprocess, "run", lambda *_, **__: answer)
    with pytest.raises(UserError, match="--tpu=v5e-4: libtpu is not installed; pip install it"):
        dry_run._fits({}, "v5e-4")
    answer.stderr = "error: config.mesh asks for 8 devices"
    assert dry_run._fits({}, "v5e-4") == (False, "config.mesh asks for 8 devices")
