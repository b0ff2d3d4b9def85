"""Tries values of any fields of a run's config, and says which are best.

  python -m lm.sweep --config=configs/clm.py:tiny --workdir=runs/rates --sweep.optimizer.learning_rate=log(1e-3,1e-1,5) --sweep.seed=0,1,2
  python -m lm.sweep --config=configs/mlm.py:tiny --workdir=runs/mlm_sweep --sampler=random --trials=20
      --sweep.optimizer.learning_rate=log(1e-3,1e-1) --sweep.objective.rate=lin(0.1,0.5) --metric=masked.ce

--sweep.FIELD takes a list (1e-3,3e-3), log(FROM,TO,POINTS), lin(FROM,TO,POINTS) or int(FROM,TO). Seeds are swept to be averaged over.
The same command continues an interrupted sweep, and shares its work if given again while it runs, here or on another machine. Writes
sweep.md, sweep.json and sweep.png.
"""

import sys

from absl import flags

from lm.core import command

_CONFIG = command.config_flag()
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "where runs and results go; the same one continues", required=True
)
_METRIC = flags.DEFINE_string(
    "metric",
    "validation.loss",
    "what to judge by: validation.loss, or TASK.METRIC as causal.nll, which sweeps of objective, tokenizer or data need",
)
_SAMPLER = flags.DEFINE_enum(
    "sampler",
    "grid",
    ["grid", "random", "optuna"],
    "grid: all combinations; optuna: pip install 'lm[optuna]'",
)
_TRIALS = flags.DEFINE_integer(
    "trials",
    0,
    "how many combinations random and optuna try; more may be asked for later",
    lower_bound=0,
)
_SAMPLER_SEED = flags.DEFINE_integer(
    "sampler_seed", 0, "of what random and optuna draw", lower_bound=0
)
_WORKERS = flags.DEFINE_integer(
    "workers",
    0,
    "runs side by side; 0: one a core, or one where there is an accelerator",
    lower_bound=0,
)
_SPLIT = flags.DEFINE_enum(
    "split", "validation", ["validation", "test"], "which held-out documents a task measures on"
)

_swept: dict[str, str] = {}


def main() -> int:
    from lm.comparison import sweep

    options = sweep.Options(
        _METRIC.value,
        _SAMPLER.value,
        _TRIALS.value,
        _SAMPLER_SEED.value,
        _WORKERS.value,
        _SPLIT.value,
    )
    return sweep.sweep(_CONFIG.value, _WORKDIR.value, _swept, options)


def split(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """The arguments without --sweep.FIELD=VALUES, which absl cannot know, and those by field."""
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
    command.run(main, __doc__)
