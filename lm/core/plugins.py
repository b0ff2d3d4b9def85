"""Finds a plug-in by name, and turns a config section into its frozen dataclass.

A plug-in is a module in one of the packages below `lm` ("rooms"): `lm/objectives/clm.py` is the objective `clm`.
Nothing registers itself: the file's name is the plug-in's name. A room's modules that are no plug-ins begin with an underscore, or stand
in its `SHARED` where other rooms import them too.
"""

import dataclasses
import difflib
import importlib
import math
import pkgutil
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class UserError(ValueError):
    """Something the user gave cannot work. Commands print its message without a traceback and exit with 2."""


def names(room: str) -> list[str]:
    """The plug-ins in a room such as "objectives" or "data.sources", sorted."""
    package = importlib.import_module(f"lm.{room}")
    shared = getattr(package, "SHARED", ())
    return sorted(
        name
        for _, name, _ in pkgutil.iter_modules(package.__path__)
        if not name.startswith("_") and name not in shared
    )


def find(room: str, name: str) -> types.ModuleType:
    """The plug-in module `lm/<room>/<name>.py`.

    Raises:
      UserError: there is no such plug-in; the message lists the valid names.
    """
    valid = names(room)
    if name not in valid:
        raise UserError(
            f"no {room.rsplit('.', 1)[-1]} plug-in is called {name!r}{_suggest(name, valid)}; there are: {', '.join(valid)}"
        )
    return importlib.import_module(f"lm.{room}.{name}")


def choice(name: str, value: str, valid: typing.Iterable[str]) -> None:
    """Refuses an option that is not among the valid ones.

    Raises:
      ValueError: it is not; the message lists them.
    """
    if value not in valid:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(valid)}")


def configure(
    cls: type[T], section: Mapping[str, Any], where: str, skip: typing.Container[str] = ()
) -> T:
    """Builds the frozen dataclass `cls` from a config section.

    A value of None or "" means "not set": the dataclass's own default holds. Keys in `skip` belong to somebody else.

    Args:
      cls: a dataclass; its `__post_init__` raises ValueError on impossible values.
      section: a mapping such as an ml_collections ConfigDict.
      where: the section's name, for messages ("config.model").
      skip: keys of the section to pass over.

    Raises:
      UserError: an unknown key with a value, a value of the wrong type, or an impossible value.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in section.items():
        if key in skip or value is None or (isinstance(value, str) and not value):
            continue
        if key not in fields:
            raise UserError(
                f"{where}.{key}={value!r} is not known{_suggest(key, fields)}; {where} takes: {', '.join(fields)}"
            )
        values[key] = _typed(value, hints[key], f"{where}.{key}")
    missing = [
        name
        for name, field in fields.items()
        if name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"{where} needs a value for: {', '.join(missing)}")
    try:
        return cls(**values)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def _typed(value: Any, hint: Any, where: str) -> Any:
    """The value as the annotated type, without any lossy conversion."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(arm for arm in typing.get_args(hint) if arm is not type(None))
    origin = typing.get_origin(hint) or hint
    if origin is tuple:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if not isinstance(value, list | tuple):
            raise UserError(f"{where}={value!r} should be a list")
        inner = (typing.get_args(hint) or (Any,))[0]
        return tuple(_typed(part, inner, where) for part in value)
    if origin is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise UserError(f"{where}={value!r} should be a finite number")
        return float(value)
    if origin is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if hint is Any:
        return value
    if isinstance(value, bool) != (origin is bool) or not isinstance(value, origin):
        raise UserError(
            f"{where}={value!r} should be {getattr(origin, '__name__', origin)}, not {type(value).__name__}"
        )
    return value


def _suggest(name: str, valid: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(valid), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
