"""Writes minimal pairs of the grammar of lm/data/sources/grammar.py as JSON lines in BLiMP's form, for the task minimal_pairs.

  python -m lm.minimal_pairs --out=pairs.jsonl [--pairs=1000] [--seed=0]

Every good sentence is one that the grammar makes, every bad one has probability 0 in it; a paradigm has equally many pairs of each number.
"""

import json
import os
from pathlib import Path

from absl import flags

from lm.core import command
from lm.core.plugins import UserError

_OUT = flags.DEFINE_string("out", None, "file to write", required=True)
_PAIRS = flags.DEFINE_integer("pairs", 1000, "pairs of each paradigm", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "of the pairs", lower_bound=0)


def write(path: Path, count: int, seed: int) -> int:
    """Writes so many pairs of each paradigm and says how many there are in all. Atomic.

    Raises:
      UserError: a paradigm has fewer, or the file cannot be written.
    """
    from lm.data.synthetic import pairs

    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(pair) + "\n" for pair in pairs.draw(count, seed)]
        part.write_text("".join(lines), encoding="utf-8")
        part.replace(path)
    except ValueError as error:
        raise UserError(f"--pairs={count} are too many: {error}") from error
    except OSError as error:
        raise UserError(f"--out={str(path)!r} cannot be written ({error.strerror})") from error
    finally:
        if path.parent.is_dir():
            part.unlink(missing_ok=True)
    return len(lines)


def main() -> None:
    path = Path(_OUT.value).expanduser()
    print(f"{path}: {write(path, _PAIRS.value, _SEED.value):,} pairs")


if __name__ == "__main__":
    command.run(main, __doc__)
