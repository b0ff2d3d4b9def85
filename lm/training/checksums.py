"""Checksums of a checkpoint's files: written before the commit, and compared before use.

`write_checksums` writes `checksums.json` into the folder of a step: size and SHA-256 of every file
of its items (arrays, their metadata, counters, validation loss). The folder still has its temporary
name at that time, so the rename that commits the checkpoint also commits its checksums: a process
cannot be killed between the two. A committed checkpoint without checksums was therefore not left by
a crash. It was written before checksums existed, or has lost the file, and may be used with a note.
A checkpoint that differs from its checksums must not be used.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

NAME = "checksums.json"
_THREADS = 8  # threads that read files in parallel; hashing releases the GIL


class Damaged(ValueError):
    """A checkpoint differs from what was written; the message names the file and the fault."""


def write_checksums(folder: Path) -> None:
    """Writes the checksums of all files in the subfolders of `folder`, and flushes them to disk.

    Files outside the subfolders are omitted: orbax writes them later, and nothing is restored from
    them.

    Args:
      folder: folder of a step, complete but not yet renamed.
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
      folder: folder of a step.
      within: name of the only subfolder to check; "" checks all subfolders.

    Returns:
      Whether there are checksums to compare with.

    Raises:
      Damaged: a file is missing or has another size or content, or the checksums are damaged.
    """
    if not (folder / NAME).exists():
        return False
    try:
        saved = json.loads((folder / NAME).read_text(encoding="utf-8"))
        if saved["digest"] != _own_digest(saved["files"]):
            raise Damaged(f"{NAME} does not match its own checksum")
        files = {name: entry for name, entry in saved["files"].items() if name.startswith(within)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise error if isinstance(error, Damaged) else Damaged(f"{NAME} cannot be read") from error
    for name, (size, _) in files.items():  # before anything is read: most damage shows here
        if not (folder / name).is_file():
            raise Damaged(f"{name} is missing")
        if (actual := (folder / name).stat().st_size) != size:
            raise Damaged(f"{name} has {actual:,} bytes, not {size:,}")
    with ThreadPoolExecutor(_THREADS) as threads:
        try:
            measurements = threads.map(lambda name: _measure(folder / name), files)
            for (name, expected), measured in zip(files.items(), measurements, strict=True):
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
