"""One run of a comparison or sweep, in a worker process: train, evaluate, write scores."""

import functools
import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from lm.comparison import accounting
from lm.comparison.budgets import Accounting
from lm.core import plugins
from lm.core.plain import write_json
from lm.core.plugins import UserError
from lm.core.protocols import Tokenizer
from lm.data import corpus as corpora
from lm.data import loader
from lm.data.store import Store
from lm.evaluation import evaluator
from lm.inference import preview, samples
from lm.inference.load import load_run
from lm.parallel import mesh as meshes
from lm.stats import scores
from lm.training import checks, events, loop, records
from lm.training.program import Program

Tasks = Mapping[str, Mapping[str, Any]]  # name → options, with the plug-in under "task"


def check(
    arm: str,
    config: dict[str, Any],
    tasks: Tasks,
    split: str,
    loss_tokens: float | None,
    any_devices: bool = False,
    candidates: Sequence[Mapping[str, Any]] = (),
    precision: float = math.inf,
) -> tuple[Accounting, dict[str, Any]]:
    """Builds an arm without training it, so that an invalid comparison fails at once.

    Args:
      arm: name of the arm, for messages.
      config: run config of the arm.
      tasks: options of tasks, by name; each task is constructed to check that it works on the
        corpus. It may be empty.
      split: split that tasks evaluate on.
      loss_tokens: number of target tokens per row; None to count them.
      any_devices: whether the arm's mesh may be for the devices of another host.
      candidates: options of further tasks; "suits" in the result tells whether each suits the
        arm's objective.
      precision: relative standard error of the loss tokens, if they are counted.

    Returns:
      The amounts that a step of the arm processes; and a dict with "data", "machine", "versions",
      "git", and "suits" (a bool for each of `candidates`).

    Raises:
      UserError: the arm, the split or a task is invalid.
    """
    meshes.initialize()
    try:
        corpus = corpora.prepare(config["data"], config["tokenizer"], progress=False)
        program = accounting.build(config, corpus.tokenizer, any_devices)
        checks.training_plan(program, corpus.stores["train"])
        events.check_installed(program.training)
        if loss_tokens is None:
            loss_tokens = accounting.loss_tokens(program, corpus.stores["train"], precision)
    except UserError as error:
        raise UserError(f"arm {arm!r}: {error}") from error
    if split not in corpus.stores:
        raise UserError(f"split {split!r} is not one of {', '.join(corpus.stores)}")
    try:
        evaluator.make_tasks(tasks, corpus, split, program.length, tasks)
    except UserError as error:
        raise UserError(
            f"config.tasks={tuple(tasks)!r}: {error}; or leave that task out"
        ) from error
    stores = corpus.stores if tasks else {}
    about = {
        "data": {
            "source": corpus.source,
            "fingerprint": corpus.fingerprint,
            "tally": corpus.tally,
            "splits": {name: _sizes(store, corpus.tokenizer) for name, store in stores.items()},
            "tokenizer": {"kind": config["tokenizer"]["kind"], "size": corpus.tokenizer.size},
        },
        "suits": [_suits(options["task"], program) for options in candidates],
        "machine": records.machine(),
        "versions": records.versions(),
        "git": records.git_revision(),
    }
    return accounting.count(program, config["training"]["batch_size"], loss_tokens), about


def train(directory: Path, config: dict[str, Any], experiment: str) -> None:
    """Trains a run that no task evaluates, or resumes it.

    Args:
      directory: directory of the run, workdir/<kind>/<trial>.
      config: run config of the run.
      experiment: name of the experiment, for event writers.

    Raises:
      Diverged: the loss is not finite; the run's record then has the status "diverged".
    """
    workdir = directory.parent.parent
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):  # unless the user has set one
        jax.config.update("jax_compilation_cache_dir", str(compilation_cache(workdir)))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    group = events.Group(workdir, experiment, directory.name)
    loop.train(config, directory, quiet=True, group=group)


def run(
    directory: Path,
    arm: str,
    seed: int,
    config: dict[str, Any],
    experiment: str,
    tasks: Tasks,
    split: str,
    untrained: str,
    with_samples: bool = False,
) -> None:
    """Trains an arm with one seed, or resumes it, and evaluates it on the tasks that suit it.

    scores.json is written last, so a run with this file is done.

    Args:
      directory: directory of the run, workdir/<kind>/<trial>.
      arm: name of the arm.
      seed: seed of the run.
      config: run config of the run.
      experiment: name of the experiment, for event writers.
      tasks: options of the tasks to evaluate on, by name.
      split: split that tasks evaluate on.
      untrained: name under which the initial parameters are also evaluated on the shared tasks;
        "" to skip this.
      with_samples: whether to write samples for the report.

    Raises:
      Diverged: the loss is not finite; the run's record then has the status "diverged".
    """
    train(directory, config, experiment)
    trained = load_run(directory, progress=False)
    program, corpus = trained.program, trained.corpus
    suitable = [name for name, options in tasks.items() if _suits(options["task"], program)]
    made = evaluator.make_tasks(suitable, corpus, split, program.length, tasks)
    measured = evaluator.score(made, program, trained.params, arm, seed)
    if untrained:
        shared = {name: task for name, task in made.items() if task.shared}
        initial = program.init()["params"]
        measured += evaluator.score(shared, program, initial, untrained, seed, "untrained")
    scores.write_examples(directory / "examples.npz", measured.examples)
    if with_samples:
        store, tokenizer = corpus.stores[split], corpus.tokenizer
        texts = samples.draw(program, trained.params, tokenizer, store)
        example = preview.first_example(program.objective, store, tokenizer)
        write_json(directory / "samples.json", {"asked": example, "samples": texts})
    notes = {name: left_out for name, task in made.items() if (left_out := list(task.notes))}
    write_json(directory / "scores.json", {"rows": measured.rows, "notes": notes})


def ended(directory: Path, scored: bool) -> dict[str, Any] | None:
    """Returns the outcome of a run from its files, or None if it has not ended.

    Args:
      directory: directory of the run.
      scored: whether the run must have been evaluated to be done.

    Returns:
      {"status": "done"}, or {"status": "diverged", "error": …}: divergence is a result.
    """
    if scored and (directory / "scores.json").exists():
        return {"status": "done"}
    try:
        record = json.loads((directory / "run.json").read_text(encoding="utf-8"))
        status = record["status"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if status == "diverged":
        return {"status": status, "error": record.get("error", "")}
    return {"status": status} if status == "done" and not scored else None


def baselines(path: Path, config: dict[str, Any], tasks: Tasks, split: str) -> None:
    """Evaluates the baselines of all tasks.

    Args:
      path: file for the scores; per-example values are written to baselines.npz in the same
        directory.
      config: run config of any arm, for its corpus and mesh.
      tasks: options of the tasks to evaluate on, by name.
      split: split that tasks evaluate on.
    """
    corpus = corpora.prepare(config["data"], config["tokenizer"], progress=False)
    program = Program(config, corpus.tokenizer)
    made = evaluator.make_tasks(tasks, corpus, split, program.length, tasks)
    measured = evaluator.baselines(made, program)
    scores.write_examples(path.with_name("baselines.npz"), measured.examples)
    write_json(path, {"rows": measured.rows})


def baselines_ended(path: Path) -> dict[str, Any] | None:
    """Returns the outcome "done" if `baselines` has written its file, else None."""
    return {"status": "done"} if path.exists() else None


def seconds_per_step(config: dict[str, Any], steps: int = 4) -> float:
    """Measures the duration of a training step on this host.

    Args:
      config: run config of the arm.
      steps: number of steps to average over, after a first one that compiles.

    Raises:
      UserError: the config is invalid, for example because its mesh is for other devices.
    """
    corpus = corpora.prepare(config["data"], config["tokenizer"], progress=False)
    program = Program(config, corpus.tokenizer)
    store, size = corpus.stores["train"], program.training.batch_size
    rows = loader.examples(
        program.objective, store, program.objective.plan(store), program.seed, size, program.steps
    )
    batches = loader.Loader(rows, size, program.mesh, 0)
    state, sums = program.step(program.init(), next(batches))
    jax.block_until_ready(sums)
    start = time.perf_counter()
    for _ in range(steps):
        state, sums = program.step(state, next(batches))
    jax.block_until_ready(sums)
    return (time.perf_counter() - start) / steps


def compilation_cache(workdir: Path) -> Path:
    """The directory of compiled programs, one per kind of processor.

    Hosts that share a workdir may have different processors, which need different programs.
    """
    return workdir / "compiled" / _processor()


@functools.cache
def _processor() -> str:
    """A short name of this host's instruction set."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"


def _suits(task: str, program: Program) -> bool:
    """Whether a task plug-in can evaluate models of the program's objective."""
    return bool(plugins.find("tasks", task).Task.suits(program.objective))


def _sizes(store: Store, tokenizer: Tokenizer) -> dict[str, int]:
    """Documents, words, bytes and tokens of a split; words are counted by their first ids."""
    words = sum(
        int(tokenizer.is_word_start[store.tokens[at : at + 2**24]].sum())
        for at in range(0, len(store.tokens), 2**24)
    )
    return {
        "documents": len(store),
        "words": words,
        "bytes": int(store.meta["bytes"]),
        "tokens": len(store.tokens),
    }
