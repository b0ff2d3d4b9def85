"""What a comparison would run, without running it."""

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

from lm.comparison import budgets, record, trial, workers
from lm.comparison.experiment import Experiment, parse, with_field
from lm.core.plain import read_json
from lm.core.plugins import UserError


def run(config: Mapping, workdir: str | None, measure: bool, tpu: str) -> int:
    """Prints the arms with their budgets, sizes and expected times.

    Args:
      config: of the experiment. workdir: whose finished runs tell the speed; None for none. measure: time a few steps where there are none.
      tpu: a slice to compile each arm for; "" for none.

    Returns:
      Exit status: 1 if an arm does not fit the slice.

    Raises:
      UserError: the experiment cannot work.
    """
    from lm.comparison import run as comparison_run

    experiment = parse(config)
    old = record.read(Path(workdir)) if workdir else {}
    record.check_same(Path(workdir or ""), old, experiment)
    comparison_run.prepare_corpora(experiment.runs)
    each = len(experiment.seeds) + len(experiment.tuning.factors)
    slots = workers.number(experiment.plain["workers"], each * len(experiment.runs))
    seconds: dict[str, float | None] = {
        arm: _remembered(Path(workdir), arm, experiment) if workdir else None
        for arm in experiment.runs
    }
    with workers.pool(slots) as pool:
        arms, about = comparison_run.check_arms(pool, experiment, old, anywhere=True)
        planned = budgets.plan(experiment.budget, arms, experiment.times)
        if measure:
            # With as many side by side as later.
            waiting = {
                arm: pool.submit(trial.seconds_per_step, of)
                for arm, of in experiment.runs.items()
                if seconds[arm] is None
            }
            for arm, future in waiting.items():
                try:
                    seconds[arm] = future.result()
                except UserError as error:  # a mesh for another machine
                    print(f"arm {arm!r} cannot be timed here: {error}", file=sys.stderr)
    runs = len(experiment.seeds) + experiment.tuning.share * len(
        experiment.tuning.factors
    )  # trials of an arm, in main runs
    took = {
        arm: None if seconds[arm] is None else seconds[arm] * planned[arm]["steps"]
        for arm in planned
    }  # type: ignore[operator]
    fits = (
        {
            arm: _fits(with_field(of, "training.steps", planned[arm]["steps"]), tpu)
            for arm, of in experiment.runs.items()
        }
        if tpu
        else {}
    )
    table = rich.table.Table(box=None, pad_edge=False)
    columns = (
        "arm",
        "parameters",
        "steps",
        "tokens",
        "FLOPs",
        "FLOPs/token",
        "loss tokens",
        "a run",
    )
    for column in (*columns, *([tpu] if tpu else [])):
        table.add_column(
            column, justify="left" if column in ("arm", tpu) else "right", no_wrap=column != tpu
        )
    for arm, plan in planned.items():
        cells = [
            arm, f"{arms[arm].parameters:,}", f"{plan['steps']:,}", f"{plan['tokens']:,}", f"{plan['flops']:.4g}",
            f"{arms[arm].flops_per_token:,.0f}", f"{plan['loss_tokens']:,}", _duration(took[arm]),
        ]  # fmt: skip
        table.add_row(*cells, *([fits[arm][1]] if tpu else []))
    # Wide enough for the table, since a file or pipe has no width.
    console = rich.console.Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    budget, tuning = experiment.budget, experiment.tuning
    groups = sorted(set(experiment.times.values()))
    multiples = "" if groups == [1.0] else f" × {', '.join(f'{times:g}' for times in groups)}"
    matched = f"{budget.value:,.6g}{multiples} {budgets.MATCHED[budget.matched]} a run, within {budget.tolerance:.2%}"
    tries = (
        f"{len(tuning.factors)} of {tuning.field} at {tuning.share:.0%} of its budget and "
        if tuning.factors
        else ""
    )
    print(f"\nmatched: {matched}; data {about['data']['source']}, {about['data']['fingerprint']}")
    seeds = f"{len(experiment.seeds)} seed" + "s" * (len(experiment.seeds) > 1)
    print(
        f"trials: {len(planned) * each} ({len(planned)} arms × ({tries}{seeds})), {slots} side by side"
    )
    known = [time for time in took.values() if time is not None]
    if len(known) == len(took):
        print(
            f"expected: {_duration(sum(known) * runs / slots)} of training; start-up, validation and tasks come on top"
        )
    else:
        print("expected: not known (without --nomeasure a few steps of each arm are timed here)")
    return 0 if all(fit for fit, _ in fits.values()) else 1


def _remembered(workdir: Path, arm: str, experiment: Experiment) -> float | None:
    """Seconds a step in a finished run of an arm, compilation and validation included."""
    for seed in experiment.seeds:
        path = workdir / "runs" / f"{arm}-seed{seed}" / "run.json"
        found = read_json(path, "the record of a run") if path.exists() else {}
        if found.get("status") == "done" and found.get("step"):
            return found["seconds"] / found["step"]
    return None


def _fits(config: Mapping[str, Any], tpu: str) -> tuple[bool, str]:
    """Whether an arm fits a slice, and in words, from `tpu.aot` in a process of its own: libtpu is not for this one."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "arm.py"
        head = "import json\n\nfrom ml_collections import ConfigDict\n\n\ndef get_config():\n"
        file.write_text(
            f"{head}    return ConfigDict(json.loads({json.dumps(config)!r}))\n", encoding="utf-8"
        )
        arguments = ["-m", "tpu.aot", f"--config={file}", f"--tpu={tpu}", "--json=-"]
        place = Path(__file__).parents[2]  # tpu/ lies beside lm/
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(
                [str(place), *filter(None, [os.environ.get("PYTHONPATH")])]
            )
        }
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, env=environment
        )
    try:
        found = json.loads(done.stdout)
    except ValueError:
        said = (done.stderr or done.stdout).strip().removeprefix(
            "error: "
        ) or f"tpu.aot ended with {done.returncode}"
        if "libtpu" in said or "No module named 'tpu'" in said:
            raise UserError(f"--tpu={tpu}: {said}") from None
        return False, said.splitlines()[-1]
    if not found["fits"]:
        return (
            False,
            f"does not fit: needs {found['needs_gib']:.1f} of {found['has_gib']:.1f} GiB"
            if found.get("needs_gib")
            else "does not fit",
        )
    return (
        True,
        f"fits: {found['memory']['peak']:.2f} of {found['usable_gib']:.2f} GiB a device, {found['step_seconds'] * 1e3:.3g} ms a step",
    )


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
