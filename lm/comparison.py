"""Runs an experiment: every arm with every seed at one budget, measured alike, several side by side; and its report."""

import concurrent.futures
import contextlib
import fcntl
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import rich.console
import rich.live
import rich.table

from lm import lookup, trial
from lm.lookup import UserError
from lm.plain import flat, plain, read_json, write_json

# With transparent huge pages behind malloc a step on a CPU takes 0.77 of the time (experiments/LOG.md); glibc reads this at its start.
_TUNABLES = "glibc.malloc.hugetlb=1"
_MEMORY_PER_WORKER = 2 * 2**30
_MATCHED = ("tokens",)
_PATIENCE = 60.0  # seconds that runs have for saving when the comparison is stopped


def compare(config: Mapping, workdir: str | Path, command: str, source: str) -> int:
    """Runs what is missing of the experiment, then writes results.parquet and the report.

    Args:
      config: as an experiments/*.py file gives it. workdir: new, or of the same experiment: finished runs are kept, others continue.
      command, source: the command line and the config's name, for the report.

    Returns:
      Exit status: 0 if every run counts, 1 if some failed or diverged.

    Raises:
      UserError: the experiment cannot work; before anything is computed.
    """
    experiment, workdir, began = plain(config), Path(workdir), time.time()
    arms = _arms(experiment)
    with _claimed(workdir):
        _check_same(workdir, experiment, arms)
        console = rich.console.Console(stderr=True)
        _prepare_corpus(arms)
        os.environ.setdefault("GLIBC_TUNABLES", _TUNABLES)
        workers = _workers(experiment, len(arms) * len(experiment["seeds"]))
        with _pool(workers) as pool:
            about = pool.submit(trial.check, arms, list(experiment["tasks"]), experiment["split"]).result()
            untrained = _untrained(arms, about["masks"])
            trials = _trials(experiment, arms, untrained)
            workdir.mkdir(parents=True, exist_ok=True)
            old = read_json(workdir / "comparison.json", "the record of a comparison") if (workdir / "comparison.json").exists() else {}
            then = old.get("data", {}).get("fingerprint") if old else about["data"]["fingerprint"]
            if then != about["data"]["fingerprint"]:
                raise UserError(
                    f"--workdir={workdir} was compared on other data: fingerprint {then} there,"
                    f" {about['data']['fingerprint']} now (the corpus or its tokenizer changed); give another --workdir"
                )
            record = _record(experiment, arms, about, untrained, workers, command, source, old)
            write_json(workdir / "comparison.json", record)
            outcomes = _run_all(pool, experiment, arms, trials, workdir, console)
        record["git"] = _revisions(workdir, trials) or record["git"]
        record["seconds"] = round(old.get("seconds", 0.0) + time.time() - began, 1)
        write_json(workdir / "comparison.json", record)
    _write_results(workdir, trials)
    from lm import report

    written = report.write(workdir)
    failed = {name: outcome for name, outcome in outcomes.items() if outcome["status"] != "done"}
    for name, outcome in failed.items():
        print(
            f"{name} {outcome['status']}: {outcome.get('error', '').strip().splitlines()[-1] if outcome.get('error') else ''}",
            file=sys.stderr,
        )
    print(f"\n{written.headline}")
    for check in written.hypotheses:
        print(f"  {check.verdict:>14}  {check.text}: {check.measured} {check.interval}")
    print(f"\n{len(trials) - len(failed)} of {len(trials)} runs in {record['seconds'] / 60:.1f} minutes\nreport: {written.html.resolve()}")
    return 1 if failed else 0


def _arms(experiment: dict) -> dict[str, dict]:
    """The run config of each arm, its budget filled in."""
    budget = experiment["budget"]
    if budget["matched"] not in _MATCHED:
        raise UserError(f"config.budget.matched={budget['matched']!r} is not one of {', '.join(_MATCHED)}")
    if not isinstance(budget["value"], int) or budget["value"] < 1:
        raise UserError(f"config.budget.value={budget['value']!r} must be a whole number of tokens above 0")
    seeds = experiment["seeds"]
    if not seeds or len(set(seeds)) != len(seeds) or not all(isinstance(seed, int) and seed >= 0 for seed in seeds):
        raise UserError(f"config.seeds={seeds!r} must be different whole numbers from 0")
    for task in experiment["tasks"]:
        lookup.find("tasks", task)
    arms = {}
    for arm, described in experiment["arms"].items():
        run = described["run"]
        arms[arm] = run | {"training": run["training"] | {"tokens": budget["value"], "steps": 0}}
        step = run["training"]["batch_size"] * run["data"]["length"]
        if step < 1:
            sizes = f"training.batch_size={run['training']['batch_size']} and data.length={run['data']['length']}"
            raise UserError(f"arm {arm!r}: {sizes} must be at least 1")
        if budget["value"] < step:
            raise UserError(f"config.budget.value={budget['value']:,} tokens are less than one step of arm {arm!r}, {step:,}")
    if not arms:
        raise UserError("config.arms is empty: a comparison needs at least one arm")
    steps = {arm: -(-budget["value"] // (run["training"]["batch_size"] * run["data"]["length"])) for arm, run in arms.items()}
    tokens = {arm: steps[arm] * run["training"]["batch_size"] * run["data"]["length"] for arm, run in arms.items()}
    if max(tokens.values()) > 1.01 * min(tokens.values()):
        raise UserError(f"the arms cannot be matched within 1 %: whole steps give {tokens} tokens; choose a larger budget or equal steps")
    return arms


def _untrained(arms: dict, masks: Mapping[str, str]) -> dict[str, tuple[str, bool]]:
    """For each arm the name of the untrained model that it is held against, and whether it is the arm that measures it.

    One for each architecture and the mask it reads under; another shape under the same name has one of its own.
    """
    first: dict[tuple[str, str], str] = {}
    found = {}
    usual = {"decoder": "causal"}
    for arm, run in arms.items():
        model, mask = run["model"]["name"], masks[arm]
        owner = first.setdefault((model, mask), arm)
        name = f"untrained {model}" + (f", {mask}" if mask != usual.get(model, mask) else "")
        if arms[owner]["model"] != run["model"]:
            name, owner = f"untrained {arm}", arm
        found[arm] = (name, owner == arm)
    return found


def _trials(experiment: dict, arms: dict, untrained: Mapping[str, tuple[str, bool]]) -> dict[str, tuple[str, int, str]]:
    """Name → (arm, seed, name of the untrained model if this run measures it too); seed by seed, so an interruption leaves whole seeds."""
    measures = {arm: name if owns else "" for arm, (name, owns) in untrained.items()}
    return {f"{arm}-seed{seed}": (arm, seed, measures[arm]) for seed in experiment["seeds"] for arm in arms}


def _revisions(workdir: Path, trials: Mapping[str, Any]) -> str:
    """The commits that the finished runs were made by: more than one where a comparison was continued after a change."""
    paths = [workdir / "runs" / name / "run.json" for name in trials]
    return ", ".join(sorted({read_json(path, "the record of a run")["git"] for path in paths if path.exists()}))


def _run_all(pool, experiment, arms, trials, workdir: Path, console) -> dict[str, dict]:
    """Runs every trial that is not finished, and the baselines; shows progress. Returns each trial's outcome."""
    outcomes: dict[str, dict] = {}
    futures: dict[concurrent.futures.Future, str] = {}
    for name, (arm, seed, untrained) in trials.items():
        directory = workdir / "runs" / name
        if (directory / "scores.json").exists():
            outcomes[name] = {"status": "done"}
            continue
        job = pool.submit(
            trial.run, directory, arm, seed, arms[arm] | {"seed": seed}, list(experiment["tasks"]), experiment["split"], untrained
        )
        futures[job] = name
    if not (workdir / "baselines.json").exists():
        first = next(iter(arms.values()))
        futures[pool.submit(trial.baselines, workdir / "baselines.json", first, list(experiment["tasks"]), experiment["split"])] = (
            "baselines"
        )
    if outcomes:
        console.print(f"{len(outcomes)} of {len(trials)} runs were finished before", highlight=False)
    shown = _Progress(trials, workdir, console, outcomes)
    waiting = set(futures)
    with shown:
        while waiting:
            done, waiting = concurrent.futures.wait(waiting, timeout=1.0, return_when=concurrent.futures.FIRST_COMPLETED)
            for job in done:
                outcome = job.result()
                if futures[job] == "baselines" and outcome["status"] == "done":
                    continue
                outcomes[futures[job]] = outcome
                shown.ended(futures[job], outcome)
            shown.update()
    return outcomes


class _Progress:
    """A live table of all trials, or a line as each ends where there is no terminal."""

    def __init__(self, trials: Mapping[str, Any], workdir: Path, console: rich.console.Console, outcomes: dict[str, dict]):
        self.trials, self.workdir, self.console, self.outcomes = trials, workdir, console, outcomes
        self.live = rich.live.Live(console=console, refresh_per_second=2) if console.is_terminal else None
        self.began, self.before, self.last = time.time(), len(outcomes), time.time()

    def __enter__(self) -> "_Progress":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.stop()

    def ended(self, name: str, outcome: Mapping[str, Any]) -> None:
        """Tells of a trial that ended."""
        if not self.live:
            last = self._last(name)
            loss = f"loss {last['loss']:.4f}" if "loss" in last else ""
            print(
                f"[{len(self.outcomes)}/{len(self.trials)}, {time.time() - self.began:.0f} s] {name} {outcome['status']} {loss}",
                file=sys.stderr,
                flush=True,
            )

    def update(self) -> None:
        """Draws the state of every trial."""
        running = {name: self._last(name) for name in self.trials if name not in self.outcomes}
        if not self.live:
            if time.time() - self.last > 30:
                self.last = time.time()
                active = [f"{name} {last['tokens']:,} tokens, loss {last['loss']:.3f}" for name, last in running.items() if last]
                print(
                    f"[{len(self.outcomes)}/{len(self.trials)}, {time.time() - self.began:.0f} s] {'; '.join(active)}",
                    file=sys.stderr,
                    flush=True,
                )
            return
        table = rich.table.Table(box=None, pad_edge=False)
        for column in ("run", "state", "tokens", "loss", "tokens/s"):
            table.add_column(column, justify="left" if column in ("run", "state") else "right")
        for name in self.trials:
            last = running.get(name) or self._last(name)
            state = self.outcomes[name]["status"] if name in self.outcomes else "running" if last else "waiting"
            table.add_row(
                name,
                state,
                f"{last.get('tokens', 0):,}",
                f"{last['loss']:.4f}" if "loss" in last else "",
                f"{last.get('tokens_per_second', 0):,.0f}",
            )
        done = len(self.outcomes) - self.before
        left = (
            f", about {(time.time() - self.began) / done * (len(self.trials) - len(self.outcomes)) / 60:.0f} minutes left" if done else ""
        )
        table.caption = f"{len(self.outcomes)} of {len(self.trials)} done in {time.time() - self.began:.0f} s{left}"
        self.live.update(table)

    def _last(self, name: str) -> dict[str, Any]:
        """The newest training line of a run's metrics."""
        path = self.workdir / "runs" / name / "metrics.jsonl"
        with contextlib.suppress(OSError, ValueError):
            for line in reversed(path.read_text(encoding="utf-8").splitlines()[-20:]):
                if (found := json.loads(line)).get("split") == "train":
                    return found
        return {}


def _workers(experiment: dict, trials: int) -> int:
    """How many runs side by side: one a core on a CPU, as far as memory goes; one where there is an accelerator."""
    if experiment["workers"]:
        return int(experiment["workers"])
    if os.environ.get("JAX_PLATFORMS", "") != "cpu" and _accelerator():
        return 1
    return max(1, min(trials, len(os.sched_getaffinity(0)), _available_memory() // _MEMORY_PER_WORKER))


def _available_memory() -> int:
    """Bytes that programs can still get; file caches count as free, since they give way."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _accelerator() -> bool:
    """Whether this machine has a TPU or GPU; asked of the system, not of JAX, which would take it from the workers."""
    return any(Path(path).exists() for path in ("/dev/accel0", "/dev/vfio/0", "/dev/nvidia0", "/dev/kfd"))


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    """Worker processes; SIGTERM and Ctrl-C make their runs save, then end this process."""
    context = multiprocessing.get_context("spawn")
    numbers = context.Queue()
    for number in range(workers):
        numbers.put(number)
    share = len(os.sched_getaffinity(0)) // workers if workers > 1 else 0
    pool = concurrent.futures.ProcessPoolExecutor(workers, context, trial.start_worker, (os.getpid(), [share], numbers))

    def stop(number: int, frame: Any) -> None:
        print("stopping: the runs save; the same command continues", file=sys.stderr, flush=True)
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        deadline = time.monotonic() + _PATIENCE
        while any(process.is_alive() for process in processes) and time.monotonic() < deadline:
            for process in processes:
                process.terminate()  # again and again: a worker may just have begun another run
            time.sleep(0.5)
        for process in processes:
            process.kill()
        os._exit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with pool:
            yield pool
    except concurrent.futures.process.BrokenProcessPool as error:
        raise UserError(
            "a worker process was ended from outside (out of memory?); start the same command again, or set --config.workers=1"
        ) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _claimed(workdir: Path) -> Iterator[None]:
    """Holds the workdir: two comparisons must not write the same runs."""
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file; give a directory")
    if workdir.is_dir() and not (workdir / "comparison.json").exists() and any(entry.name != ".lock" for entry in workdir.iterdir()):
        raise UserError(f"--workdir={workdir} holds something that is no comparison; give an empty or new directory")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / ".lock").open("w")
    except OSError as error:
        raise UserError(f"--workdir={workdir} cannot be written: {error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another lm.compare is at work in {workdir}; wait for it, or give another --workdir") from None
        yield


def _check_same(workdir: Path, experiment: dict, arms: dict) -> None:
    """Refuses a workdir of another experiment. More seeds may be added."""
    path = workdir / "comparison.json"
    if not path.exists():
        return
    record = read_json(path, "the record of a comparison")
    if not isinstance(record, dict) or not isinstance(record.get("experiment"), dict):
        raise UserError(f"{path} is no record of a comparison; give another --workdir")
    before, now = flat(record["experiment"]), flat(experiment)
    missing = set(record.get("seeds", ())) - set(experiment["seeds"])
    if missing:
        raise UserError(
            f"--workdir={workdir} has runs of the seeds {sorted(missing)}: seeds may be added, not left out; give another --workdir"
        )
    # What only says how many runs there are, or how the report puts it.
    free, words = ("seeds", "workers", "question", "reference"), (".label", ".describe")
    differing = [
        key
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(free) and not key.endswith(words)
    ]
    if differing:
        lines = [f"  config.{key}: {before.get(key)!r} there, {now.get(key)!r} now" for key in differing[:12]]
        raise UserError(f"--workdir={workdir} holds another experiment:\n" + "\n".join(lines) + "\ngive another --workdir")


def _prepare_corpus(arms: dict) -> None:
    """Builds tokenizer and stores once, with a progress bar, before the workers need them."""
    from lm.data import corpus as corpora

    for config in arms.values():
        corpora.prepare(config["data"], config["tokenizer"], skip=("length",))


def _record(experiment, arms, about, untrained, workers, command, source, old) -> dict[str, Any]:
    described = {
        arm: {
            "label": value["label"], "objective": arms[arm]["objective"]["name"], "model": arms[arm]["model"]["name"],
            "describe": value["describe"], "parameters": about["parameters"][arm], "mask": about["masks"][arm],
            "untrained": untrained[arm][0],
        }
        for arm, value in experiment["arms"].items()
    }  # fmt: skip
    return {
        "name": experiment["name"], "question": experiment["question"], "command": command, "config": source,
        "seeds": list(experiment["seeds"]), "budget": experiment["budget"], "arms": described, "reference": experiment.get("reference", ""),
        "hypotheses": [dict(check) for check in experiment["hypotheses"]], "data": about["data"], "machine": about["machine"],
        "versions": about["versions"], "git": about["git"], "workers": workers, "split": experiment["split"],
        "started": old.get("started") or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "seconds": old.get("seconds", 0.0),
        "experiment": experiment,
    }  # fmt: skip


def _write_results(workdir: Path, trials: Mapping[str, Any]) -> None:
    """All rows of all finished runs and the baselines as results.parquet."""
    import pyarrow
    import pyarrow.parquet

    paths = [workdir / "baselines.json"] + [workdir / "runs" / name / "scores.json" for name in trials]
    rows = [row for path in paths if path.exists() for row in read_json(path, "scores")["rows"]]
    temporary = workdir / ".results.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), temporary)
    os.replace(temporary, workdir / "results.parquet")
