"""The pool of worker processes: how many run side by side, on which cores, and how they stop."""

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

# With transparent huge pages in malloc, a step on a CPU takes 0.77 of the time
# (experiments/LOG.md). glibc reads this variable when a process starts.
_TUNABLES = "glibc.malloc.hugetlb=1"
_MEMORY_PER_WORKER = 2 * 2**30  # bytes
_PATIENCE = 60.0  # seconds that runs have to save when the comparison is stopped
_core_locks: list[IO[str]] = []  # of this worker's cores; the kernel releases them when it exits


def number(wanted: int, trials: int) -> int:
    """Returns the number of trials to run side by side.

    Args:
      wanted: requested number of workers; 0 for one worker with an accelerator, otherwise one per
        core as far as memory allows.
      trials: total number of trials.
    """
    if wanted:
        return int(wanted)
    if os.environ.get("JAX_PLATFORMS", "") != "cpu" and _accelerator():
        return 1
    return max(
        1, min(trials, len(os.sched_getaffinity(0)), _available_memory() // _MEMORY_PER_WORKER)
    )


@contextlib.contextmanager
def pool(workers: int) -> Iterator[concurrent.futures.Executor]:
    """Context manager that starts and stops the worker processes.

    Inside it, SIGTERM and Ctrl-C make all runs save a checkpoint; then this process exits with
    128 + signal number.

    Args:
      workers: number of processes.

    Raises:
      UserError: a worker was killed from outside.
    """
    os.environ.setdefault("GLIBC_TUNABLES", _TUNABLES)
    context = multiprocessing.get_context("spawn")
    cores = len(os.sched_getaffinity(0)) // workers if workers > 1 else 0
    executor = concurrent.futures.ProcessPoolExecutor(
        workers, context, _start, (os.getpid(), cores, workers)
    )

    def stop(number: int, frame: Any) -> None:
        print("stopping: saving all runs; the same command resumes", file=sys.stderr, flush=True)
        _end(executor)
        os._exit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with executor:
            try:
                yield executor
            except UserError:
                _end(executor)  # without waiting for running trials to complete
                raise
    except concurrent.futures.process.BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed (out of memory?); start the same command again, or set"
            " --config.workers=1"
        ) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(executor: concurrent.futures.ProcessPoolExecutor) -> None:
    """Makes the workers save and exit; kills those that do not in time."""
    processes = list((executor._processes or {}).values())
    executor.shutdown(wait=False, cancel_futures=True)
    deadline = time.monotonic() + _PATIENCE
    while any(process.is_alive() for process in processes) and time.monotonic() < deadline:
        for process in processes:
            process.terminate()  # repeatedly: a worker may have just started another run
        time.sleep(0.5)
    for process in processes:
        process.kill()


def _start(parent: int, cores: int, workers: int) -> None:
    """Initializes a worker process: pins it to cores of its own, and makes it exit with its parent.

    Args:
      parent: process id of the main process.
      cores: number of cores of each worker; 0 for all cores, without pinning.
      workers: number of workers.
    """
    import ctypes

    # A GPU's power is measured for all workers together.
    os.environ[energy.SIDE_BY_SIDE] = str(workers)
    if cores:
        # XLA uses as many threads whether the worker is pinned or not, so that the order of sums is
        # the same.
        os.environ["NPROC"] = str(cores)
        _pin(cores, Path(tempfile.gettempdir()) / f"lm-cores-{os.getuid()}")
    # Ctrl-C reaches all processes of the terminal. Only the parent handles it: it sends SIGTERM, at
    # which a run saves.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        # PR_SET_PDEATHSIG (Linux): workers exit even if the parent is killed.
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    except (OSError, AttributeError):
        return
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def _pin(count: int, directory: Path) -> bool:
    """Pins this process to cores that no other worker on this host has.

    Args:
      count: number of cores.
      directory: directory of one lock file per core, shared by all processes of a user on this
        host.

    Returns:
      Whether enough cores were free; if not, the process is not pinned.
    """
    locked: dict[int, IO[str]] = {}
    with contextlib.suppress(OSError):
        directory.mkdir(exist_ok=True)
        for core in sorted(os.sched_getaffinity(0)):
            file: IO[str] = (directory / str(core)).open("w")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                continue
            locked[core] = file
            if len(locked) == count:
                os.sched_setaffinity(0, locked)
                _core_locks.extend(locked.values())
                return True
    for file in locked.values():
        file.close()
    return False


def _available_memory() -> int:
    """Bytes that programs can allocate; the page cache counts as free."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _accelerator() -> bool:
    """Whether this host has a TPU or GPU, without JAX, which would take it from the workers."""
    return any(
        Path(path).exists() for path in ("/dev/accel0", "/dev/vfio/0", "/dev/nvidia0", "/dev/kfd")
    )
