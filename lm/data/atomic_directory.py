"""Directories that are either complete or absent, even if processes are killed or race.

The cache consists of such directories. A new directory is filled under a temporary name. `commit`
records the sizes and checksums of its files; then the directory gets its final name.
"""

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lm.core.plugins import UserError

META = "meta.json"
_NO_ROOM = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "files here may not grow further",
}
# `read` checks all bytes of a directory up to this size, which takes about a quarter of a second.
_FULL_CHECK = 256 * 2**20
# In a larger directory, `read` checks this many blocks of this many bytes of each file.
_BLOCKS, _BLOCK = 32, 2**20


@contextlib.contextmanager
def create(directory: Path) -> Iterator[Path | None]:
    """Creates a directory that appears under its final name when the `with` block ends.

    Waits for another process that creates the same directory, and removes the remains of killed
    processes.
    If the block raises, nothing is kept.

    Args:
      directory: final path of the directory; parents are created.

    Yields:
      A temporary directory to fill and `commit`, or None if `directory` exists already.

    Raises:
      UserError: the disk is full, or `directory` cannot be written to.
    """
    if directory.is_dir():
        yield None
        return
    part = directory.with_name(f"{directory.name}.{socket.gethostname()}.{os.getpid()}.part")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with _lock(directory) as alone:
            if directory.is_dir():
                yield None
                return
            # With the lock held, all of these were left by dead processes. Other hosts may not see
            # the lock.
            if alone:
                for left in directory.parent.glob(
                    f"{glob.escape(directory.name)}.{glob.escape(socket.gethostname())}.*.part"
                ):
                    shutil.rmtree(left)
            part.mkdir()
            try:
                yield part
                _rename(part, directory)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        if error.errno in _NO_ROOM:
            free = shutil.disk_usage(directory.parent).free
            raise UserError(
                f"{_NO_ROOM[error.errno]}: {directory} could not be written, {free / 1e6:,.0f} MB"
                " are free; nothing was kept. Free some space, or name a place on another disk by"
                " data.cache or the environment variable LM_CACHE"
            ) from error
        if isinstance(error, PermissionError | FileExistsError | NotADirectoryError) and str(
            directory.parent
        ) in str(error.filename):
            raise UserError(
                f"{error.filename} cannot be written ({error.strerror}); name another place by"
                " data.cache or LM_CACHE"
            ) from error
        raise


@contextlib.contextmanager
def _lock(directory: Path) -> Iterator[bool]:
    """Yields whether this process holds the lock; locks of dead processes are released."""
    with open(directory.with_name(f".{directory.name}.lock"), "w") as handle:
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"waiting for another process, which is writing {directory}", file=sys.stderr)
                fcntl.flock(handle, fcntl.LOCK_EX)
            alone = True
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
            # A file system without locks: the work may be done twice, and the renaming decides.
            alone = False
        yield alone


def _rename(part: Path, directory: Path) -> None:
    if not (part / META).is_file():
        raise RuntimeError(f"{part} was not committed")
    try:
        part.rename(directory)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        # Another host was faster. Its directory has the same content.


def commit(directory: Path, meta: dict[str, Any]) -> None:
    """Writes metadata into a filled directory, with the sizes and checksums of its files.

    Args:
      directory: the temporary directory that `create` yielded.
      meta: JSON-serializable metadata, which `read` returns.
    """
    files = {
        path.name: {
            "size": path.stat().st_size,
            "digest": _digest(path),
            "sample": _sample_digest(path),
        }
        for path in sorted(directory.iterdir())
    }
    meta = meta | {"files": files}
    (directory / META).write_text(
        json.dumps(meta | {"fingerprint": _fingerprint(meta)}, ensure_ascii=False, indent=1),
        encoding="utf-8",
    )


def read(directory: Path, check: bool = True, full: bool = False) -> dict[str, Any]:
    """Reads the metadata of a committed directory, and checks its files.

    Args:
      directory: a directory that `create` and `commit` made.
      check: whether to compare checksums: of all bytes in directories of up to 256 MB, and of
        evenly spaced blocks of each file in larger directories. Sizes are always compared.
      full: whether to compare checksums of all bytes in larger directories too.

    Returns:
      The metadata with an additional "fingerprint", a hash of all the metadata.

    Raises:
      UserError: a file is missing or damaged, or its size differs from the recorded one; the
        message names the file and the directory to delete.
    """
    if not directory.is_dir():
        raise UserError(f"{directory} does not exist")
    try:
        meta = json.loads((directory / META).read_text(encoding="utf-8"))
        fingerprint = meta.pop("fingerprint")
        files = {directory / name: entry for name, entry in meta["files"].items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise _damaged(directory, META, "cannot be read") from error
    if fingerprint != _fingerprint(meta):
        raise _damaged(directory, META, "does not match its checksum")
    for path, entry in files.items():
        if not path.is_file():
            raise _damaged(directory, path.name, "is missing")
        if path.stat().st_size != entry["size"]:
            raise _damaged(
                directory, path.name, f"has {path.stat().st_size:,} bytes, not {entry['size']:,}"
            )
    full |= sum(entry["size"] for entry in files.values()) <= _FULL_CHECK
    for path, entry in files.items():
        if (check or full) and (
            _digest(path) != entry["digest"] if full else _sample_digest(path) != entry["sample"]
        ):
            raise _damaged(directory, path.name, "does not match its checksum")
    return meta | {"fingerprint": fingerprint}


def _damaged(directory: Path, name: str, how: str) -> UserError:
    return UserError(
        f"{directory} is damaged: {name} {how}. Delete that directory; it is then built again"
    )


def _fingerprint(meta: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(meta, sort_keys=True).encode(), digest_size=16).hexdigest()


def _new() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=16)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, _new).hexdigest()


def _sample_digest(path: Path) -> str:
    """A checksum of evenly spaced blocks of a file, the first and the last among them."""
    digest = _new()
    last = max(0, path.stat().st_size - _BLOCK)
    with open(path, "rb") as file:
        for offset in sorted({last * i // (_BLOCKS - 1) for i in range(_BLOCKS)}):
            file.seek(offset)
            digest.update(file.read(_BLOCK))
    return digest.hexdigest()
