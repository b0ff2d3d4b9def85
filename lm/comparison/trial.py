"""One run of a comparison or sweep, as a worker process does it: train, measure, write down."""

import functools
import hashlib
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lm.comparison.budgets import Accounting
from lm.core.plain import write_json
from lm.core.plugins import UserError
from lm.inference.load import load_run

Tasks = Mapping[str, Mapping[str, Any]]  # a name → the plug-in under "task", and its options


def check(
    arm: str,
    config: dict,
    tasks: Tasks,
    split: str,
    loss_tokens: float | None,
    anywhere: bool = False,
    asked: Sequence[Mapping] = (),
    precision: float = math.inf,
) -> tuple[Accounting, dict[str, Any]]:
    """Builds an arm without training, so that a comparison that cannot work ends before it starts.

    Args:
      tasks, split: made on trial, if there are any. loss_tokens: of a row where they were counted before. anywhere: whether this machine
        need not be one that the arm's mesh is for. asked: tasks of which it says whether they suit the arm. precision: of loss tokens.

    Returns:
      What a step amounts to, and about the corpus: "data", "machine", "versions", "git"; and "suits", for each of `asked`.
    """
    from lm.comparison import accounting
    from lm.core import plugins
    from lm.data import corpus as corpora
    from lm.evaluation import evaluator
    from lm.parallel import mesh
    from lm.training import events, loop, records

    mesh.initialize()
    try:
        corpus = corpora.prepare(
            config["data"], config["tokenizer"], progress=False
        )
        program = accounting.build(config, corpus.tokenizer, anywhere)
        loop.training_plan(program, corpus.stores["train"])
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
    about = {
        "data": {
            "source": corpus.source, "fingerprint": corpus.fingerprint, "tally": corpus.tally,
            "splits": {name: _sizes(store, corpus.tokenizer) for name, store in corpus.stores.items()} if tasks else {},
            "tokenizer": {"kind": config["tokenizer"]["kind"], "size": corpus.tokenizer.size},
        },
        "suits": [bool(plugins.find("tasks", each["task"]).Task.suits(None, program.objective)) for each in asked],
        "machine": records.machine(), "versions": records.versions(), "git": records.git_revision(),
    }  # fmt: skip
    return accounting.count(program, config["training"]["batch_size"], loss_tokens), about


def train(directory: Path, config: dict, experiment: str) -> None:
    """Trains, or continues, a run that is not measured by tasks: `directory` is root/<kind>/<trial>.

    Raises:
      Diverged: and the run's record says so, too.
    """
    import jax

    from lm.training import events, loop

    root = directory.parent.parent
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):  # else the user's own
        jax.config.update("jax_compilation_cache_dir", str(compiled(root)))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    loop.train(config, directory, quiet=True, group=events.Group(root, experiment, directory.name))


def run(
    directory: Path,
    arm: str,
    seed: int,
    config: dict,
    experiment: str,
    tasks: Tasks,
    split: str,
    untrained: str,
    shows: bool = False,
) -> None:
    """Trains one arm with one seed, or continues it, and measures it on the tasks that suit it.

    Args:
      directory: of this run. tasks, split: what it is measured on. untrained: name under which its initial values are measured on the
        shared tasks too; "" for not. shows: whether it leaves samples for the report.
    """
    from lm.core import plugins
    from lm.evaluation import evaluator
    from lm.inference import preview, samples
    from lm.stats import scores

    train(directory, config, experiment)
    trained = load_run(directory, progress=False)
    objective = trained.program.objective
    suiting = [
        name
        for name, options in tasks.items()
        if plugins.find("tasks", options["task"]).Task.suits(None, objective)
    ]
    made = evaluator.make_tasks(suiting, trained.corpus, split, trained.program.length, tasks)
    found = evaluator.score(made, trained.program, trained.params, arm, seed)
    if untrained:
        shared = {name: task for name, task in made.items() if task.shared}
        found += evaluator.score(
            shared, trained.program, trained.program.init()["params"], untrained, seed, "untrained"
        )
    scores.write_examples(directory / "examples.npz", found.examples)
    if shows:
        store, tokenizer = trained.corpus.stores[split], trained.corpus.tokenizer
        written = samples.draw(trained.program, trained.params, tokenizer, store)
        write_json(
            directory / "samples.json",
            {"asked": preview.first(objective, store, tokenizer), "samples": written},
        )
    notes = {
        name: left_out
        for name, task in made.items()
        if (left_out := list(getattr(task, "notes", ())))
    }
    write_json(
        directory / "scores.json", {"rows": found.rows, "notes": notes}
    )  # the last: a run that has it is done


def ended(directory: Path, scored: bool) -> dict[str, Any] | None:
    """How a run ended: done, where it is also measured if it is to be `scored`, or diverged, which is a result. None if it did not."""
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


def baselines(path: Path, config: dict, tasks: Tasks, split: str) -> None:
    """Measures what the tasks are read against, and writes the rows to `path`."""
    from lm.data import corpus as corpora
    from lm.evaluation import evaluator
    from lm.stats import scores
    from lm.training.program import Program

    corpus = corpora.prepare(config["data"], config["tokenizer"], progress=False)
    program = Program(config, corpus.tokenizer)
    made = evaluator.make_tasks(tasks, corpus, split, program.length, tasks)
    found = evaluator.baselines(made, program)
    scores.write_examples(path.with_name("baselines.npz"), found.examples)
    write_json(path, {"rows": found.rows})


def baselines_ended(path: Path) -> dict[str, Any] | None:
    """Done, if they are written."""
    return {"status": "done"} if path.exists() else None


def seconds_per_step(config: dict, steps: int = 4) -> float:
    """Seconds that a step takes here, over a few after the first, which compiles."""
    import time

    import jax

    from lm.data import corpus as corpora
    from lm.data import loader
    from lm.training.program import Program

    corpus = corpora.prepare(config["data"], config["tokenizer"], progress=False)
    program = Program(config, corpus.tokenizer)
    store, size = corpus.stores["train"], program.training.batch_size
    rows = loader.examples(
        program.objective, store, program.objective.plan(store), program.seed, size, program.steps
    )
    batches = loader.Loader(rows, size, program.mesh, 0)
    state, sums = program.step(program.init(), next(batches))
    jax.block_until_ready(sums)
    began = time.perf_counter()
    for _ in range(steps):
        state, sums = program.step(state, next(batches))
    jax.block_until_ready(sums)
    return (time.perf_counter() - began) / steps


def compiled(root: Path) -> Path:
    """Where compiled programs are kept: by kind of processor, since hosts that share a directory may not run each other's."""
    return root / "compiled" / _processor()


@functools.cache
def _processor() -> str:
    """A short name of this machine's instruction set."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"


def _sizes(store, tokenizer) -> dict[str, int]:
    """Documents, words, bytes and tokens of a split; words are counted by the ids that begin one."""
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
