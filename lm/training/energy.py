"""Measured energy of a run: Intel and AMD processor counters (RAPL), NVIDIA's power draw.

A processor's counter covers the whole package, without memory. A run is charged in proportion to
its process's fraction of all busy processor time, so that parallel runs share the energy. A GPU's
power draw covers the whole device. If workers run in parallel, each is charged an equal part.
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
# Set in worker processes: the number of them that share this machine's devices.
SIDE_BY_SIDE = "LM_RUNS_SIDE_BY_SIDE"


class Rapl:
    """Energy of processor packages from Linux's powercap counters, which wrap around.

    Attributes:
      source: description of the measured quantity, for run.json.
    """

    source = "RAPL, packages, by share of busy processor time"

    def __init__(
        self, root: Path = POWERCAP, stat: Path = STAT, own: Callable[[], float] = time.process_time
    ):
        """Reads the counters for the first time.

        Args:
          root: directory of the counters.
          stat: file with the kernel's account of processor time.
          own: function that returns the processor time of this process, in seconds.
        """
        self.stat, self.own = stat, own
        self.ranges: dict[Path, int] = {}
        self.last: dict[Path, int] = {}
        with contextlib.suppress(OSError, ValueError):
            # Packages are intel-rapl:0, :1 …, and include their parts, intel-rapl:0:0.
            for zone in sorted(root.glob("*rapl:*")):
                if zone.name.count(":") == 1 and (zone / "name").read_text(
                    encoding="ascii"
                ).startswith("package"):
                    value = int((zone / "energy_uj").read_text(encoding="ascii"))
                    self.ranges[zone] = int(
                        (zone / "max_energy_range_uj").read_text(encoding="ascii")
                    )
                    self.last[zone] = value
        self.busy, self.used = self._busy(), own()

    @property
    def available(self) -> bool:
        """Whether this machine has counters that this process may read."""
        return bool(self.last)

    def joules(self, last: bool = False) -> float:
        """Returns the energy of this process since the last call, in joules.

        Call it more often than a counter wraps around (an hour at 70 W).

        Args:
          last: unused; it exists because `Nvidia.joules` takes it.
        """
        total = 0
        for zone, before in self.last.items():
            with contextlib.suppress(OSError, ValueError):
                now = int((zone / "energy_uj").read_text(encoding="ascii"))
                total += now - before if now >= before else now + self.ranges[zone] - before
                self.last[zone] = now
        busy, used = self._busy(), self.own()
        fraction = (used - self.used) / max(busy - self.busy, used - self.used, 1e-9)
        self.busy, self.used = busy, used
        return total / 1e6 * fraction

    def _busy(self) -> float:
        """Seconds that all processors were busy since boot."""
        try:
            fields = [
                int(field)
                for field in self.stat.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
            ]
        except (OSError, ValueError):
            return 0.0
        idle, waiting_for_disks = fields[3:5]
        return (sum(fields) - idle - waiting_for_disks) / os.sysconf("SC_CLK_TCK")


class Nvidia:
    """Energy of all NVIDIA GPUs that this process may use, from samples of their power draw.

    Attributes:
      source: description of the measured quantity, for run.json.
    """

    def __init__(
        self,
        read: Callable[[], Sequence[float]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        every: float = 10.0,
        sharing: int = 1,
    ):
        """Reads the power draw for the first time.

        Args:
          read: function that returns the power draw of each GPU in watts; None calls nvidia-smi.
          clock: function that returns the time in seconds.
          every: seconds between samples.
          sharing: number of worker processes on these GPUs, which share the energy evenly.
        """
        self.read, self.clock, self.every, self.sharing = read or _draw, clock, every, sharing
        self.source = "nvidia-smi, power draw of all GPUs" + (
            f", divided by {sharing} workers side by side" if sharing > 1 else ""
        )
        self.before = clock()
        self.watts = sum(self.read()) if read or shutil.which("nvidia-smi") else 0.0

    @property
    def available(self) -> bool:
        """Whether a GPU reports its power draw."""
        return self.watts > 0

    def joules(self, last: bool = False) -> float:
        """Returns the energy since the last call, in joules.

        It is the mean of the power draws at both calls times the time between the calls.

        Args:
          last: whether to sample even if the last sample was less than `every` seconds ago;
            if False, such a call returns 0.
        """
        now = self.clock()
        if now - self.before < self.every and not last:
            return 0.0
        watts = sum(self.read())
        energy = (self.watts + watts) / 2 * (now - self.before)
        self.before, self.watts = now, watts
        return energy / self.sharing


def _draw() -> list[float]:
    """Watts of each GPU; empty if they are not reported."""
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    command = [
        "nvidia-smi",
        "--query-gpu=power.draw",
        "--format=csv,noheader,nounits",
        *(["-i", wanted] if wanted else []),
    ]
    try:
        output = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout
        return [float(line) for line in output.split()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


def _sharing() -> int:
    """Returns the number of worker processes that share the machine's devices, with this one."""
    workers = os.environ.get(SIDE_BY_SIDE, "")
    return max(1, int(workers)) if workers.isdigit() else 1


class EnergyMeter:
    """Measures the energy of a run, in joules.

    Attributes:
      total: energy of the run in joules, earlier sessions included.
    """

    def __init__(self, before: float = 0.0, sources: Sequence[Rapl | Nvidia] | None = None):
        """Opens the sources of this machine.

        Args:
          before: energy of earlier sessions, in joules.
          sources: energy sources to read; None takes all kinds.
        """
        if sources is None:
            sources = (Rapl(), Nvidia(sharing=_sharing()))
        self.sources = [source for source in sources if source.available]
        self.total = before

    def values(self, last: bool = False) -> dict[str, Any]:
        """Returns {"energy_joules", "energy_source"} from the sources; empty without a source.

        Args:
          last: whether this is the last call of the session.
        """
        if not self.sources:
            return {}
        self.total += sum(source.joules(last) for source in self.sources)
        return {
            "energy_joules": round(self.total, 3),
            "energy_source": "; ".join(source.source for source in self.sources),
        }
