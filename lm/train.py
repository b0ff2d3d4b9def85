"""Trains a model, or resumes an interrupted run.

  python -m lm.train --config=configs/mlm.py:tiny --workdir=runs/mlm
      [--config.optimizer.learning_rate=3e-4]

Exit status:
  0        done
  42       stopped by SIGTERM or Ctrl-C after saving a checkpoint; the same command resumes the run
  2        a flag, the config, the data or the workdir is wrong, or the loss diverged, as the
           message explains; saved checkpoints are kept
  1        internal error
  128 + n  killed by signal n; the same command resumes from the last checkpoint
"""

from absl import flags

from lm.core import command

_CONFIG = command.config_flag()
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "directory for checkpoints, metrics and run.json; a run that is there is resumed",
    required=True,
)


def main() -> None:
    from lm.parallel import mesh
    from lm.training import loop

    mesh.initialize()
    loop.train(_CONFIG.value, _WORKDIR.value)


if __name__ == "__main__":
    command.run(main)
