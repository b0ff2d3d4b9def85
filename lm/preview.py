"""Prints training examples of a config: inputs, targets, and which positions the loss counts.

  python -m lm.preview --config=configs/mlm.py:tiny [--show=5] [--split=train]
      [--arrays] [--color=always]

Trains nothing; the corpus is read and tokenized if it is not cached.

Exit status: 0 done; 2 a flag or the config is wrong; 1 internal error.
"""

from absl import flags

from lm.core import command

_CONFIG = command.config_flag()
_SHOW = flags.DEFINE_integer("show", 5, "number of examples to print", lower_bound=1)
_SPLIT = flags.DEFINE_enum(
    "split", "train", ["train", "validation", "test"], "which documents the examples are from"
)
_STEP = flags.DEFINE_integer(
    "step",
    0,
    "step of the run that the examples are from; matters for objectives that change during a run",
    lower_bound=0,
)
_ARRAYS = flags.DEFINE_bool("arrays", False, "also print all arrays as numbers")
_COLOR = flags.DEFINE_enum(
    "color", "auto", ["auto", "always", "never"], "colours; auto: if the output is a terminal"
)


def main() -> None:
    from lm.core.plain import plain
    from lm.inference import preview

    color = {"always": True, "never": False}.get(_COLOR.value)
    preview.print_examples(
        plain(_CONFIG.value),
        _SPLIT.value,
        _SHOW.value,
        _STEP.value,
        _ARRAYS.value,
        color,
    )


if __name__ == "__main__":
    command.run(main)
