"""Prints examples of a config's objective as the model gets them: what it reads, what it is asked, what counts.

python -m lm.data --config=configs/mlm.py:tiny [--show=5] [--split=train] [--arrays] [--color=always]
"""

import sys

from absl import flags

from lm.core import command

_CONFIG = command.config_flag()
_SHOW = flags.DEFINE_integer("show", 5, "examples to print", lower_bound=1)
_SPLIT = flags.DEFINE_enum("split", "train", ["train", "validation", "test"], "which documents")
_STEP = flags.DEFINE_integer(
    "step",
    0,
    "which step of the run the examples are of, for objectives that change over it",
    lower_bound=0,
)
_ARRAYS = flags.DEFINE_bool("arrays", False, "also print every array as numbers")
_COLOR = flags.DEFINE_enum(
    "color", "auto", ["auto", "always", "never"], "colours; auto: where the output is a terminal"
)


def main() -> None:
    from lm.core.plain import plain
    from lm.inference import preview

    forced = {"always": True, "never": False}.get(_COLOR.value)
    preview.show(
        plain(_CONFIG.value),
        _SPLIT.value,
        _SHOW.value,
        _STEP.value,
        _ARRAYS.value,
        forced,
        sys.stdout,
    )


if __name__ == "__main__":
    command.run(main, __doc__)
