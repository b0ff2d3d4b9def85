"""What lm.compare costs over bare training of the same runs, in turn in one worker process, with the same compiled programs.

  python -m benchmarks.overhead [--steps=300] [--repeats=2] [--seeds=2]

Prints, of the fastest repeat: the seconds of the runs bare; of the same as trials (claims, a fresh load of the checkpoint, 4,096 tokens
scored, records and polling are in it), their ratio, and apart from these start-up (imports, building each arm, counting its targets),
baselines and the report, which do not grow with the length of the runs. Target: a ratio below 1.03.
"""

import importlib
import os
import shutil
import tempfile
import time
from pathlib import Path

from absl import flags

from lm.core import command

_STEPS = flags.DEFINE_integer("steps", 300, "of each run", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 2, "how often each way", lower_bound=1)
_SEEDS = flags.DEFINE_integer("seeds", 2, "of each of the two arms", lower_bound=1)


def bare(directory: Path, config: dict) -> None:
    """A run as lm.train makes it."""
    from lm.training import loop

    loop.train(config, directory, quiet=True)


def experiment(steps: int, seeds: int) -> dict:
    """CLM and MLM at `:tiny`."""
    from configs import clm, mlm
    from lm.core.plain import plain

    arms = {}
    for name, module in (("clm", clm), ("mlm", mlm)):
        run = plain(module.get_config())
        run["training"] |= {"evaluate_tokens": 16_384, "keep": 1}
        arms[name] = {"label": name, "describe": "", "run": run}
    tokens = steps * run["training"]["batch_size"] * run["data"]["length"]
    return {
        "name": "overhead", "seeds": list(range(seeds)), "split": "test", "workers": 1, "tasks": {"causal": {"tokens": 4096}},
        "budget": {"matched": "tokens", "value": tokens}, "arms": arms,
    }  # fmt: skip


def compared(root: Path, wanted: dict) -> dict[str, float]:
    """Seconds of lm.compare's parts."""
    from lm.comparison import run as comparison_run

    run_all, times = comparison_run.run_all, {}
    began = time.perf_counter()

    def timed(pool, work, claims, slots, show, on_end):
        ends = [time.perf_counter()]
        times["start-up"] = ends[0] - began

        def note(name):
            on_end(name)
            ends.append(time.perf_counter())

        outcomes = run_all(pool, work, claims, slots, show, note)
        times["baselines"], times["trials"] = ends[1] - ends[0], ends[-1] - ends[1]
        return outcomes

    comparison_run.run_all = timed
    try:
        if comparison_run.compare(wanted, root, "benchmarks.overhead", ""):
            raise SystemExit("a run failed")
    finally:
        comparison_run.run_all = run_all
    return times | {"report": time.perf_counter() - began - sum(times.values())}


def trained(root: Path, wanted: dict) -> float:
    """Seconds of the same runs without lm.compare, from when a worker is ready."""
    from lm.comparison import workers
    from lm.comparison.experiment import with_field

    with workers.pool(1) as pool:
        pool.submit(
            importlib.import_module, "lm.training.loop"
        ).exception()  # the worker cannot send a module back, but it has it then
        began = time.perf_counter()
        for seed in wanted["seeds"]:
            for arm, of in wanted["arms"].items():
                run = with_field(
                    with_field(of["run"], "training.tokens", 0), "training.steps", _STEPS.value
                ) | {"seed": seed}
                pool.submit(bare, root / f"{arm}-seed{seed}", run).result()
        return time.perf_counter() - began


def main() -> None:
    from lm.comparison import run as comparison_run

    place = Path(tempfile.mkdtemp(prefix="lm-overhead-"))
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": str(place / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
    }
    try:
        wanted = experiment(_STEPS.value, _SEEDS.value)
        comparison_run.prepare_corpora({arm: of["run"] for arm, of in wanted["arms"].items()})
        alone, parts = [], []
        for repeat in range(_REPEATS.value + 1):  # the first one compiles, and does not count
            alone.append(trained(place / f"bare{repeat}", wanted))
            parts.append(compared(place / f"compare{repeat}", wanted))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    best = {name: min(each[name] for each in parts[1:]) for name in parts[0]}
    runs = len(wanted["arms"]) * len(wanted["seeds"])
    print(
        f"{runs} runs of {_STEPS.value} steps: bare {min(alone[1:]):.1f} s, as trials {best['trials']:.1f} s"
    )
    print(f"ratio {best['trials'] / min(alone[1:]):.3f} (target: below 1.03)")
    print(
        f"apart from it: start-up {best['start-up']:.1f} s, baselines {best['baselines']:.1f} s, report {best['report']:.1f} s"
    )


if __name__ == "__main__":
    command.run(main)
