"""Opens a trained run: its record, tokenizer, program and parameters; its corpus on first use."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from lm.core.plugins import UserError
from lm.core.protocols import Model, Params, Tokenizer
from lm.data import corpus as corpora
from lm.data.corpus import Corpus
from lm.parallel.mesh import DeviceMismatch
from lm.tokenizers import config as tokenizers
from lm.training import records
from lm.training.checkpoint import Checkpoints
from lm.training.program import Program


class DeferredCorpus(Corpus):
    """The corpus of a run, read when something other than its tokenizer is used."""

    def __init__(self, tokenizer: Tokenizer, read: Callable[[], Corpus]):
        object.__setattr__(self, "tokenizer", tokenizer)
        object.__setattr__(self, "_read", read)

    def __repr__(self) -> str:
        return "DeferredCorpus(read on first use)"

    def __getattr__(self, name: str) -> Any:
        # Called for attributes that are not set: at first, all fields but the tokenizer.
        if name not in {field.name for field in dataclasses.fields(Corpus)}:
            raise AttributeError(name)
        corpus = self._read()
        for field in dataclasses.fields(Corpus):
            object.__setattr__(self, field.name, getattr(corpus, field.name))
        return getattr(corpus, name)


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class LoadedRun:
    """A checkpoint of a run.

    Attributes:
      workdir: directory of the run.
      record: contents of run.json of the run.
      tokenizer: the tokenizer that the model was trained with.
      corpus: the text that the model was trained on, read on first use.
      program: model, objective and compiled functions, on the devices of this machine.
        `program.config` has only the model's options and shape; `config` of this class is the run's
        config.
      params: parameters, a nested dict of arrays.
      step: step of the checkpoint.
    """

    workdir: Path
    record: dict[str, Any]
    tokenizer: Tokenizer
    corpus: Corpus
    program: Program
    params: Params
    step: int

    def __repr__(self) -> str:
        count = self.program.parameters
        return f"LoadedRun({str(self.workdir)!r}, step={self.step}, parameters={count:,})"

    @property
    def config(self) -> dict[str, Any]:
        """The run's config, as nested dicts.

        `program.config` has only the model's options and shape.
        """
        return self.record["config"]

    @property
    def model(self) -> Model:
        """The model with its parameters, to be called under `jax.jit` or eagerly."""
        return self.program.model(self.params)


def load_run(
    workdir: str | Path, step: int | str | None = None, progress: bool = True
) -> LoadedRun:
    """Opens a checkpoint of a run of lm.train, using only the directory of the run.

    Args:
      workdir: directory of the run.
      step: step of the checkpoint, "latest", or "best" (lowest validation loss); None means the
        latest.
      progress: whether to show progress bars while the corpus is read.

    Raises:
      UserError: there is no run or checkpoint, or one of its files is damaged. The first use of
        the corpus raises UserError if the text has changed since training.
    """
    workdir = Path(workdir)
    record = records.read_run(workdir)
    checkpoints = Checkpoints(workdir, read_only=True)
    chosen = _choose(workdir, checkpoints, "latest" if step is None else str(step))
    config = record["config"]
    tokenizer = _tokenizer(workdir, record)
    try:
        program = Program(config, tokenizer)
    except DeviceMismatch:  # trained on other devices: split rows over this machine's
        local = {
            "mesh": {"data": -1},
            "training": config["training"] | {"batch_size": jax.device_count(), "microbatches": 1},
        }
        program = Program(config | local, tokenizer)
    state, _ = checkpoints.restore(chosen, program.shapes, program.shardings)
    checkpoints.close()

    def read_corpus() -> Corpus:
        corpus = corpora.prepare(config["data"], config["tokenizer"], progress=progress)
        trained_on = record["data"]["fingerprint"]
        if corpus.fingerprint != trained_on:
            raise UserError(
                f"the corpus of {workdir} has changed since training: its fingerprint was"
                f" {trained_on} and is {corpus.fingerprint} now; restore the text to evaluate on it"
            )
        return corpus

    corpus = DeferredCorpus(tokenizer, read_corpus)
    return LoadedRun(workdir, record, tokenizer, corpus, program, state["params"], chosen)


def _choose(workdir: Path, checkpoints: Checkpoints, step: str) -> int:
    steps = checkpoints.steps()
    named = {"latest": checkpoints.latest, "best": checkpoints.best}
    chosen = named[step]() if step in named else int(step) if step.isdigit() else None
    if chosen is None or chosen not in steps:
        raise UserError(
            f"{workdir} has no checkpoint {step!r}; there are: latest, best,"
            f" {', '.join(map(str, steps)) or 'none yet'}"
        )
    return chosen


def _tokenizer(workdir: Path, record: dict[str, Any]) -> Tokenizer:
    """The tokenizer that training saved along with the checkpoints."""
    path = workdir / "tokenizer.model"
    if not path.is_file():
        raise UserError(f"{workdir} has no tokenizer.model; give the complete directory of a run")
    tokenizer = tokenizers.load(record["config"]["tokenizer"], path)
    trained_with = record["data"].get("tokenizer", tokenizer.fingerprint)
    if tokenizer.fingerprint != trained_with:
        raise UserError(
            f"{path} is not the vocabulary of this run: its fingerprint is {tokenizer.fingerprint},"
            f" not {trained_with}; restore the file"
        )
    return tokenizer
