"""lm: which pretraining objective, on which Transformer, is worth a TPU budget."""

import typing

from lm.core.version import __version__

if typing.TYPE_CHECKING:
    import os

    from lm.inference.load import LoadedRun

__all__ = ["__version__", "load"]


def load(workdir: "str | os.PathLike[str]", step: int | str | None = None) -> "LoadedRun":
    """Opens a trained run for use from Python. Only the run's directory is needed.

    Example::

        run = lm.load("runs/mlm")
        run.config["model"]["width"], run.tokenizer.size, run.step
        ids = run.tokenizer.encode("A sentence.")

    Args:
      workdir: the --workdir of lm.train, or of one run of lm.compare.
      step: a step, "latest", or "best" (lowest validation loss); None is the latest.

    Returns:
      The run, with `config`, `record`, `tokenizer`, `params`, `model`, `program`, `step`, and
      `corpus`, which is read on first use.

    Raises:
      lm.core.plugins.UserError: there is no run or checkpoint, or one of its files is damaged.
    """
    from pathlib import Path

    from lm.inference.load import load_run

    return load_run(Path(workdir), step)
