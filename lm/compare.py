"""Compares objectives and models at one budget, over seeds, and writes a report.

  python -m lm.compare --config=experiments/objectives.py:tiny --workdir=runs/objectives
  python -m lm.compare --config=experiments/objectives.py:tiny --dry_run [--tpu=v5e-16] [--nomeasure]
  python -m lm.compare --diff runs/objectives runs/objectives_again

`--set` gives a task of the experiment options, or adds one: --set=blimp.task=minimal_pairs --set=blimp.path='blimp/*.jsonl'.

The same command continues an interrupted comparison; finished runs are kept. Given again while it runs, on this machine or on another one
that sees the workdir, it shares the work.
"""

import shlex
import sys

from absl import flags

from lm.core import command

_CONFIG = command.config_flag(required=False)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "where runs, results.parquet and report.html go; the same one continues, or shares the work",
)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run",
    False,
    "only say what would run: steps, tokens, FLOPs, parameters, time; writes nothing there",
)
_MEASURE = flags.DEFINE_bool("measure", True, "with --dry_run: time a few steps of each arm")
_TPU = flags.DEFINE_string(
    "tpu",
    "",
    "with --dry_run: whether each arm fits this slice, as v5e-16, by the TPU compiler (tpu/README.md)",
)
_SET = command.set_flag()
_DIFF = flags.DEFINE_list("diff", [], "two workdirs, whose reports are compared")


def main() -> int:
    from lm.core.plain import plain
    from lm.core.plugins import UserError

    if _DIFF.value:
        if len(_DIFF.value) != 2:
            raise UserError(
                f"--diff={','.join(_DIFF.value)} should name two workdirs of lm.compare: --diff A B"
            )
        from pathlib import Path

        from lm import report

        print(report.diff(*map(Path, _DIFF.value)))
        return 0
    if _CONFIG.value is None:
        raise UserError("--config is missing; --help shows how this command is used")
    config = plain(_CONFIG.value)
    for name, options in command.task_options(_SET.value).items():
        tasks = (
            config["tasks"]
            if isinstance(config["tasks"], dict)
            else {task: {} for task in config["tasks"]}
        )
        config["tasks"] = tasks | {name: tasks.get(name, {}) | options}
    if _DRY_RUN.value:
        from lm.comparison import dry_run

        return dry_run.run(config, _WORKDIR.value, _MEASURE.value, _TPU.value)
    if _WORKDIR.value is None:
        raise UserError("--workdir is missing; --help shows how this command is used")
    if _TPU.value:
        raise UserError(
            "--tpu says whether arms fit a slice, with --dry_run; it does not choose where they run"
        )
    from lm.comparison import run as comparison_run

    line = "python -m lm.compare " + " ".join(shlex.quote(argument) for argument in sys.argv[1:])
    source = next(
        (
            argument.split("=", 1)[1]
            for argument in sys.argv[1:]
            if argument.startswith("--config=")
        ),
        "",
    )
    return comparison_run.compare(config, _WORKDIR.value, line, source)


def _joined(arguments: list[str]) -> list[str]:
    """Arguments with `--diff A B` as one, --diff=A,B: a flag of absl takes one value."""
    if "--diff" not in arguments:
        return arguments
    at = arguments.index("--diff")
    two = [argument for argument in arguments[at + 1 : at + 3] if not argument.startswith("--")]
    return [*arguments[:at], "--diff=" + ",".join(two), *arguments[at + 1 + len(two) :]]


if __name__ == "__main__":
    sys.argv = _joined(sys.argv)
    command.run(main, __doc__)
