"""The `tokenizer` section of a config: a kind, its options, and optionally an existing file."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm.core import plugins
from lm.core.protocols import Tokenizer, TokenizerKind


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """Options that every kind of tokenizer has; a kind's own options are in its `Config`.

    Attributes:
      kind: name of a plug-in of lm/tokenizers.
      path: path of a file to load; "" to train on the training split instead.
    """

    kind: str = "unigram"
    path: str = ""


FIELDS = frozenset(field.name for field in dataclasses.fields(TokenizerConfig))


def configure(section: Mapping[str, Any]) -> tuple[TokenizerConfig, TokenizerKind, Any]:
    """Reads the `tokenizer` section of a config.

    Args:
      section: the `tokenizer` section of a config.

    Returns:
      The common fields, the plug-in of the kind, and the plug-in's `Config`.

    Raises:
      UserError: the kind or an option is unknown, or a value is impossible.
    """
    common = {key: value for key, value in section.items() if key in FIELDS}
    config = plugins.configure(TokenizerConfig, common, "config.tokenizer")
    # mypy does not see that a module found by name has the protocol's functions.
    kind: Any = plugins.find("tokenizers", config.kind)
    return config, kind, plugins.configure(kind.Config, section, "config.tokenizer", skip=FIELDS)


def load(section: Mapping[str, Any], path: str | os.PathLike = "") -> Tokenizer:
    """Loads a vocabulary of the section's kind.

    Args:
      section: the `tokenizer` section.
      path: path of the file; by default the section's own `path`.

    Raises:
      UserError: an option of the section is unknown or impossible, or the file cannot be read.
    """
    config, kind, options = configure(section)
    return kind.load(path or config.path, options)


def code(kind: str) -> list[str]:
    """Returns the source files that this kind depends on: the plug-in and shared modules."""
    others = set(plugins.names("tokenizers")) - {kind}
    return sorted(
        str(path) for path in Path(__file__).parent.glob("*.py") if path.stem not in others
    )
