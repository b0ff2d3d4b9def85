"""Files of a corpus: finding and reading them, and the text of their records; shared by sources."""

import glob
import gzip
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lm.core.plugins import UserError
from lm.data import text

# Fields that may hold a record's text if data.field is not set, in this order.
FIELDS = ("text", "paragraphs", "content")


def find(
    paths: Sequence[str], suffixes: Sequence[str], source: str, option: str = "data.path"
) -> list[tuple[str, str]]:
    """Finds files.

    Args:
      paths: files, directories (all files below with one of the suffixes) or globs (`**` descends).
      suffixes: suffixes such as ".md", with and without ".gz". Files given by path or glob may have
        any suffix.
      source: the source's name, for messages.
      option: name of the option that holds the paths, for messages.

    Returns:
      (path, name) of each file, sorted by name. A name is relative to the given path, so that it
      contains no folders specific to the machine.

    Raises:
      UserError: no path is given, or one is missing, unreadable or matches no file.
    """
    if not paths:
        raise UserError(
            f"data.source={source} needs {option}: a file, a directory or a glob such as"
            f" 'books/*{suffixes[0]}'"
        )
    entries: dict[str, tuple[str, str]] = {}
    for given in paths:
        path = os.path.expanduser(given)
        if os.path.isdir(path):
            endings = tuple(suffixes) + tuple(suffix + ".gz" for suffix in suffixes)
            files = [
                os.path.join(root, name)
                for root, _, names in os.walk(path)
                for name in names
                if not name.startswith(".")
            ]
            matches = [
                (file, os.path.relpath(file, path))
                for file in files
                if file.lower().endswith(endings)
            ]
            problem = f"the directory has no file that ends in {', '.join(suffixes)}"
        elif os.path.exists(path):
            matches = [(path, os.path.basename(path))]
            problem = ""
        elif signs := [path.index(sign) for sign in "*?[" if sign in path]:
            root = os.path.dirname(path[: min(signs)]) or "."
            matches = [
                (file, os.path.relpath(file, root))
                for file in glob.glob(path, recursive=True)
                if os.path.isfile(file)
            ]
            problem = "it matches no file"
        else:
            matches = []
            problem = "there is no such file or directory"
        if not matches:
            raise UserError(
                f"{option}={given!r}: {problem} (relative paths start at {os.getcwd()})"
            )
        for file, name in matches:
            if not os.access(file, os.R_OK):
                raise UserError(f"{option}={given!r}: {file} may not be read")
            entries.setdefault(os.path.realpath(file), (file, name.replace(os.sep, "/")))
    return sorted(entries.values(), key=lambda entry: (entry[1], entry[0]))


def identity(files: Iterable[tuple[str, str]]) -> list[tuple[str, int, int]]:
    """Cheap identities of files: (name, size, time of change in ns) of each (path, name)."""
    return [
        (name, status.st_size, status.st_mtime_ns)
        for path, name in files
        for status in [os.stat(path)]
    ]


def open_binary(path: str) -> gzip.GzipFile | io.BufferedReader:
    """Opens a file for reading bytes, decompressed if its name ends in .gz."""
    return gzip.open(path, "rb") if path.lower().endswith(".gz") else open(path, "rb")


def read(path: str) -> bytes:
    """All bytes of a file, decompressed if its name ends in .gz.

    Raises:
      UserError: the file cannot be read.
    """
    try:
        with open_binary(path) as file:
            return file.read()
    except (OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def stem(name: str) -> str:
    """The name without directories and suffixes."""
    return Path(name).name.split(".")[0]


def pick_field(wanted: str, existing: Iterable[str], where: str) -> str:
    """The field that holds the text.

    Args:
      wanted: the field's name; "" takes the first of FIELDS that exists.
      existing: names of the fields that exist.
      where: the file, for messages.

    Raises:
      UserError: there is neither `wanted` nor one of FIELDS; the message lists the existing fields.
    """
    existing = list(existing)
    for field in (wanted,) if wanted else FIELDS:
        if field in existing:
            return field
    tried = repr(wanted) if wanted else f"of the usual ones ({', '.join(FIELDS)})"
    raise UserError(
        f"{where} has no field {tried}; set data.field to one of:"
        f" {', '.join(existing) or '(it has none)'}"
    )


def paragraphs_of(value: Any) -> Iterator[str] | None:
    """The paragraphs of a text or of a list of texts; None for other values."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
        return None
    return (paragraph for part in value for paragraph in text.paragraphs(text.normalize(part)))
