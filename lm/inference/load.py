"""Opens a trained run: its record, program and parameters."""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from lm.core.plugins import UserError
from lm.data import corpus as corpora
from lm.data.corpus import Corpus
from lm.parallel.mesh import DeviceMismatch
from lm.training import records
from lm.training.checkpoint import Checkpoints
from lm.training.program import Program


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """A checkpoint, ready to be asked."""

    record: dict[str, Any]
    corpus: Corpus
    program: Program
    params: Any
    step: int


def load_run(workdir: str | Path, step: str = "latest", progress: bool = True) -> LoadedRun:
    """Loads a checkpoint of a run of lm.train.

    Args:
      workdir: of the run. step: "latest", "best" (lowest validation loss) or a number. progress: show bars.

    Raises:
      UserError: there is no run or checkpoint, it is damaged, or its corpus is no longer the same.
    """
    workdir = Path(workdir)
    record = records.read_run(workdir)
    checkpoints = Checkpoints(workdir, read_only=True)
    there = checkpoints.steps()
    chosen = {"latest": checkpoints.latest, "best": checkpoints.best}.get(
        step, lambda: int(step) if step.isdigit() else None
    )()
    if chosen not in there:
        raise UserError(
            f"{workdir} has no checkpoint {step!r}; there are: latest, best, {', '.join(map(str, there)) or 'none yet'}"
        )
    config = record["config"]
    corpus = corpora.prepare(
        config["data"], config["tokenizer"], progress=progress
    )
    if corpus.fingerprint != record["data"]["fingerprint"]:
        raise UserError(
            f"the corpus of {workdir} changed since training: fingerprint {record['data']['fingerprint']} then, {corpus.fingerprint} now"
        )
    try:
        program = Program(config, corpus.tokenizer)
    except DeviceMismatch:  # trained on other devices: split rows over those of this host
        here = {
            "mesh": {"data": -1},
            "training": config["training"] | {"batch_size": jax.device_count(), "microbatches": 1},
        }
        program = Program(config | here, corpus.tokenizer)
    state, _ = checkpoints.restore(chosen, program.shapes, program.shardings)
    checkpoints.close()
    return LoadedRun(record, corpus, program, state["params"], chosen)
