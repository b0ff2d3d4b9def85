"""Configs and records as plain nested values, and JSON files written atomically."""

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm.core import files
from lm.core.plugins import UserError


def plain(config: Any) -> Any:
    """A config (ml_collections or mapping) as nested dicts, lists and scalars."""
    if isinstance(config, Mapping) or hasattr(config, "to_dict"):
        return {key: plain(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [plain(value) for value in config]
    return config


def flat(config: Mapping, prefix: str = "") -> dict[str, Any]:
    """A nested config as {"model.width": 128, …}."""
    items: dict[str, Any] = {}
    for key, value in config.items():
        items |= (
            flat(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{key}": value}
        )
    return items


def typed(text: str) -> Any:
    """A value as it is typed: a number, True, False, None or a list in Python's form; all else is text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file atomically."""
    with files.replacing(path) as file:
        file.write(json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")


def read_json(path: Path, what: str) -> Any:
    """Reads a JSON file.

    Raises:
      UserError: it is missing or damaged; `what` says what it should have been.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path.parent} has no {path.name} ({what}); is it the right directory?"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} ({what}) cannot be read: {error}") from error
