"""One run of a comparison, as a worker process does it: train, measure, write down."""

import os
import signal
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm.lookup import UserError
from lm.plain import write_json


def start_worker(parent: int, share: list[int], queue: Any) -> None:
    """Prepares a worker process: cores of its own where several work side by side, and an end when the parent ends.

    Args:
      parent: process id of lm.compare. share: cores of each worker. queue: hands out the workers' numbers.
    """
    import ctypes

    number = queue.get()
    mine = sorted(os.sched_getaffinity(0))[number * share[0] : (number + 1) * share[0]] if share[0] else []
    if mine:
        os.sched_setaffinity(0, mine)
    # Ctrl-C goes to every process of the terminal; the parent alone decides and sends SIGTERM, at which a run saves.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: a killed parent leaves no orphans (Linux)
    except (OSError, AttributeError):
        return
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def check(arms: Mapping[str, dict], tasks: list[str], split: str) -> dict[str, Any]:
    """Builds every arm without computing, so that a comparison that cannot work ends before it starts.

    Returns:
      What the comparison is about: data, machine, versions, and parameters and mask of each arm.
    """
    from lm import evaluator, mesh, program, records, trainer
    from lm.data import corpus as corpora

    mesh.initialize()
    seen = {}
    for arm, config in arms.items():
        try:
            corpus = corpora.prepare(config["data"], config["tokenizer"], progress=False, skip=("length",))
            built = program.Program(config, corpus.tokenizer)
            trainer.training_plan(built, corpus.stores["train"])
        except UserError as error:
            raise UserError(f"arm {arm!r}: {error}") from error
        seen[arm] = (corpus, built)
    fingerprints = {corpus.fingerprint for corpus, _ in seen.values()}
    if len(fingerprints) > 1:
        raise UserError(
            "the arms read different corpora or tokenizers, so no yardstick can be shared; give all arms the same data and tokenizer"
        )
    corpus, built = next(iter(seen.values()))
    if split not in corpus.stores:
        raise UserError(f"split {split!r} is not one of {', '.join(corpus.stores)}")
    try:
        evaluator.make_tasks(tasks, corpus, split, built.length)
    except UserError as error:
        raise UserError(f"config.tasks={tuple(tasks)!r}: {error}; or leave that task out") from error
    splits = {name: _sizes(store, corpus.tokenizer) for name, store in corpus.stores.items()}
    return {
        "data": {
            "source": corpus.source, "fingerprint": corpus.fingerprint, "splits": splits, "tally": corpus.tally,
            "tokenizer": {"kind": arms[next(iter(arms))]["tokenizer"]["kind"], "size": corpus.tokenizer.size},
        },
        "parameters": {arm: built.parameters for arm, (_, built) in seen.items()},
        "masks": {arm: built.objective.mask for arm, (_, built) in seen.items()},
        "machine": records.machine(), "versions": records.versions(), "git": records.git_revision(),
    }  # fmt: skip


def run(workdir: Path, arm: str, seed: int, config: dict, tasks: list[str], split: str, untrained: str) -> dict[str, Any]:
    """Trains one arm with one seed, or continues it, and measures it on the tasks that suit it.

    Args:
      workdir: of this run. tasks, split: what it is measured on. untrained: name under which its initial values are
        measured on the shared task too; "" for not.

    Returns:
      {"status": "done", "diverged" or "failed", "error": …}; the rest is in workdir/run.json and workdir/scores.json.
    """
    import jax

    from lm import evaluator, scores, trainer

    try:
        jax.config.update("jax_compilation_cache_dir", str(workdir.parent.parent / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
        trainer.train(config, workdir, quiet=True)
        trained = evaluator.load(workdir, progress=False)
        made = _tasks(trained, tasks, split)
        found = evaluator.score(made, trained.built, trained.params, arm, seed)
        if untrained:
            shared = {name: task for name, task in made.items() if task.shared}
            found += evaluator.score(shared, trained.built, trained.built.init()["params"], untrained, seed, "untrained")
        scores.write_examples(workdir / "examples.npz", found.examples)
        write_json(workdir / "scores.json", {"rows": found.rows})  # the last: a run that has it is done
        (workdir / "error.json").unlink(missing_ok=True)  # of an earlier try
        return {"status": "done"}
    except SystemExit as stop:  # SIGTERM came and the run is saved; the pool would swallow this, and wait for work from a dead parent
        os._exit(stop.code if isinstance(stop.code, int) else 1)
    except trainer.Diverged as error:
        return {"status": "diverged", "error": str(error)}
    except Exception as error:  # one trial's fault must not end the others: it is reported, and not counted
        text = str(error) if isinstance(error, UserError) else traceback.format_exc()
        if workdir.exists():
            write_json(
                workdir / "error.json", {"status": "failed", "error": text, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
            )
        return {"status": "failed", "error": text}


def baselines(path: Path, config: dict, tasks: list[str], split: str) -> dict[str, Any]:
    """Measures what the tasks are read against, and writes the rows to `path`."""
    from lm import evaluator, program, scores
    from lm.data import corpus as corpora

    corpus = corpora.prepare(config["data"], config["tokenizer"], progress=False, skip=("length",))
    built = program.Program(config, corpus.tokenizer)
    made = evaluator.make_tasks(tasks, corpus, split, built.length)
    found = evaluator.baselines(made, built)
    scores.write_examples(path.with_name("baselines.npz"), found.examples)
    write_json(path, {"rows": found.rows})
    return {"status": "done"}


def _sizes(store, tokenizer) -> dict[str, int]:
    """Documents, words, bytes and tokens of a split; words are counted by the ids that begin one."""
    words = sum(int(tokenizer.is_word_start[store.tokens[at : at + 2**24]].sum()) for at in range(0, len(store.tokens), 2**24))
    return {"documents": len(store), "words": words, "bytes": int(store.meta["bytes"]), "tokens": len(store.tokens)}


def _tasks(trained, names: list[str], split: str) -> dict[str, Any]:
    from lm import evaluator, lookup

    suiting = []
    for name in names:
        module = lookup.find("tasks", name)
        if module.Task.suits(None, trained.built.objective):
            suiting.append(name)
    return evaluator.make_tasks(suiting, trained.corpus, split, trained.built.length)
