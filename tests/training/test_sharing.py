"""Two processes share a workdir; if one is killed, the other completes the same table."""

import json
import os
import signal
import time

import pyarrow.parquet
import runs
from runs import home  # noqa: F401


def experiment(home) -> dict:
    """Two learning rates to tune over, and three seeds, of a few steps each."""
    run = home.config("clm")
    run["training"] |= {"log_every": 1, "evaluate_every": 0, "checkpoint_every": 2}
    return {
        "name": "shared",
        "question": "",
        "seeds": (0, 1, 2),
        "split": "test",
        "tasks": {"left": {"task": "causal", "tokens": 512}},
        "workers": 1,
        "budget": {"matched": "loss_tokens", "value": 6 * 8 * 30},
        "tuning": {
            "field": "optimizer.learning_rate",
            "factors": (0.5, 2.0),
            "share": 0.5,
            "seed": 7,
        },
        "arms": {"clm": {"label": "CLM", "describe": "a test", "run": run}},
        "hypotheses": (
            {
                "text": "learns",
                "arm": "clm",
                "task": "left",
                "metric": "nll",
                "compare": "unigram",
                "op": "below",
                "value": 9.0,
            },
        ),
    }


def table(workdir) -> list[tuple]:
    rows = pyarrow.parquet.read_table(workdir / "results.parquet").to_pylist()
    return sorted(
        (row["arm"], row["seed"], row["kind"], row["task"], row["metric"], row["value"])
        for row in rows
    )


def wait(process, condition) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)


def test_two_processes_share_the_work_and_one_is_killed(home, tmp_path):
    file = runs.config_file(experiment(home), tmp_path / "config.py")

    def start(name):
        cache = {
            "JAX_COMPILATION_CACHE_DIR": str(home.root / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        }
        return runs.command(
            "-m", "lm.compare", f"--config={file}", f"--workdir={tmp_path / name}", **cache
        )

    # Both run to the end: each computes a part, none is computed twice, both print the same.
    one, other = start("shared"), start("shared")
    printed = [process.communicate(timeout=600) for process in (one, other)]
    assert one.returncode == other.returncode == 0, printed
    for out, _ in printed:
        assert "5 of 5 runs" in out and "optimizer.learning_rate" in out
    workdir = tmp_path / "shared"
    record = json.loads((workdir / "comparison.json").read_text())
    assert len(record["sessions"]) == 2
    claimed = [
        json.loads(path.read_text())
        for path in (workdir / ".claims").glob("*.0")
        if path.name.startswith(("clm", "tuning"))
    ]
    assert (
        len(claimed) == 5
        and len({lease["pid"] for lease in claimed}) == 2
        and all(lease["released"] for lease in claimed)
    )
    assert not list((workdir / ".claims").glob("clm*.1"))  # nothing was claimed twice
    assert record["planned"]["clm"]["steps"] == 6 and set(record["tuning"]["chosen"]) == {"clm"}
    assert {path.name for path in (workdir / "tensorboard").glob("*")} <= {"shared"}

    # Then one is killed with its workers during a trial that it claimed, while the other works.
    killed = start("killed")
    wait(killed, lambda: list((tmp_path / "killed").glob("*/clm-*/metrics.jsonl")))
    other = start("killed")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    out, err = other.communicate(timeout=600)
    assert other.returncode == 0, out + err
    assert table(tmp_path / "killed") == table(workdir)
