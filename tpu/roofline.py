"""How fast a step can be at most: the times that compute, memory and wires need, and what they allow.

The step is as long as the longest of its ceilings, as if all the others were hidden behind it:

    compute    the program's matrix products, recomputation included, at the chip's peak
    hbm        the bytes that its operations read from memory and write to it, at the memory's bandwidth
    schedule   the backend's estimate of cycles of all operations one after another, at the clock: what it thinks the first two really take
    ici        the bytes that a device sends in its slice, at the bandwidth of the links that each collective can use, one after another
    dcn        the bytes that a device sends to other slices, at its share of its host's network

Bandwidths and peaks are lm/parallel/chips.py's; they are what the vendor says, not measurements.
"""

from collections.abc import Mapping, Sequence

from lm.parallel.chips import Chip
from tpu.hlo import Collective

CEILINGS = ("compute", "hbm", "schedule", "ici", "dcn")


def ceilings(
    chip: Chip, flops: float, traffic: float, cycles: int, collectives: Sequence[Collective]
) -> dict[str, float]:
    """Seconds a step of each ceiling.

    Args:
      flops, traffic (bytes), cycles, collectives: of one device.
    """
    return {
        "compute": flops / chip.peak,
        "hbm": traffic / (chip.bandwidth * 1e12 / chip.devices),
        "schedule": cycles / chip.clock,
        "ici": sum(each.seconds for each in collectives if not each.dcn),
        "dcn": sum(each.seconds for each in collectives if each.dcn),
    }


def step(found: Mapping[str, float]) -> tuple[float, str]:
    """The longest ceiling: (seconds, name)."""
    name = max(found, key=lambda each: found[each])
    return found[name], name


def by_kind(collectives: Sequence[Collective]) -> list[dict]:
    """Collectives added up over kind, mesh axes and network, those that send most first: counts a step, MiB of buffers and MiB that a
    device sends."""
    rows: dict[tuple, dict] = {}
    for each in collectives:
        key = (each.kind, each.axes, each.dcn)
        row = rows.setdefault(
            key,
            {"kind": each.kind, "axes": list(each.axes), "network": "DCN" if each.dcn else "ICI", "count": 0, "buffer_mib": 0.0,
             "wire_mib": 0.0, "seconds": 0.0, "largest": "", "_most": -1.0},
        )  # fmt: skip
        row["count"] += each.count
        row["buffer_mib"] += each.count * each.bytes / 2**20
        row["wire_mib"] += each.count * each.wire / 2**20
        row["seconds"] += each.seconds
        if each.count * each.wire > row["_most"]:
            row["_most"], row["largest"] = each.count * each.wire, each.source
    return sorted(
        ({name: value for name, value in row.items() if name != "_most"} for row in rows.values()),
        key=lambda row: -row["wire_mib"],
    )
