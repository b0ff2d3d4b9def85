"""Trains a model, or continues where an interrupted run of the same workdir stopped.

python -m lm.train --config=configs/mlm.py:tiny --workdir=runs/mlm [--config.optimizer.learning_rate=3e-4]

Exit status: 0 done; 42 asked to stop (SIGTERM, Ctrl-C) and saved, the same command continues; 2 something that the message names is wrong,
what was saved is kept; 1 an error of the program; 128 + n ended by signal n, the same command continues from the last checkpoint.
"""

from absl import flags

from lm.core import command

_CONFIG = command.config_flag()
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "where checkpoints, metrics and run.json go; the same one continues a run",
    required=True,
)


def main() -> None:
    from lm.parallel import mesh
    from lm.training import loop

    mesh.initialize()
    loop.train(_CONFIG.value, _WORKDIR.value)


if __name__ == "__main__":
    command.run(main, __doc__)
