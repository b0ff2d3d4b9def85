"""Plain nested values of configs and records, and JSON files that are replaced atomically."""

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm.core import files
from lm.core.plugins import UserError


def plain(config: Any) -> Any:
    """Converts a config to nested dicts, lists and scalars.

    Args:
      config: an ml_collections ConfigDict, a mapping, or a value inside either of them.
    """
    if isinstance(config, Mapping) or hasattr(config, "to_dict"):
        return {key: plain(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [plain(value) for value in config]
    return config


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens a nested config to {"model.width": 128, …}.

    Args:
      config: nested mappings.
      prefix: path of the config itself; every key of the result begins with it.
    """
    items: dict[str, Any] = {}
    for key, value in config.items():
        items |= (
            flat(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{key}": value}
        )
    return items


def typed(text: str) -> Any:
    """Parses a command-line value: a Python literal (number, True, None, list) or plain text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file atomically.

    Args:
      path: the file to replace.
      content: nested values; values that JSON cannot represent are written as strings.

    Raises:
      UserError: the file cannot be written.
    """
    with files.replacing(path) as file:
        file.write(json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")


def read_json(path: Path, what: str) -> Any:
    """Reads a JSON file.

    Args:
      path: the file.
      what: description of the file ("the record of a run"), for error messages.

    Raises:
      UserError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path.parent} has no {path.name} ({what}); is it the right directory?"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} ({what}) cannot be read: {error}") from error
