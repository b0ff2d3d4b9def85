"""Prints what a comparison would run, without running it."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rich.console
import rich.table

from lm.comparison import arms, budgets, record, trial, workers
from lm.comparison.budgets import Accounting
from lm.comparison.experiment import Experiment, parse, with_field
from lm.core.plain import read_json
from lm.core.plugins import UserError
from lm.parallel.mesh import DeviceMismatch
from lm.report.number_format import duration


def run(config: Mapping[str, Any], workdir: str | None, measure: bool, tpu: str) -> int:
    """Prints the budget, size and expected time of each arm.

    Args:
      config: the experiment, as nested dicts (experiments/*.py).
      workdir: workdir of a comparison, whose finished runs give the speed; None for none. The
        workdir is not changed.
      measure: whether to time a few steps of arms without finished runs.
      tpu: name of a slice to compile each arm for; "" for none.

    Returns:
      Exit status: 0, or 1 if an arm does not fit the slice.

    Raises:
      UserError: the experiment is invalid.
    """
    experiment = parse(config)
    old = record.read(Path(workdir)) if workdir else {}
    record.check_same(Path(workdir or ""), old, experiment)
    arms.prepare_corpora(experiment.runs)
    trials = len(experiment.seeds) + len(experiment.tuning.factors)  # of each arm
    slots = workers.number(experiment.plain["workers"], trials * len(experiment.runs))
    with workers.pool(slots) as pool:
        counted, about = arms.check(pool, experiment, old, any_devices=True)
        planned = budgets.plan(experiment.budget, counted, experiment.times)
        step_seconds = {
            arm: _recorded(Path(workdir), arm, experiment) if workdir else None
            for arm in experiment.runs
        }
        if measure:
            # As many processes run at a time as in the comparison.
            timed = {
                arm: pool.submit(trial.seconds_per_step, run)
                for arm, run in experiment.runs.items()
                if step_seconds[arm] is None
            }
            for arm, future in timed.items():
                try:
                    step_seconds[arm] = future.result()
                except DeviceMismatch as error:
                    print(f"arm {arm!r} cannot be timed here: {error}", file=sys.stderr)
    seconds = {
        arm: None if step is None else step * planned[arm]["steps"]
        for arm, step in step_seconds.items()
    }
    fits = {
        arm: _fits(with_field(run, "training.steps", planned[arm]["steps"]), tpu)
        for arm, run in experiment.runs.items()
        if tpu
    }
    # Wide enough for the table where the output has no width, such as a file or pipe.
    console = rich.console.Console(width=None if sys.stdout.isatty() else 200)
    console.print(_table(counted, planned, seconds, fits, tpu))
    _print_notes(experiment, about["data"], seconds, slots)
    return 0 if all(fit for fit, _ in fits.values()) else 1


def _table(
    counted: Mapping[str, Accounting],
    planned: Mapping[str, Mapping[str, Any]],
    seconds: Mapping[str, float | None],
    fits: Mapping[str, tuple[bool, str]],
    tpu: str,
) -> rich.table.Table:
    """One row per arm; with a slice, a column on whether the arm fits it."""
    table = rich.table.Table(box=None, pad_edge=False)
    columns = (
        "arm",
        "parameters",
        "steps",
        "tokens",
        "FLOPs",
        "FLOPs/token",
        "loss tokens",
        "time per run",
    )
    for column in (*columns, *([tpu] if tpu else [])):
        is_text = column in ("arm", tpu)
        table.add_column(column, justify="left" if is_text else "right", no_wrap=column != tpu)
    for arm, plan in planned.items():
        cells = [
            arm,
            f"{counted[arm].parameters:,}",
            f"{plan['steps']:,}",
            f"{plan['tokens']:,}",
            f"{plan['flops']:.4g}",
            f"{counted[arm].flops_per_token:,.0f}",
            f"{plan['loss_tokens']:,}",
            duration(seconds[arm]),
        ]
        table.add_row(*cells, *([fits[arm][1]] if tpu else []))
    return table


def _print_notes(
    experiment: Experiment,
    data: Mapping[str, Any],
    seconds: Mapping[str, float | None],
    slots: int,
) -> None:
    """Prints what is matched, the number of trials, and the expected time of all."""
    budget, tuning = experiment.budget, experiment.tuning
    groups = sorted(set(experiment.times.values()))
    multiples = "" if groups == [1.0] else f" × {', '.join(f'{times:g}' for times in groups)}"
    what = budgets.MATCHED[budget.matched]
    print(
        f"\nmatched: {budget.value:,.6g}{multiples} {what} per run, within {budget.tolerance:.2%};"
        f" data {data['source']}, {data['fingerprint']}"
    )
    number = len(experiment.runs) * (len(experiment.seeds) + len(tuning.factors))
    tuned = (
        f"{len(tuning.factors)} of {tuning.field} at {tuning.share:.0%} of its budget and "
        if tuning.factors
        else ""
    )
    seeds = f"{len(experiment.seeds)} seed" + "s" * (len(experiment.seeds) > 1)
    print(
        f"trials: {number} ({len(experiment.runs)} arms × ({tuned}{seeds})), {slots} side by side"
    )
    known = [time for time in seconds.values() if time is not None]
    if len(known) < len(seconds):
        print("expected: unknown (without --nomeasure a few steps of each arm are timed here)")
        return
    # Trials of an arm, in units of a main run.
    runs = len(experiment.seeds) + tuning.share * len(tuning.factors)
    print(
        f"expected: {duration(sum(known) * runs / slots)} of training; start-up, validation and"
        " tasks come on top"
    )


def _recorded(workdir: Path, arm: str, experiment: Experiment) -> float | None:
    """Seconds per step in a finished run of an arm, with compilation and validation."""
    for seed in experiment.seeds:
        path = workdir / "runs" / f"{arm}-seed{seed}" / "run.json"
        run = read_json(path, "the record of a run") if path.exists() else {}
        if run.get("status") == "done" and run.get("step"):
            return run["seconds"] / run["step"]
    return None


def _fits(config: Mapping[str, Any], tpu: str) -> tuple[bool, str]:
    """Whether an arm fits a slice, and a description of it.

    `tpu.aot` runs in a process of its own, since libtpu must not be loaded in this one.
    """
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "arm.py"
        file.write_text(
            "import json\n\nfrom ml_collections import ConfigDict\n\n\ndef get_config():\n"
            f"    return ConfigDict(json.loads({json.dumps(config)!r}))\n",
            encoding="utf-8",
        )
        arguments = ["-m", "tpu.aot", f"--config={file}", f"--tpu={tpu}", "--json=-"]
        root = Path(__file__).parents[2]  # of the repository: tpu/ is next to lm/
        paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        )
    try:
        result = json.loads(done.stdout)
    except ValueError:
        message = (done.stderr or done.stdout).strip().removeprefix("error: ")
        message = message or f"tpu.aot ended with {done.returncode}"
        if "libtpu" in message or "No module named 'tpu'" in message:
            raise UserError(f"--tpu={tpu}: {message}") from None
        return False, message.splitlines()[-1]
    if not result["fits"]:
        if not result.get("needs_gib"):
            return False, "does not fit"
        needs, has = result["needs_gib"], result["has_gib"]
        return False, f"does not fit: needs {needs:.1f} of {has:.1f} GiB"
    peak, usable = result["memory"]["peak"], result["usable_gib"]
    step = f"{result['step_seconds'] * 1e3:.3g} ms per step"
    return True, f"fits: {peak:.2f} of {usable:.2f} GiB per device, {step}"
