"""Distributed locks in a shared directory: which process, on which host, works on which trial.

A lock is a chain of files `<name>.<generation>`. Each is created with O_EXCL, so only one process
can create it. The newest file counts: it is held until its owner releases it or dies. To take over
from a dead owner, a process creates the next generation, which again only one process can do. Files
are never removed or renamed while others read them, so two processes never own a lock at the same
time.

On the same host, death is certain: no process has that id and start time. Owners on other hosts are
detected by heartbeats: the file's modification time changes every few seconds. An observer compares
it with its own earlier readings and measures time on its own clock, so clocks need not agree.
"""

import contextlib
import functools
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lm.core.plain import write_json
from lm.core.plugins import UserError

BEAT = 10.0  # seconds between heartbeats
# Seconds without a heartbeat after which a process on another host counts as dead. Shared file
# systems may show modification times a minute late.
PATIENCE = 180.0


@functools.cache
def host() -> str:
    """Identifies this boot of this host and its PID namespace: containers may share a name."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return "/".join(parts)


def process_start(pid: int) -> str | None:
    """Returns when a process started, in clock ticks since boot; this detects reused ids.

    Returns None if there is no such process, or it is a zombie.
    """
    try:
        fields = (
            Path(f"/proc/{pid}/stat")
            .read_text(encoding="utf-8", errors="replace")
            .rsplit(")", 1)[1]
            .split()
        )
    except (OSError, IndexError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def this_process() -> dict[str, Any]:
    """Describes this process as an owner: {"host", "pid", "process_started"}."""
    return {"host": host(), "pid": os.getpid(), "process_started": process_start(os.getpid())}


def owner_name(owner: dict[str, Any]) -> str:
    """An owner as "hostname:pid"."""
    return f"{str(owner.get('host', '?')).split('/')[0]}:{owner.get('pid', '?')}"


class TrialLocks:
    """The locks of one directory: one for each trial, and for files that several processes write.

    Args:
      directory: directory of the lock files; created with the first lock.
      beat: seconds between heartbeats.
      patience: seconds without a heartbeat after which an owner on another host counts as dead.
    """

    def __init__(self, directory: Path, beat: float = BEAT, patience: float = PATIENCE) -> None:
        self.directory, self.beat, self.patience = Path(directory), beat, patience
        # File of a lease → its last reading, and when that was new, by the clock of this process.
        self._readings: dict[Path, tuple[Any, float]] = {}

    def owner(self, name: str) -> dict[str, Any] | None:
        """Returns the owner of a lock, in the form of `this_process`; None if it is free."""
        generation = self._newest(name)
        return None if generation < 0 else self._holder(self._path(name, generation))

    def take(self, name: str) -> "Lease | None":
        """Takes a lock if it is free.

        Args:
          name: name of the lock.

        Returns:
          The lease; None if another process holds the lock.

        Raises:
          UserError: the directory cannot be written.
        """
        generation = self._newest(name)
        if generation >= 0 and self._holder(self._path(name, generation)):
            return None
        path, token = self._path(name, generation + 1), uuid.uuid4().hex
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return None  # another process was faster
        except OSError as error:
            raise UserError(f"{self.directory} cannot be written: {error}") from error
        content = this_process() | {
            "token": token,
            "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        with os.fdopen(file, "w", encoding="utf-8") as opened:
            opened.write(json.dumps(content) + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        return Lease(self, path, self._path(name, generation + 2), content)

    @contextlib.contextmanager
    def holding(self, name: str, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Waits for a lock and holds it during the block; for short pieces of work.

        Args:
          name: name of the lock.
          waiting: function to call each time the lock is not free.
        """
        while not (lease := self.take(name)):
            waiting()
            time.sleep(0.1)
        with lease:
            yield

    def _path(self, name: str, generation: int) -> Path:
        return self.directory / f"{name}.{generation}"

    def _newest(self, name: str) -> int:
        """The newest generation of a lock; -1 if it was never taken."""
        newest = -1
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for entry in os.scandir(self.directory):
                stem, _, number = entry.name.rpartition(".")
                if stem == name and number.isdigit():
                    newest = max(newest, int(number))
        return newest

    def _holder(self, path: Path) -> dict[str, Any] | None:
        """The owner of a lease, if it is alive and has not released it."""
        try:
            modified = os.stat(path).st_mtime_ns
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            content = json.loads(text)
        except ValueError:
            content = {}  # being written right now, or never finished: then no heartbeat follows
        if content.get("released"):
            return None
        if content.get("host") == host() and content.get("process_started"):
            alive = process_start(int(content["pid"])) == content["process_started"]
            return content if alive else None
        reading = (modified, text)
        before, since = self._readings.get(path, (None, 0.0))
        if before != reading:
            self._readings[path] = (reading, time.monotonic())
            return content or {"host": "?"}
        return None if time.monotonic() - since > self.patience else content or {"host": "?"}


class Lease:
    """A lock that this process holds, from `TrialLocks.take`: a context manager that releases it.

    A thread sends heartbeats while the lock is held. The lock can still be lost, if this host was
    suspended for longer than others waited. Then `lost` is called: another process may be doing the
    work, so this one must not write results any more.

    Attributes:
      path: the file of the lease.
      successor: the file that a process creates to take over the lock.
      content: content of the lease's file.
      lost: function to call in the heartbeat thread when another process has taken over.
    """

    def __init__(
        self, locks: TrialLocks, path: Path, successor: Path, content: dict[str, Any]
    ) -> None:
        self.path, self.successor, self.content = path, successor, content
        self.lost: Callable[[], None] = lambda: None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(locks.beat,), daemon=True)
        self._thread.start()

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Releases the lock, so that any process may take it."""
        self._over.set()
        self._thread.join()
        write_json(self.path, self.content | {"released": True})

    def _beat(self, beat: float) -> None:
        while not self._over.wait(beat):
            if self.successor.exists():
                self.lost()
                return
            with contextlib.suppress(OSError):
                os.utime(self.path)
