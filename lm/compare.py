"""Compares objectives and models at one budget, over seeds, and writes a report.

  python -m lm.compare --config=experiments/objectives.py:tiny --workdir=runs/objectives
  python -m lm.compare --config=experiments/objectives.py:tiny --dry_run [--tpu=v5e-16]
      [--nomeasure]
  python -m lm.compare --diff runs/objectives runs/objectives_again

--set gives a task of the experiment options, or adds a task:
  --set=blimp.task=minimal_pairs --set=blimp.path='blimp/*.jsonl'

The same command resumes an interrupted comparison; finished runs are kept. Started again while the
comparison runs, on this host or on another one that shares the workdir, it takes over a part of the
runs.

Exit status: 0 done (a run that diverged is a result); 1 some runs failed, an arm does not fit
--tpu, or internal error; 2 the comparison cannot work, as the message explains; 128 + n stopped by
signal n, the same command resumes it.
"""

import shlex
import sys

from absl import flags

from lm.core import command

_CONFIG = command.config_flag(required=False)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "directory for runs, results.parquet and report.html; a comparison that is there is resumed",
)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run",
    False,
    "only print what would run: steps, tokens, FLOPs, parameters and time; changes no workdir",
)
_MEASURE = flags.DEFINE_bool("measure", True, "with --dry_run: time a few steps of each arm")
_TPU = flags.DEFINE_string(
    "tpu",
    "",
    "with --dry_run: check with the TPU compiler that each arm fits this slice, such as v5e-16"
    " (tpu/README.md)",
)
_SET = command.set_flag()
_DIFF = flags.DEFINE_list("diff", [], "compare the reports of two workdirs: --diff A B")


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
        raise UserError("--config is missing; see --help")
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
        raise UserError("--workdir is missing; see --help")
    if _TPU.value:
        raise UserError(
            f"--tpu={_TPU.value} needs --dry_run: it checks whether arms fit a slice, and does not"
            " choose where they run"
        )
    from lm.comparison import run

    line = "python -m lm.compare " + " ".join(shlex.quote(argument) for argument in sys.argv[1:])
    source = next(
        (
            argument.split("=", 1)[1]
            for argument in sys.argv[1:]
            if argument.startswith("--config=")
        ),
        "",
    )
    return run.compare(config, _WORKDIR.value, line, source)


def _joined(arguments: list[str]) -> list[str]:
    """Joins `--diff A B` to --diff=A,B, since an absl flag takes one argument."""
    if "--diff" not in arguments:
        return arguments
    at = arguments.index("--diff")
    two = [argument for argument in arguments[at + 1 : at + 3] if not argument.startswith("--")]
    return [*arguments[:at], "--diff=" + ",".join(two), *arguments[at + 1 + len(two) :]]


if __name__ == "__main__":
    sys.argv = _joined(sys.argv)
    command.run(main)
