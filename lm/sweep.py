"""Trains a config with several values of any of its fields, and ranks them.

  python -m lm.sweep --config=configs/clm.py:tiny --workdir=runs/rates
      --sweep.optimizer.learning_rate=log(1e-3,1e-1,5) --sweep.seed=0,1,2
  python -m lm.sweep --config=configs/mlm.py:tiny --workdir=runs/mlm_sweep --metric=masked.ce
      --sampler=random --trials=20 --sweep.optimizer.learning_rate=log(1e-3,1e-1)
      --sweep.objective.rate=lin(0.1,0.5)

--sweep.FIELD takes a list (1e-3,3e-3), log(FROM,TO,POINTS), lin(FROM,TO,POINTS) or
int(FROM,TO[,STEP]). Results are averaged over the values of --sweep.seed. Writes sweep.md,
sweep.json and sweep.png.

The same command resumes an interrupted sweep. Started again while the sweep runs, on this host or
on another one that shares the workdir, it takes over a part of the runs.

Exit status: 0 done; 1 some runs failed, or internal error; 2 the sweep cannot work, as the message
explains; 128 + n stopped by signal n, the same command resumes it.
"""

import sys

from absl import flags

from lm.core import command

_CONFIG = command.config_flag()
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "directory for runs and results; a sweep that is there is resumed",
    required=True,
)
_METRIC = flags.DEFINE_string(
    "metric",
    "validation.loss",
    "metric to rank by: validation.loss, or TASK.METRIC such as causal.nll; sweeps over objectives,"
    " tokenizers or data need the latter",
)
_SAMPLER = flags.DEFINE_enum(
    "sampler",
    "grid",
    ["grid", "random", "optuna"],
    "grid: all combinations; random: random combinations; optuna: proposed by Optuna (pip install"
    " -e '.[optuna]')",
)
_TRIALS = flags.DEFINE_integer(
    "trials",
    0,
    "number of combinations for random and optuna; a resumed sweep may have more than before",
    lower_bound=0,
)
_SAMPLER_SEED = flags.DEFINE_integer(
    "sampler_seed", 0, "random seed of random and optuna", lower_bound=0
)
_WORKERS = flags.DEFINE_integer(
    "workers",
    0,
    "runs side by side; 0: one for each core, or one in all with an accelerator",
    lower_bound=0,
)
_SPLIT = flags.DEFINE_enum(
    "split", "validation", ["validation", "test"], "which held-out documents a task evaluates on"
)

_swept: dict[str, str] = {}


def main() -> int:
    from lm.comparison import sweep
    from lm.core.plain import plain

    options = sweep.Options(
        _METRIC.value,
        _SAMPLER.value,
        _TRIALS.value,
        _SAMPLER_SEED.value,
        _WORKERS.value,
        _SPLIT.value,
    )
    return sweep.sweep(plain(_CONFIG.value), _WORKDIR.value, _swept, options)


def split(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """Separates --sweep.FIELD=VALUES, unknown to absl, from the other arguments.

    Returns:
      The other arguments, and {field: values}.
    """
    rest, swept = [], {}
    for argument in arguments:
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name.startswith("sweep.") and equals:
            swept[name.removeprefix("sweep.")] = value
        else:
            rest.append(argument)
    return rest, swept


if __name__ == "__main__":
    sys.argv, _swept = split(sys.argv)
    command.run(main)
