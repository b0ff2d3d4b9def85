"""Fixtures and helpers for tests of complete runs.

They share one tiny corpus, one device, finished runs and a cache of compiled programs, in one
directory a session, whatever the number of pytest-xdist workers.
"""

import concurrent.futures
import contextlib
import fcntl
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import small_corpus
from jax.experimental.compilation_cache import compilation_cache

from lm.comparison import workers
from lm.core.plugins import UserError
from lm.parallel import mesh
from lm.training import loop
from lm.training.checkpoint import Checkpoints
from lm.training.program import Program

TESTS = Path(__file__).parent
STEPS = 10
# Fields of metrics.jsonl that differ from run to run.
CLOCKS = {"seconds", "tokens_per_second", "input_wait_share", "energy_joules", "energy_source"}


class Killed(Exception):
    """Stands in for the end of a process."""


class Home:
    """The session's directory.

    Attributes:
      root: its path.
    """

    def __init__(self, root: Path):
        self.root = root

    def config(self, objective: str = "clm", **overrides: Any) -> dict[str, Any]:
        """The config of STEPS steps, with logs, evaluations and checkpoints at different steps.

        Args:
          objective: the objective.
          overrides: sections to update, as in small_corpus.config.
        """
        # Both optimizers have state to restore, and dropout has random numbers.
        sections = {
            "model": {"layers": 1, "dropout": 0.1 if objective in ("mlm", "mlm_nsp") else 0.0},
            "training": {
                "steps": STEPS,
                "log_every": 2,
                "evaluate_every": 5,
                "checkpoint_every": 3,
            },
            "optimizer": {"name": "muon", "learning_rate": 0.01} if objective == "mlm" else {},
        }
        for name, fields in overrides.items():
            sections[name] = sections[name] | fields if name in sections else fields
        config = small_corpus.config(
            objective,
            self.root,
            **{name: fields for name, fields in sections.items() if name != "optimizer"},
        )
        config["optimizer"] |= sections["optimizer"]
        return config

    def finished(self, objective: str) -> Path:
        """The workdir of an uninterrupted run. Do not write to it: tests share it."""
        workdir = self.root / "finished" / objective
        with locked(self.root):
            loop.train(self.config(objective), workdir, quiet=True)
        return workdir


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Context manager: a lock between pytest-xdist workers."""
    with open(root / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """The session's directory. Meshes take one device unless their config sets a number."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "runs"
    root.mkdir(exist_ok=True)
    with locked(root):
        if not (root / "text").is_dir():
            small_corpus.write(root)
    with pytest.MonkeyPatch.context() as patch, compiled(root / "compiled"):
        one_device(patch)
        yield Home(root)


@contextlib.contextmanager
def compiled(directory: Path) -> Iterator[None]:
    """Context manager: caches compiled programs on disk, so that resumed runs do not recompile."""
    settings = {
        "jax_compilation_cache_dir": str(directory),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def one_device(patch: pytest.MonkeyPatch) -> None:
    """Limits meshes that take all devices to the first: splitting a tiny model only costs time."""
    make = mesh.make
    patch.setattr(
        mesh,
        "make",
        lambda config, devices=None: make(
            config, jax.devices()[:1] if config.data == -1 else devices
        ),
    )


class Direct(concurrent.futures.Executor):
    """Runs each job at once, in this process."""

    def submit(self, job: Callable, /, *arguments: Any) -> concurrent.futures.Future:
        future: concurrent.futures.Future = concurrent.futures.Future()
        try:
            future.set_result(job(*arguments))
        except UserError as error:
            future.set_exception(error)
        return future


def in_this_process(patch: pytest.MonkeyPatch) -> None:
    """Runs comparisons and sweeps in this process, with the programs that it has compiled."""
    update = jax.config.update
    kept = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    patch.setattr(
        jax.config, "update", lambda name, value: None if name in kept else update(name, value)
    )
    patch.setattr(workers, "pool", lambda number: contextlib.nullcontext(Direct()))


def at_step(patch: pytest.MonkeyPatch, number: int, action: Callable[[], None]) -> None:
    """Calls `action` before step `number` of a run (from 1, counted across restarts)."""
    step = Program.step

    def counted(self: Program, state: Any, batch: Any) -> Any:
        if int(state["step"]) + 1 == number:
            action()
        return step(self, state, batch)

    patch.setattr(Program, "step", counted)


def kill() -> None:
    raise Killed


def metrics(workdir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without the fields that clocks fill."""
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if name not in CLOCKS}
        for line in lines
    ]


def record(workdir: Path) -> dict[str, Any]:
    """run.json."""
    return json.loads((workdir / "run.json").read_text(encoding="utf-8"))


def state(workdir: Path, step: int | None = None) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint, the latest by default."""
    checkpoints = Checkpoints(workdir, read_only=True)
    arrays = checkpoints.arrays(step or checkpoints.latest())
    checkpoints.close()
    return arrays


def assert_same_run(one: Path, other: Path) -> None:
    """Asserts that two runs ended with the same numbers, to the last bit."""
    for line, again in itertools.zip_longest(metrics(one), metrics(other)):
        assert line == again, f"{line} in {one}, {again} in {other}"
    for name in ("status", "final", "step", "tokens", "loss_tokens", "flops", "parameters"):
        assert record(one)[name] == record(other)[name], name
    ends = state(one), state(other)
    assert ends[0].keys() == ends[1].keys()
    for name in ends[0]:
        np.testing.assert_array_equal(ends[0][name], ends[1][name], err_msg=name)


def files(directory: Path) -> dict[str, tuple[int, int]]:
    """Size and modification time of every file below a directory."""
    return {
        str(path.relative_to(directory)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def command(*arguments: str, **environment: str) -> subprocess.Popen:
    """Starts Python with these arguments in the repository, on one CPU device.

    The process has its own process group.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("XLA_", "JAX_", "LM_", "PYTEST"))
    }
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=TESTS.parent,
        env=inherited | {"JAX_PLATFORMS": "cpu"} | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def config_file(config: dict[str, Any], path: Path) -> Path:
    """Writes a config as a file for --config."""
    head = "import json\n\nfrom ml_collections import ConfigDict\n\n\n"
    text = f"{head}def get_config():\n    return ConfigDict(json.loads({json.dumps(config)!r}))\n"
    path.write_text(text, encoding="utf-8")
    return path
