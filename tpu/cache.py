"""Records kept on disk under a hash of all that they depend on, so that a search that was killed goes on where it stopped."""

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

# Sections of a config that change nothing that is compiled.
_APART = ("seed",)
_TRAINING = ("batch_size", "microbatches")


class Cache:
    """A directory of records.

    Args:
      directory: made where it is missing; None keeps nothing.
    """

    def __init__(self, directory: str | Path | None):
        self.directory = Path(directory) if directory else None
        if self.directory is not None:
            try:
                self.directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(
                    f"--workdir={str(directory)!r} cannot be made: {error.strerror}"
                ) from error

    def get(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The record of a key: a kept one, else a new one, which is kept. One that cannot be read is made again."""
        path = self.directory / f"{key}.json" if self.directory is not None else None
        if path is not None:
            try:
                return {**json.loads(path.read_text(encoding="utf-8")), "cached": True}
            except (OSError, ValueError):
                pass
        record = make()
        if path is not None and "error" not in record:  # which may not come again
            write_json(path, record)
        return {**record, "cached": False}


def key(config: Mapping[str, Any], tpu: str, options: Mapping[str, str], **more: Any) -> str:
    """A hash of config, slice, compiler options, versions and sources."""
    kept = {name: section for name, section in config.items() if name not in _APART}
    kept["training"] = {name: config["training"][name] for name in _TRAINING}
    told = json.dumps(
        [
            kept,
            tpu,
            sorted(options.items()),
            sorted(more.items()),
            environment.versions(),
            _sources(),
        ],
        sort_keys=True,
        default=str,
    )
    return hashlib.blake2b(told.encode(), digest_size=12).hexdigest()


@functools.cache
def _sources() -> str:
    """A hash of all that is compiled or reads what was compiled."""
    inside = Path(lm.__file__).parent
    files = sorted(inside.rglob("*.py")) + sorted(Path(__file__).parent.glob("*.py"))
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
