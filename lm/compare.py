"""Compares objectives and models at one budget, over seeds, and writes a report.

  python -m lm.compare --config=experiments/objectives.py:tiny --workdir=runs/objectives

The same command continues an interrupted comparison; finished runs are kept.
"""

import shlex
import sys

from absl import flags

from lm import command

_CONFIG = command.config_flag()
_WORKDIR = flags.DEFINE_string("workdir", None, "where runs, results.parquet and report.html go; the same one continues", required=True)


def main() -> int:
    from lm import comparison

    line = "python -m lm.compare " + " ".join(shlex.quote(argument) for argument in sys.argv[1:])
    source = next((argument.split("=", 1)[1] for argument in sys.argv[1:] if argument.startswith("--config=")), "")
    return comparison.compare(_CONFIG.value, _WORKDIR.value, line, source)


if __name__ == "__main__":
    command.run(main, __doc__)
