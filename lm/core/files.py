"""Atomic file replacement: readers see either the old or the new content, never a mixture.

`lm.core.plain.write_json` uses it for JSON files.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from lm.core.plugins import UserError


@contextlib.contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a temporary file that replaces `path` when the block ends.

    If the block raises, the temporary file is removed and `path` is unchanged. The content is
    flushed to disk before the replacement, so that a power failure does not leave an empty file.

    Args:
      path: the file to replace; its directory must exist.
      mode: "w" for UTF-8 text, "wb" for bytes.

    Yields:
      The temporary file, open for writing. It is named `.NAME.PID`, in the directory of
      `path`.

    Raises:
      UserError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
