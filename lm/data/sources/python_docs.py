"""The English of a Python installation: pages of `help()`, and docstrings of installed packages.

Nothing is downloaded, imported or executed: source files are parsed, by one process per core. A
document is a class, a method or a function with a long docstring, or a module with all its shorter
docstrings. Its label is the top-level package, or "topics" for the pages of `help()`. Modules
written in C have no source and are left out.
"""

import concurrent.futures
import dataclasses
import difflib
import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lm.core.plugins import UserError
from lm.data import docstrings, python_source
from lm.data.documents import Collector, Document, Tally, normalized_hash
from lm.data.documents import signature as identity

# Dependencies of `lm`, direct or indirect, with much prose. Packages that are not installed are
# skipped.
PACKAGES = (
    "topics stdlib numpy scipy jax flax optax orbax grain sklearn matplotlib mpl_toolkits pyarrow"
    " rich absl etils ml_collections treescope fsspec pygments PIL pyparsing joblib packaging"
    " dateutil"
).split()
_SKIPPED = frozenset(
    "test tests testing _vendor vendor vendored externals extern _distutils idlelib lib2to3"
    " turtledemo ensurepip __pycache__".split()
)
_TEST = re.compile(r"test_|conftest$|.*_test(util|utils)?$")
_MIN_WORDS, _MAX_WORDS = 30, 2_000
_BATCH = 4_000_000  # bytes of source per call of a worker

Directory = list[tuple[str, str]]  # (path, module name) of each source file


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
      packages: import names of installed packages; also "stdlib" (the standard library) and
        "topics" (the pages of `help()`). () means every entry of PACKAGES that is installed.
    """

    packages: tuple[str, ...] = ()


def documents(config: Config, tally: Tally) -> Iterator[Document]:
    """Yields the documents in an order that depends only on what is installed.

    Raises:
      UserError: a package of the config has no source here.
    """
    return _documents(_directories(config, tally), tally)


def signature(config: Config) -> str:
    """An identity of the Python version, and of names and sizes of source files."""
    files = [
        (module, os.stat(path).st_size)
        for files in _directories(config, Tally())
        for path, module in files
    ]
    return identity(
        sys.version_info[:3], files, code=(__file__, docstrings.__file__, python_source.__file__)
    )


def _documents(directories: list[Directory], tally: Tally) -> Iterator[Document]:
    collector = Collector(tally, near=True, min_words=_MIN_WORDS, max_words=_MAX_WORDS)
    seen: set[int] = set()
    for result in _read(directories):
        for reason, count in result["drops"].items():
            tally.drop(reason, count)
        for name, paragraphs in result["documents"]:
            fresh = []
            for paragraph in paragraphs:
                fingerprint = normalized_hash(paragraph)
                if fingerprint in seen:
                    tally.drop("paragraphs seen before")
                else:
                    seen.add(fingerprint)
                    fresh.append(paragraph)
            yield from collector.collect(name, fresh, name.partition(".")[0])


def _read(directories: list[Directory]) -> Iterator[dict[str, Any]]:
    """Yields the workers' results in the order of the directories."""
    batches: list[list[Directory]] = [[]]
    size = 0
    for files in directories:
        if size > _BATCH:
            batches.append([])
            size = 0
        batches[-1].append(files)
        size += sum(os.stat(path).st_size for path, _ in files)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with concurrent.futures.ThreadPoolExecutor(cores) as pool:
        yield from pool.map(_work, batches)


def _work(batch: list[Directory]) -> dict[str, Any]:
    """Reads some directories in a subprocess, for which a thread waits."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "PYTHONIOENCODING": "utf-8",
    }
    command = [sys.executable, "-m", python_source.__name__]
    done = subprocess.run(
        command, input=json.dumps(batch).encode(), capture_output=True, env=environment
    )
    if done.returncode:
        message = done.stderr.decode(errors="replace")[-2000:]
        raise RuntimeError(
            f"reading Python source failed with exit status {done.returncode}: {message}"
        )
    return json.loads(done.stdout)


def _directories(config: Config, tally: Tally) -> list[Directory]:
    """The source files of all packages, directory by directory.

    Raises:
      UserError: a package of the config has no source here, or no package has.
    """
    directories: list[Directory] = []
    for package in config.packages or PACKAGES:
        sources = _package(package)
        if not sources and config.packages:
            close = difflib.get_close_matches(package, PACKAGES, n=1)
            raise UserError(
                f"data.packages: there is no Python source of {package!r} here"
                + (f" (did you mean {close[0]!r}?)" if close else "")
                + "; give installed packages by their names in imports, or 'stdlib', or 'topics'"
            )
        tally.drop("packages that are not installed", not sources)
        directories += sources
    if not directories:
        raise UserError(
            "this Python has no source files to read docstrings from; give text files instead:"
            " data.source=text data.path=…"
        )
    return directories


def _package(package: str) -> list[Directory]:
    standard = Path(sysconfig.get_path("stdlib"))
    if package == "topics":
        path = standard / "pydoc_data" / "topics.py"
        return [[(str(path), python_source.TOPICS)]] if path.is_file() else []
    if package == "stdlib":
        return list(_walk(standard, ()))
    try:
        # Finding a top-level name imports nothing.
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [
            files
            for root in sorted(spec.submodule_search_locations)
            for files in _walk(Path(root), (package,))
        ]
    return [[(spec.origin, package)]] if spec.origin and spec.origin.endswith(".py") else []


def _walk(directory: Path, package: tuple[str, ...]) -> Iterator[Directory]:
    """Yields a directory's modules, then those of its subdirectories, without tests and copies."""
    entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    files = []
    for entry in entries:
        stem = entry.name.removesuffix(".py")
        if (
            entry.name.endswith(".py")
            and entry.is_file()
            and not _TEST.match(stem)
            and (*package, stem) != ("pydoc_data", "topics")
        ):
            files.append(
                (entry.path, ".".join(package if stem == "__init__" else (*package, stem)))
            )
    if files:
        yield files
    for entry in entries:
        if (
            entry.is_dir(follow_symlinks=False)
            and entry.name.isidentifier()
            and entry.name not in _SKIPPED
        ):
            yield from _walk(Path(entry.path), (*package, entry.name))
