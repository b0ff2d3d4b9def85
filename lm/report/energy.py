"""Energy and CO2e: device hours × power × PUE × the grid's factor. Power is as the config says, else as a run measured it, else assumed and
so named."""

import json
import math
from dataclasses import dataclass
from typing import Any

from lm.report import figures
from lm.report.page import Heading, Items, Paragraph, Part, Table
from lm.report.results import Results

# Watts of one device under load, by the beginning of its name; the longest that fits counts. NVIDIA: the board's limit as its data sheet
# has it, which training does not exceed. TPU: the chip's mean as measured by Jouppi et al. 2023 (TPU v4, ISCA, table 4).
WATTS = {
    "TPU v3": (110.0, "half of a chip's mean, Jouppi et al. 2023"), "TPU v4": (170.0, "mean of a chip, Jouppi et al. 2023"),
    "NVIDIA H200": (700.0, "NVIDIA's data sheet"), "NVIDIA H100": (700.0, "NVIDIA's data sheet, SXM"),
    "NVIDIA A100": (400.0, "NVIDIA's data sheet, SXM"), "NVIDIA L4": (72.0, "NVIDIA's data sheet"),
    "NVIDIA L40": (300.0, "NVIDIA's data sheet"), "Tesla V100": (300.0, "NVIDIA's data sheet, SXM2"),
    "Tesla T4": (70.0, "NVIDIA's data sheet"),
}  # fmt: skip
PER_CORE = 10.0  # watts of a CPU's core under load with its share of memory and board
UNKNOWN = 300.0  # watts of an accelerator that is not in the table
PUE = 1.1
GRID = 0.4  # kg CO2e a kWh
_CORES = "Core time: seconds of each run × the cores it had; comparisons that ran beside each other on one machine each count theirs."
_DEVICES = "Device time: seconds of each run × devices, divided by the runs that shared them."
_ABOUT_PUE = "what large data centres report (Google's environmental report of 2024: 1.10 over all of theirs in 2023)"
_ABOUT_GRID = (
    "between the USA's mean of 2022 (EPA eGRID: 0.37) and the world's of 2023 (Ember: 0.48)"
)


@dataclass(frozen=True, slots=True)
class Power:
    """`watts`: of all that one run uses. `why`: where the number is from. `assumed`: not said by the config,
    which counts more than what was measured. `parts`: devices, or cores of a CPU, that the run had for itself; a fraction of those that it
    shared with others."""

    watts: float
    why: str
    assumed: bool
    parts: float


def power(about: dict[str, Any], run: dict[str, Any] | None = None) -> Power:
    """The power that a run draws, as the config gives it or, where it was not measured, as assumed.

    Args:
      about: comparison.json. Runs side by side share its devices evenly. run: run.json, which knows the cores that the run had for itself.
    """
    here = (run or {}).get("machine") or {}
    machine, given = (
        here if here.get("device") else about.get("machine") or {},
        _number((about.get("energy") or {}).get("watts"), 0.0),
    )
    workers = max(1, int(_number(about.get("workers"), 1)))
    devices = max(1, int(_number(machine.get("devices"), 1)))
    name = str(machine.get("device") or "")
    is_cpu = name.lower() in ("", "cpu")
    own = (
        _number(here.get("cores"), 0.0)
        or max(1.0, _number((about.get("machine") or {}).get("cores"), 1.0)) / workers
    )
    parts = own if is_cpu else devices / workers
    shared = f", shared by {workers} runs side by side" if workers > 1 else ""
    if given > 0:
        how_many = f" × {devices} devices" if devices > 1 else ""
        return Power(
            given * devices / workers,
            f"{given:g} W a device, as config.energy.watts says{how_many}{shared}",
            False,
            parts,
        )
    if is_cpu:
        return Power(
            PER_CORE * own,
            f"assumed: {PER_CORE:g} W a core, {own:g} core{'' if own == 1 else 's'} a run",
            True,
            parts,
        )
    fitting = max(
        (known for known in WATTS if name.lower().startswith(known.lower())), key=len, default=""
    )
    watts, source = WATTS.get(
        fitting, (UNKNOWN, "a round number, since no figure for this device is known here")
    )
    return Power(
        watts * devices / workers,
        f"assumed: {watts:g} W a device ({source}), {devices} × {name}{shared}",
        True,
        parts,
    )


def section(results: Results) -> list[Part]:
    """Per arm and in all, tuning included; failed runs too, since they used power all the same."""
    comparison = results.comparison
    about, options = comparison.about, comparison.about.get("energy") or {}
    pue, grid = _number(options.get("pue"), PUE), _number(options.get("grid_kg_per_kwh"), GRID)
    is_cpu = str((about.get("machine") or {}).get("device") or "").lower() in ("", "cpu")
    rows, totals, sources = [], [0.0, 0.0, 0.0], dict[str, None]()
    for arm in comparison.arms:
        records = [run.record for run in comparison.runs if run.arm == arm] + _tuned(results, arm)
        used = [
            (seconds * (drawn := power(about, record)).parts, *_joules(record, seconds, drawn))
            for record in records
            if (seconds := _number(record.get("seconds"), 0.0)) > 0
        ]
        if not used:
            continue
        sources |= dict.fromkeys(source for _, _, source in used)
        times, joules = math.fsum(each[0] for each in used), math.fsum(each[1] for each in used)
        amounts = [times, joules, joules * pue / 3.6e6 * grid]
        totals = [total + amount for total, amount in zip(totals, amounts, strict=True)]
        rows.append([comparison.label(arm), str(len(used)), *_shown(amounts)])
    title = Heading("Energy and CO2e")
    if not rows:
        return [title, Paragraph("No run has a time yet.")]
    rows.append(["All", str(sum(int(row[1]) for row in rows)), *_shown(totals)])
    columns = [
        ("Arm", "l"),
        ("Runs", "r"),
        ("Core time" if is_cpu else "Device time", "r"),
        ("Energy of the devices", "r"),
        ("CO2e", "r"),
    ]
    caption = (
        "Training alone, its tuning included, as long as runs report: not scoring, the host, storage, or making the hardware. "
        f"{_CORES if is_cpu else _DEVICES} CO2e: "
        f"{figures.energy(totals[1])} × PUE {pue:g} × {grid:g} kg/kWh."
    )
    constants = [
        "Power: " + "; ".join(sources) + ".",
        f"PUE {pue:g}" + (f": {_ABOUT_PUE}." if pue == PUE else ", as the config says."),
        f"Grid {grid:g} kg CO2e a kWh"
        + (f": {_ABOUT_GRID}." if grid == GRID else ", as the config says."),
        "Another place has other numbers: set --config.energy.watts, --config.energy.pue and --config.energy.grid_kg_per_kwh.",
    ]
    return [title, Table(columns, rows, caption), Items(constants)]


def _joules(record: dict[str, Any], seconds: float, drawn: Power) -> tuple[float, str]:
    measured = _number(record.get("energy_joules"), 0.0)
    if measured > 0 and drawn.assumed:
        return measured, f"measured ({record.get('energy_source') or 'by the machine'})"
    return seconds * drawn.watts, drawn.why


def _tuned(results: Results, arm: str) -> list[dict[str, Any]]:
    """The records of an arm's tuning trials."""
    found = []
    for path in sorted((results.workdir / "tuning").glob("*/run.json")):
        if path.parent.name.rpartition("-")[0] == arm:
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                continue
            if isinstance(record, dict):
                found.append(record)
    return found


def _shown(amounts: list[float]) -> list[str]:
    seconds, joules, kilograms = amounts
    return [figures.duration(seconds), figures.energy(joules), figures.mass(kilograms)]


def _number(value: Any, default: float) -> float:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else default
