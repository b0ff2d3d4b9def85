"""The processes that compute trials side by side: how many, on which cores, and how they end."""

import concurrent.futures
import contextlib
import fcntl
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from lm.core.plugins import UserError
from lm.training import energy

# With transparent huge pages behind malloc a step on a CPU takes 0.77 of the time (experiments/LOG.md); glibc reads this at its start.
_TUNABLES = "glibc.malloc.hugetlb=1"
_MEMORY_PER_WORKER = 2 * 2**30
_PATIENCE = 60.0  # seconds that runs have for saving when the comparison is stopped
_cores: list[IO[str]] = []  # locks of this worker's cores; the kernel lets go of them when it ends


def number(wanted: int, trials: int) -> int:
    """How many trials side by side: as wanted, or one a core on a CPU, as far as memory goes; one where there is an accelerator."""
    if wanted:
        return int(wanted)
    if os.environ.get("JAX_PLATFORMS", "") != "cpu" and _accelerator():
        return 1
    return max(
        1, min(trials, len(os.sched_getaffinity(0)), _available_memory() // _MEMORY_PER_WORKER)
    )


@contextlib.contextmanager
def pool(workers: int) -> Iterator[concurrent.futures.Executor]:
    """Worker processes; SIGTERM and Ctrl-C make their runs save, then end this process.

    Raises:
      UserError: a worker was ended from outside.
    """
    os.environ.setdefault("GLIBC_TUNABLES", _TUNABLES)
    context = multiprocessing.get_context("spawn")
    share = len(os.sched_getaffinity(0)) // workers if workers > 1 else 0
    executor = concurrent.futures.ProcessPoolExecutor(
        workers, context, _start, (os.getpid(), share, workers)
    )

    def stop(number: int, frame: Any) -> None:
        print("stopping: the runs save; the same command continues", file=sys.stderr, flush=True)
        _end(executor)
        os._exit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with executor:
            try:
                yield executor
            except UserError:
                _end(executor)  # what runs need not be waited for
                raise
    except concurrent.futures.process.BrokenProcessPool as error:
        raise UserError(
            "a worker process was ended from outside (out of memory?); start the same command again, or set --config.workers=1"
        ) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(executor: concurrent.futures.ProcessPoolExecutor) -> None:
    """Makes the workers save and end; those that do not are killed."""
    processes = list((executor._processes or {}).values())
    executor.shutdown(wait=False, cancel_futures=True)
    deadline = time.monotonic() + _PATIENCE
    while any(process.is_alive() for process in processes) and time.monotonic() < deadline:
        for process in processes:
            process.terminate()  # again and again: a worker may just have begun another run
        time.sleep(0.5)
    for process in processes:
        process.kill()


def _start(parent: int, share: int, workers: int) -> None:
    """Prepares a worker process: cores of its own where several work side by side, and an end when the parent ends.

    Args:
      parent: process id of lm.compare. share: cores of each worker; 0: all that there are. workers: side by side.
    """
    import ctypes

    os.environ[energy.SIDE_BY_SIDE] = str(
        workers
    )  # a GPU's power is measured for all of them together
    if share:
        os.environ["NPROC"] = str(
            share
        )  # as many threads in XLA whether pinned or not, so that sums have one order
        _pin(share, Path(tempfile.gettempdir()) / f"lm-cores-{os.getuid()}")
    # Ctrl-C goes to every process of the terminal; the parent alone decides and sends SIGTERM, at which a run saves.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ctypes.CDLL(None).prctl(
            1, signal.SIGTERM
        )  # PR_SET_PDEATHSIG: a killed parent leaves no orphans (Linux)
    except (OSError, AttributeError):
        return
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def _pin(share: int, directory: Path) -> bool:
    """Keeps this process on `share` cores that no other worker on this machine has; on all where there are not so many left.

    Args:
      directory: of a lock for each core, shared by all of a user's processes here.
    """
    mine: dict[int, IO[str]] = {}
    with contextlib.suppress(OSError):
        directory.mkdir(exist_ok=True)
        for core in sorted(os.sched_getaffinity(0)):
            file: IO[str] = (directory / str(core)).open("w")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                continue
            mine[core] = file
            if len(mine) == share:
                os.sched_setaffinity(0, mine)
                _cores.extend(mine.values())
                return True
    for held in mine.values():
        held.close()
    return False


def _available_memory() -> int:
    """Bytes that programs can still get; file caches count as free, since they give way."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _accelerator() -> bool:
    """Whether this machine has a TPU or GPU; asked of the system, not of JAX, which would take it from the workers."""
    return any(
        Path(path).exists() for path in ("/dev/accel0", "/dev/vfio/0", "/dev/nvidia0", "/dev/kfd")
    )
