"""Files that readers see whole: the old content or the new one, never half of either."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from lm.core.plugins import UserError


@contextlib.contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a temporary file that replaces `path` when the block ends; nothing changes if it raises.

    The content reaches the disk first, so that a machine that loses power does not leave an empty
    file under the new name.

    Args:
      path: the file to replace.
      mode: "w" for UTF-8 text, "wb" for bytes.

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
        temporary.unlink(missing_ok=True)
