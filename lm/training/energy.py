"""Measured energy of a run, where the machine tells: Intel and AMD processors' counters (RAPL), NVIDIA's counters or power draw.

What it covers is said in `source`. A processor's counter is of the whole package, memory apart; a run is charged the share of it that its
process took of all busy processor time, so that runs side by side share it. A GPU's draw is of the whole device: where workers run side by
side, each run is charged an equal part of it.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")
STAT = Path("/proc/stat")
SIDE_BY_SIDE = (
    "LM_RUNS_SIDE_BY_SIDE"  # set in worker processes: how many of them share this machine's devices
)


class Rapl:
    """Energy of processor packages from Linux's powercap counters, which wrap around.

    Args:
      root: of the counters. stat: the kernel's account of processor time. own: this process's processor seconds.
    """

    source = "RAPL, packages, by share of busy processor time"

    def __init__(
        self, root: Path = POWERCAP, stat: Path = STAT, own: Callable[[], float] = time.process_time
    ):
        self.stat, self.own = stat, own
        self.ranges: dict[Path, int] = {}
        self.last: dict[Path, int] = {}
        with contextlib.suppress(OSError, ValueError):
            # Packages are intel-rapl:0, :1 …; their parts, intel-rapl:0:0, are in them already.
            for zone in sorted(root.glob("*rapl:*")):
                if zone.name.count(":") == 1 and (zone / "name").read_text(
                    encoding="ascii"
                ).startswith("package"):
                    value = int((zone / "energy_uj").read_text(encoding="ascii"))
                    self.ranges[zone] = int(
                        (zone / "max_energy_range_uj").read_text(encoding="ascii")
                    )
                    self.last[zone] = value
        self.busy, self.mine = self._busy(), own()

    @property
    def there(self) -> bool:
        """Whether this machine has counters that may be read."""
        return bool(self.last)

    def joules(self, last: bool = False) -> float:
        """Since the last call, of this process. To be called more often than a counter wraps around (an hour at 70 W)."""
        total = 0
        for zone, before in self.last.items():
            with contextlib.suppress(OSError, ValueError):
                now = int((zone / "energy_uj").read_text(encoding="ascii"))
                total += now - before if now >= before else now + self.ranges[zone] - before
                self.last[zone] = now
        busy, mine = self._busy(), self.own()
        share = (mine - self.mine) / max(busy - self.busy, mine - self.mine, 1e-9)
        self.busy, self.mine = busy, mine
        return total / 1e6 * share

    def _busy(self) -> float:
        """Seconds that all processors were busy since the machine started."""
        try:
            fields = [
                int(field)
                for field in self.stat.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
            ]
        except (OSError, ValueError):
            return 0.0
        return (sum(fields) - fields[3] - fields[4]) / os.sysconf(
            "SC_CLK_TCK"
        )  # without idle and waiting for disks


class Nvidia:
    """Energy of all NVIDIA GPUs that this process may use, from their power draw, which is asked for once in `every` seconds.

    Args:
      ask: returns watts of each GPU. clock: seconds. sharing: worker processes on these GPUs, among which the draw is divided evenly.
    """

    def __init__(
        self,
        ask: Callable[[], Sequence[float]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        every: float = 10.0,
        sharing: int = 1,
    ):
        self.ask, self.clock, self.every, self.sharing = ask or _draw, clock, every, sharing
        self.source = "nvidia-smi, power draw of all GPUs" + (
            f", divided by {sharing} workers side by side" if sharing > 1 else ""
        )
        self.before = clock()
        self.watts = sum(self.ask()) if ask or shutil.which("nvidia-smi") else 0.0

    @property
    def there(self) -> bool:
        """Whether there is one that tells."""
        return self.watts > 0

    def joules(self, last: bool = False) -> float:
        """Since the last call: the mean of the power then and now, times the time between; 0 where that is too short to ask again, unless
        this is the `last` time."""
        now = self.clock()
        if now - self.before < self.every and not last:
            return 0.0
        watts = sum(self.ask())
        energy = (self.watts + watts) / 2 * (now - self.before)
        self.before, self.watts = now, watts
        return energy / self.sharing


def _draw() -> list[float]:
    """Watts of each GPU; none where they do not tell."""
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    command = [
        "nvidia-smi",
        "--query-gpu=power.draw",
        "--format=csv,noheader,nounits",
        *(["-i", wanted] if wanted else []),
    ]
    try:
        said = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout
        return [float(line) for line in said.split()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


def _sharing() -> int:
    """Worker processes on this machine's devices, this one among them."""
    said = os.environ.get(SIDE_BY_SIDE, "")
    return max(1, int(said)) if said.isdigit() else 1


class Meter:
    """Energy of a run so far. `before`: joules of earlier sessions. Without a source, `values` is empty."""

    def __init__(self, before: float = 0.0, sources: Sequence[Rapl | Nvidia] | None = None):
        found: Sequence[Rapl | Nvidia] = (
            (Rapl(), Nvidia(sharing=_sharing())) if sources is None else sources
        )
        self.sources = [each for each in found if each.there]
        self.total = before

    def values(self, last: bool = False) -> dict[str, Any]:
        """{"energy_joules", "energy_source"} up to now; the sources are read. `last`: for the last time."""
        if not self.sources:
            return {}
        self.total += sum(source.joules(last) for source in self.sources)
        return {
            "energy_joules": round(self.total, 3),
            "energy_source": "; ".join(source.source for source in self.sources),
        }
