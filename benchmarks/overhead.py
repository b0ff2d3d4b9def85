"""Overhead of lm.compare over training the same runs without it.

  python -m benchmarks.overhead [--steps=300] [--repeats=2] [--seeds=2]

Both sides alternate in one worker process with the same compiled programs. Prints, for the fastest
repeat, the seconds of the bare runs, the seconds of the same runs as trials, and their ratio.
Trials include locks, a fresh load of the checkpoint, scoring of 4,096 tokens, records and polling.
Start-up (imports, building each arm, counting its targets), baselines and the report do not grow
with the length of the runs and are printed separately. Target: a ratio below 1.03.
"""

import importlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from lm.core import command

_STEPS = flags.DEFINE_integer("steps", 300, "steps of each run", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 2, "repeats of each side", lower_bound=1)
_SEEDS = flags.DEFINE_integer("seeds", 2, "seeds of each of the two arms", lower_bound=1)


def bare(directory: Path, config: dict[str, Any]) -> None:
    """Trains a run as lm.train does."""
    from lm.training import loop

    loop.train(config, directory, quiet=True)


def experiment(steps: int, seeds: int) -> dict[str, Any]:
    """The experiment config: CLM and MLM at `:tiny`."""
    from configs import clm, mlm
    from lm.core.plain import plain

    arms = {}
    for name, module in (("clm", clm), ("mlm", mlm)):
        run = plain(module.get_config())
        run["training"] |= {"evaluate_tokens": 16_384, "keep": 1}
        arms[name] = {"label": name, "describe": "", "run": run}
    tokens = steps * run["training"]["batch_size"] * run["data"]["length"]
    return {
        "name": "overhead",
        "seeds": list(range(seeds)),
        "split": "test",
        "workers": 1,
        "tasks": {"causal": {"tokens": 4096}},
        "budget": {"matched": "tokens", "value": tokens},
        "arms": arms,
    }


def compared(root: Path, config: dict[str, Any]) -> dict[str, float]:
    """Seconds of each part of lm.compare."""
    run: Any = importlib.import_module("lm.comparison.run")
    run_all, times = run.run_all, {}
    began = time.perf_counter()

    def timed(
        pool: Any, jobs: Any, locks: Any, slots: Any, progress: Any, on_end: Callable[[str], None]
    ) -> Any:
        ends = [time.perf_counter()]
        times["start-up"] = ends[0] - began

        def note(name: str) -> None:
            on_end(name)
            ends.append(time.perf_counter())

        outcomes = run_all(pool, jobs, locks, slots, progress, note)
        times["baselines"], times["trials"] = ends[1] - ends[0], ends[-1] - ends[1]
        return outcomes

    run.run_all = timed
    try:
        if run.compare(config, root, "benchmarks.overhead", ""):
            raise SystemExit("a run failed")
    finally:
        run.run_all = run_all
    return times | {"report": time.perf_counter() - began - sum(times.values())}


def trained(root: Path, config: dict[str, Any]) -> float:
    """Seconds of the same runs without lm.compare, once a worker is ready."""
    from lm.comparison import workers
    from lm.comparison.experiment import with_field

    with workers.pool(1) as pool:
        # Imports the module in the worker. The result cannot be sent back, which is the exception.
        pool.submit(importlib.import_module, "lm.training.loop").exception()
        began = time.perf_counter()
        for seed in config["seeds"]:
            for arm, described in config["arms"].items():
                run = with_field(
                    with_field(described["run"], "training.tokens", 0),
                    "training.steps",
                    _STEPS.value,
                ) | {"seed": seed}
                pool.submit(bare, root / f"{arm}-seed{seed}", run).result()
        return time.perf_counter() - began


def main() -> None:
    """Prints the seconds and their ratio."""
    from lm.comparison import arms

    folder = Path(tempfile.mkdtemp(prefix="lm-overhead-"))
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
    }
    try:
        config = experiment(_STEPS.value, _SEEDS.value)
        arms.prepare_corpora({arm: described["run"] for arm, described in config["arms"].items()})
        alone, parts = [], []
        for repeat in range(_REPEATS.value + 1):  # the first one compiles and is not counted
            alone.append(trained(folder / f"bare{repeat}", config))
            parts.append(compared(folder / f"compare{repeat}", config))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    best = {name: min(seconds[name] for seconds in parts[1:]) for name in parts[0]}
    runs = len(config["arms"]) * len(config["seeds"])
    print(
        f"{runs} runs of {_STEPS.value} steps: bare {min(alone[1:]):.1f} s,"
        f" as trials {best['trials']:.1f} s"
    )
    print(f"ratio {best['trials'] / min(alone[1:]):.3f} (target: below 1.03)")
    print(
        f"not included: start-up {best['start-up']:.1f} s, baselines {best['baselines']:.1f} s,"
        f" report {best['report']:.1f} s"
    )


if __name__ == "__main__":
    command.run(main)
