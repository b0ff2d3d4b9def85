"""Who computes what, where several processes and hosts share a directory: leases, kept in files, for each trial.

A claim is a chain of files `<name>.<generation>`, each made with O_EXCL, so only one process can make it. The newest one counts: it is held
until its owner lets go of it, or is dead. A dead owner's claim is taken over by making the next generation, which again only one process
can. So nothing is ever removed or renamed while others look, and there is no moment without an owner that two could think their own.

Death is certain on the same host: no process with that id and start time. Of other hosts only the heart can be heard: the file's
time changes every few seconds. It is compared with itself, by the observer's own clock, so clocks need not agree.
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
PATIENCE = 180.0  # seconds of silence after which another host's process counts as dead; file systems may show times a minute late


@functools.cache
def host() -> str:
    """This machine since it was started, and the space that its process ids are counted in; containers may share a name."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return "/".join(parts)


def started(pid: int) -> str | None:
    """When a process began, in the kernel's count, so that a reused id is told apart; None if there is none, or only its shell is left."""
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


def me() -> dict[str, Any]:
    """This process as an owner."""
    return {"host": host(), "pid": os.getpid(), "process_started": started(os.getpid())}


def shown(owner: dict[str, Any]) -> str:
    """An owner in few words."""
    return f"{str(owner.get('host', '?')).split('/')[0]}:{owner.get('pid', '?')}"


class Claims:
    """The claims of one directory.

    Args:
      directory: of the files; made when the first claim is taken. beat, patience: seconds, see above.
    """

    def __init__(self, directory: Path, beat: float = BEAT, patience: float = PATIENCE):
        self.directory, self.beat, self.patience = Path(directory), beat, patience
        self._heard: dict[
            Path, tuple[Any, float]
        ] = {}  # a lease → what its file last told, and when that was new, by this clock

    def owner(self, name: str) -> dict[str, Any] | None:
        """Who holds the claim now; None if anybody may take it."""
        generation = self._newest(name)
        return None if generation < 0 else self._holder(self._path(name, generation))

    def take(self, name: str) -> "Lease | None":
        """Takes a claim that nobody holds; None if somebody does.

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
            return None  # another was quicker
        except OSError as error:
            raise UserError(f"{self.directory} cannot be written: {error}") from error
        content = me() | {
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
        """Holds a claim while the body runs, and waits for it before; for short pieces of work."""
        while not (lease := self.take(name)):
            waiting()
            time.sleep(0.1)
        with lease:
            yield

    def _path(self, name: str, generation: int) -> Path:
        return self.directory / f"{name}.{generation}"

    def _newest(self, name: str) -> int:
        """The newest generation of a claim; -1 if it was never taken."""
        newest = -1
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for entry in os.scandir(self.directory):
                stem, _, number = entry.name.rpartition(".")
                if stem == name and number.isdigit():
                    newest = max(newest, int(number))
        return newest

    def _holder(self, path: Path) -> dict[str, Any] | None:
        """The living owner of a lease."""
        try:
            time_told = os.stat(path).st_mtime_ns
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            content = json.loads(text)
        except ValueError:
            content = {}  # being written just now, or never finished: then it falls silent
        if content.get("released"):
            return None
        if content.get("host") == host() and content.get(
            "process_started"
        ):  # where the system tells when a process began
            return content if started(int(content["pid"])) == content["process_started"] else None
        told = (time_told, text)
        before, since = self._heard.get(path, (None, 0.0))
        if before != told:
            self._heard[path] = (told, time.monotonic())
            return content or {"host": "?"}
        return None if time.monotonic() - since > self.patience else content or {"host": "?"}


class Lease:
    """A claim that this process holds, from `Claims.take`: a context manager that lets go of it.

    While it is held, a thread keeps its time fresh. Should it be lost all the same (this machine slept for longer than others were
    patient), `lost` is called: the work may be somebody else's now, and must not be written any more.
    """

    def __init__(self, claims: Claims, path: Path, successor: Path, content: dict[str, Any]):
        self.path, self.successor, self.content = path, successor, content
        self.lost: Callable[[], None] = lambda: None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(claims.beat,), daemon=True)
        self._thread.start()

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Lets go: anybody may take it."""
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
