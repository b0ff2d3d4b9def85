"""Roofline of a step: a lower bound of its time from compute, memory and network.

A step takes at least as long as the largest of five lower bounds, if all others overlap with it:

    compute    the program's matmuls, recomputation included, at the chip's peak
    hbm        bytes that operations read from memory and write to it, at the memory's bandwidth
    schedule   the backend's estimate of the cycles of all operations in sequence, at the clock: its
               own estimate of the first two
    ici        bytes that a device sends inside its slice, collectives in sequence, each at the
               bandwidth of the links that it can use
    dcn        bytes that a device sends to other slices, at its fraction of its host's network

Bandwidths and peaks are those of lm/parallel/chips.py: the vendor's numbers, not measurements.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lm.parallel.chips import Chip
from tpu.hlo import Collective

BOUNDS = ("compute", "hbm", "schedule", "ici", "dcn")


def time_bounds(
    chip: Chip, flops: float, traffic: float, cycles: int, collectives: Sequence[Collective]
) -> dict[str, float]:
    """Returns the lower bounds of a step's time, in seconds.

    Args:
      chip: the kind of chip.
      flops: FLOPs of matmuls on one device.
      traffic: bytes of HBM traffic on one device.
      cycles: cycles on one device, as the backend estimates them.
      collectives: collectives in which one device takes part.
    """
    return {
        "compute": flops / chip.peak,
        "hbm": traffic / (chip.bandwidth * 1e12 / chip.devices),
        "schedule": cycles / chip.clock,
        "ici": sum(collective.seconds for collective in collectives if not collective.dcn),
        "dcn": sum(collective.seconds for collective in collectives if collective.dcn),
    }


def step(seconds: Mapping[str, float]) -> tuple[float, str]:
    """Returns the largest of the time bounds: (seconds, name).

    Args:
      seconds: seconds of each bound, from `time_bounds`.
    """
    name = max(seconds, key=lambda bound: seconds[bound])
    return seconds[name], name


def by_kind(collectives: Sequence[Collective]) -> list[dict[str, Any]]:
    """Sums collectives by kind, mesh axes and network, in descending order of bytes sent.

    Returns:
      Rows with the count per step, MiB of buffers, MiB that a device sends, seconds, and the
      source of the largest collective.
    """
    rows: dict[tuple, dict] = {}
    for collective in collectives:
        key = (collective.kind, collective.axes, collective.dcn)
        row = rows.setdefault(
            key,
            {"kind": collective.kind, "axes": list(collective.axes),
             "network": "DCN" if collective.dcn else "ICI", "count": 0, "buffer_mib": 0.0,
             "wire_mib": 0.0, "seconds": 0.0, "largest": "", "_most": -1.0},
        )  # fmt: skip
        row["count"] += collective.count
        row["buffer_mib"] += collective.count * collective.bytes / 2**20
        row["wire_mib"] += collective.count * collective.wire / 2**20
        row["seconds"] += collective.seconds
        if collective.count * collective.wire > row["_most"]:
            row["_most"], row["largest"] = collective.count * collective.wire, collective.source
    return sorted(
        ({name: value for name, value in row.items() if name != "_most"} for row in rows.values()),
        key=lambda row: -row["wire_mib"],
    )
