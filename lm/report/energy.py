"""Energy and CO2e: device hours × power × PUE × carbon intensity of the grid.

The power is taken from the config, or else from the run's measurement. Without either, it is
assumed, and the report says so.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

from lm.report import number_format
from lm.report.page import Heading, Items, Paragraph, Part, Table
from lm.report.results import Results

# Watts of one device under load, by prefix of its name; the longest match counts. NVIDIA: the power
# limit of the board from its data sheet, which training does not exceed. TPU: the mean of the chip
# as measured by Jouppi et al. 2023 (TPU v4, ISCA, table 4).
WATTS = {
    "TPU v3": (110.0, "half of a chip's mean, Jouppi et al. 2023"),
    "TPU v4": (170.0, "mean of a chip, Jouppi et al. 2023"),
    "NVIDIA H200": (700.0, "NVIDIA's data sheet"),
    "NVIDIA H100": (700.0, "NVIDIA's data sheet, SXM"),
    "NVIDIA A100": (400.0, "NVIDIA's data sheet, SXM"),
    "NVIDIA L4": (72.0, "NVIDIA's data sheet"),
    "NVIDIA L40": (300.0, "NVIDIA's data sheet"),
    "Tesla V100": (300.0, "NVIDIA's data sheet, SXM2"),
    "Tesla T4": (70.0, "NVIDIA's data sheet"),
}
PER_CORE = 10.0  # watts of a CPU core under load, with a proportional part of memory and board
UNKNOWN = 300.0  # watts of an accelerator that is not in the table
PUE = 1.1
GRID = 0.4  # kg CO2e per kWh
_CORES = (
    "Core time: seconds of each run × its number of cores; comparisons that ran concurrently on"
    " one machine each count their own."
)
_DEVICES = "Device time: seconds of each run × devices, divided by the number of runs sharing them."
_PUE_SOURCE = (
    "as reported by large data centers (Google's environmental report of 2024: 1.10 over all its"
    " data centers in 2023)"
)
_GRID_SOURCE = (
    "between the mean of the USA in 2022 (EPA eGRID: 0.37) and of the world in 2023 (Ember: 0.48)"
)


@dataclass(frozen=True, slots=True)
class Power:
    """The power that one run draws.

    Attributes:
      watts: power, in watts, of all devices or cores of the run.
      source: origin of `watts`, as text.
      assumed: whether `watts` is not from the config, so that a measured energy has precedence.
      parts: number of devices, or CPU cores, of the run; a fraction if other runs share them.
    """

    watts: float
    source: str
    assumed: bool
    parts: float


def power(comparison: dict[str, Any], run: dict[str, Any] | None = None) -> Power:
    """Returns the power that a run draws, from the config or assumed.

    Args:
      comparison: content of comparison.json. Concurrent runs share its devices evenly.
      run: content of run.json, which has the number of cores of the run; None if unknown.
    """
    own_machine = (run or {}).get("machine") or {}
    machine = own_machine if own_machine.get("device") else comparison.get("machine") or {}
    given = _number((comparison.get("energy") or {}).get("watts"), 0.0)
    workers = max(1, int(_number(comparison.get("workers"), 1)))
    devices = max(1, int(_number(machine.get("devices"), 1)))
    name = str(machine.get("device") or "")
    is_cpu = name.lower() in ("", "cpu")
    cores = (
        _number(own_machine.get("cores"), 0.0)
        or max(1.0, _number((comparison.get("machine") or {}).get("cores"), 1.0)) / workers
    )
    parts = cores if is_cpu else devices / workers
    shared = f", shared by {workers} concurrent runs" if workers > 1 else ""
    if given > 0:
        how_many = f" × {devices} devices" if devices > 1 else ""
        return Power(
            given * devices / workers,
            f"{given:g} W per device, from config.energy.watts{how_many}{shared}",
            False,
            parts,
        )
    if is_cpu:
        return Power(
            PER_CORE * cores,
            f"assumed: {PER_CORE:g} W per core, {cores:g} core{'' if cores == 1 else 's'} per run",
            True,
            parts,
        )
    match = max(
        (prefix for prefix in WATTS if name.lower().startswith(prefix.lower())), key=len, default=""
    )
    watts, source = WATTS.get(match, (UNKNOWN, "a round number, since this device is not listed"))
    return Power(
        watts * devices / workers,
        f"assumed: {watts:g} W per device ({source}), {devices} × {name}{shared}",
        True,
        parts,
    )


def section(results: Results) -> list[Part]:
    """Returns the section, by arm and in total, including tuning and failed runs."""
    comparison = results.comparison
    record, options = comparison.record, comparison.record.get("energy") or {}
    pue, grid = _number(options.get("pue"), PUE), _number(options.get("grid_kg_per_kwh"), GRID)
    is_cpu = str((record.get("machine") or {}).get("device") or "").lower() in ("", "cpu")
    rows, totals, sources = [], [0.0, 0.0, 0.0], dict[str, None]()
    for arm in comparison.arms:
        runs = [run.record for run in comparison.runs if run.arm == arm] + _trials(results, arm)
        used = [
            (seconds * (drawn := power(record, run)).parts, *_joules(run, seconds, drawn))
            for run in runs
            if (seconds := _number(run.get("seconds"), 0.0)) > 0
        ]
        if not used:
            continue
        sources |= dict.fromkeys(source for _, _, source in used)
        times, joules = math.fsum(item[0] for item in used), math.fsum(item[1] for item in used)
        amounts = [times, joules, joules * pue / 3.6e6 * grid]
        totals = [total + amount for total, amount in zip(totals, amounts, strict=True)]
        rows.append([comparison.label(arm), str(len(used)), *_cells(amounts)])
    title = Heading("Energy and CO2e")
    if not rows:
        return [title, Paragraph("No run has recorded its time yet.")]
    rows.append(["All", str(sum(int(row[1]) for row in rows)), *_cells(totals)])
    columns = [
        ("Arm", "l"),
        ("Runs", "r"),
        ("Core time" if is_cpu else "Device time", "r"),
        ("Device energy", "r"),
        ("CO2e", "r"),
    ]
    caption = (
        "Training and tuning only, for the recorded times; without evaluation, the host, storage"
        " and the production of hardware."
        f" {_CORES if is_cpu else _DEVICES} CO2e: "
        f"{number_format.energy(totals[1])} × PUE {pue:g} × {grid:g} kg/kWh."
    )
    constants = [
        "Power: " + "; ".join(sources) + ".",
        f"PUE {pue:g}" + (f": {_PUE_SOURCE}." if pue == PUE else ", from the config."),
        f"Grid {grid:g} kg CO2e per kWh"
        + (f": {_GRID_SOURCE}." if grid == GRID else ", from the config."),
        "These numbers depend on the location: set --config.energy.watts, --config.energy.pue and"
        " --config.energy.grid_kg_per_kwh.",
    ]
    return [title, Table(columns, rows, caption), Items(constants)]


def _joules(record: dict[str, Any], seconds: float, drawn: Power) -> tuple[float, str]:
    measured = _number(record.get("energy_joules"), 0.0)
    if measured > 0 and drawn.assumed:
        return measured, f"measured ({record.get('energy_source') or 'by the machine'})"
    return seconds * drawn.watts, drawn.source


def _trials(results: Results, arm: str) -> list[dict[str, Any]]:
    """The records of an arm's tuning trials."""
    records = []
    for path in sorted((results.workdir / "tuning").glob("*/run.json")):
        if path.parent.name.rpartition("-")[0] == arm:
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                continue
            if isinstance(record, dict):
                records.append(record)
    return records


def _cells(amounts: list[float]) -> list[str]:
    seconds, joules, kilograms = amounts
    return [
        number_format.duration(seconds),
        number_format.energy(joules),
        number_format.mass(kilograms),
    ]


def _number(value: Any, default: float) -> float:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else default
