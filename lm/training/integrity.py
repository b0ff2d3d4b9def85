"""Checksums of a checkpoint's files, and what they say is wrong with it.

`seal` writes `checksums.json` into the folder of a step: size and SHA-256 of every file of its items (the arrays, the description of
them, counters, validation loss). It is written while the folder still has its temporary name, so that the rename which makes a checkpoint
also says that it is sealed: no moment lies between the two at which a process could be killed. A checkpoint under its final name that has
no checksums was therefore not left by a crash. It was written before there were checksums, or has lost the file; it may be used, with a
note. What has checksums and differs from them may not.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

NAME = "checksums.json"
_THREADS = 8  # files are read side by side; hashing leaves Python's lock


class Damaged(ValueError):
    """A checkpoint's files are not those that were written; the message says which one, and how."""


def seal(folder: Path) -> None:
    """Writes the checksums of all files in the subfolders of `folder`, to disk before it returns.

    Files beside the subfolders are left out: orbax writes them later, and nothing is restored from them.
    """
    names = sorted(
        str(path.relative_to(folder)) for path in folder.glob("*/**/*") if path.is_file()
    )
    with ThreadPoolExecutor(_THREADS) as threads:
        files = dict(
            zip(names, threads.map(lambda name: _measure(folder / name), names), strict=True)
        )
    with open(folder / NAME, "w", encoding="utf-8") as file:
        json.dump({"files": files, "digest": _own_digest(files)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def verify(folder: Path, within: str = "") -> bool:
    """Compares every file with its checksum.

    Args:
      folder: of a step. within: look at this subfolder alone.

    Returns:
      False where there are no checksums to compare with.

    Raises:
      Damaged: a file is missing, has another size or other contents, or the checksums themselves are damaged.
    """
    if not (folder / NAME).exists():
        return False
    try:
        told = json.loads((folder / NAME).read_text(encoding="utf-8"))
        if told["digest"] != _own_digest(told["files"]):
            raise Damaged(f"{NAME} does not match its own checksum")
        files = {name: entry for name, entry in told["files"].items() if name.startswith(within)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise error if isinstance(error, Damaged) else Damaged(f"{NAME} cannot be read") from error
    for name, (size, _) in files.items():  # before anything is read: most damage shows here
        if not (folder / name).is_file():
            raise Damaged(f"{name} is missing")
        if (there := (folder / name).stat().st_size) != size:
            raise Damaged(f"{name} has {there:,} bytes, not {size:,}")
    with ThreadPoolExecutor(_THREADS) as threads:
        try:
            found = threads.map(lambda name: _measure(folder / name), files)
            for (name, expected), measured in zip(files.items(), found, strict=True):
                if measured != expected:
                    raise Damaged(f"{name} does not match its checksum")
        except OSError as error:
            raise Damaged(f"{error.filename} cannot be read: {error.strerror}") from error
    return True


def _measure(path: Path) -> list:
    """[bytes, SHA-256] of a file."""
    with open(path, "rb") as file:
        return [os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()]


def _own_digest(files: dict[str, list]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
