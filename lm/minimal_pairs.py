"""Writes minimal pairs from the grammar of the source `grammar`, for the task minimal_pairs.

  python -m lm.minimal_pairs --out=pairs.jsonl [--pairs=1000] [--seed=0]

The file has a pair a line, as JSON in BLiMP's form. The grammar generates each good sentence and
gives each bad one probability 0. Half of the pairs of a paradigm are singular, half are plural.

Exit status: 0 done; 2 a flag is wrong or the file cannot be written; 1 internal error.
"""

from pathlib import Path

from absl import flags

from lm.core import command

_OUT = flags.DEFINE_string("out", None, "file to write", required=True)
_PAIRS = flags.DEFINE_integer("pairs", 1000, "number of pairs of each paradigm", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "random seed of the pairs", lower_bound=0)


def main() -> None:
    from lm.data.synthetic import pairs

    path = Path(_OUT.value).expanduser()
    print(f"{path}: {pairs.write(path, _PAIRS.value, _SEED.value):,} pairs")


if __name__ == "__main__":
    command.run(main)
