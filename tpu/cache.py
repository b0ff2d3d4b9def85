"""Records on disk under a hash of everything they depend on, so that a killed search can resume."""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lm
from lm.core.plain import write_json
from lm.core.plugins import UserError
from tpu import environment

# Sections of a config that do not change the compiled program.
_EXCLUDED = ("seed",)
# Fields of the section `training` that do change it.
_TRAINING = ("batch_size", "microbatches")


class Cache:
    """A directory of records.

    Args:
      directory: directory of the records, created if missing; None stores nothing.

    Raises:
      UserError: the directory cannot be created.
    """

    def __init__(self, directory: str | Path | None):
        self.directory = Path(directory) if directory else None
        if self.directory is not None:
            try:
                self.directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(
                    f"--workdir={str(directory)!r} cannot be created: {error.strerror}"
                ) from error

    def get(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Returns the stored record of a key, or makes one and stores it.

        A record that cannot be read is made again.

        Args:
          key: the key, from the function `key`.
          make: function that makes the record; a record with an "error" is not stored.

        Returns:
          The record; its entry "cached" tells whether it was stored before.
        """
        path = self.directory / f"{key}.json" if self.directory is not None else None
        if path is not None:
            try:
                return {**json.loads(path.read_text(encoding="utf-8")), "cached": True}
            except (OSError, ValueError):
                pass
        record = make()
        if path is not None and "error" not in record:  # an error may not recur
            write_json(path, record)
        return {**record, "cached": False}


def key(config: Mapping[str, Any], tpu: str, options: Mapping[str, str], **more: Any) -> str:
    """Returns a hash of config, slice, compiler options, package versions and source code.

    Args:
      config: a run config as a dict.
      tpu: name of the slice.
      options: compiler options.
      more: other values that the record depends on.
    """
    sections = {name: section for name, section in config.items() if name not in _EXCLUDED}
    sections["training"] = {name: config["training"][name] for name in _TRAINING}
    text = json.dumps(
        [
            sections,
            tpu,
            sorted(options.items()),
            sorted(more.items()),
            environment.versions(),
            _sources(),
        ],
        sort_keys=True,
        default=str,
    )
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


@functools.cache
def _sources() -> str:
    """A hash of the source code that is compiled, or that reads compiled programs."""
    package = Path(lm.__file__).parent
    files = sorted(package.rglob("*.py")) + sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.blake2b(digest_size=12)
    for path in files:
        if path.name not in (
            "plan.py",
            "search.py",
            "aot.py",
            "tables.py",
            "prices.py",
            "growth.py",
            "local.py",
            "launch.py",
        ):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
