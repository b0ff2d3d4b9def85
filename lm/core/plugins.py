"""Finds plug-ins by name, and turns config sections into their frozen dataclasses.

A plug-in is a module in one of the packages below `lm` ("rooms"): `lm/objectives/clm.py` is the
objective `clm`. Nothing is registered: the file name is the plug-in's name. The name of
a room's helper module begins with an underscore; helpers that other rooms import are listed in the
room's `SHARED` instead.
"""

import dataclasses
import difflib
import importlib
import math
import pkgutil
import types
import typing
from collections.abc import Container, Iterable
from typing import Any, Protocol, TypeVar, runtime_checkable

T = TypeVar("T")


@runtime_checkable
class Section(Protocol):
    """A section of a config: a Mapping or an ml_collections ConfigDict (which is not a Mapping)."""

    def __getitem__(self, key: str, /) -> Any: ...

    def items(self) -> Iterable[tuple[str, Any]]: ...


class UserError(ValueError):
    """An error in the user's input: a flag, a config or a file.

    The message states the value given, the values allowed and the remedy. Commands print the
    message without a traceback and exit with status 2.
    """


class NotApplicable(UserError):
    """A task cannot run on this corpus with these options, although both are valid.

    Raised when a task is constructed. Callers that try all tasks skip such a task; callers that
    were given the task by name report the error.
    """


def names(room: str) -> list[str]:
    """Lists the plug-ins of a room.

    Args:
      room: package below `lm`, such as "objectives" or "data.sources".

    Returns:
      The names, sorted.
    """
    package = importlib.import_module(f"lm.{room}")
    shared = getattr(package, "SHARED", ())
    return sorted(
        name
        for _, name, _ in pkgutil.iter_modules(package.__path__)
        if not name.startswith("_") and name not in shared
    )


def find(room: str, name: str) -> types.ModuleType:
    """Imports the plug-in module `lm/<room>/<name>.py`.

    Args:
      room: package below `lm`, such as "objectives" or "data.sources".
      name: the plug-in's name.

    Raises:
      UserError: there is no such plug-in; the message lists the valid names.
    """
    valid = names(room)
    if name not in valid:
        raise UserError(
            f"no {room.rsplit('.', 1)[-1]} plug-in is called {name!r}{_suggest(name, valid)};"
            f" there are: {', '.join(valid)}"
        )
    return importlib.import_module(f"lm.{room}.{name}")


def choice(name: str, value: str, valid: Iterable[str]) -> None:
    """Checks that an option has one of its valid values; for the `__post_init__` of a `Config`.

    Args:
      name: name of the option, for the error message.
      value: the value given.
      valid: all valid values.

    Raises:
      ValueError: the value is not valid; the message lists the valid values.
    """
    if value not in valid:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(valid)}")


def configure(cls: type[T], section: Section, where: str, skip: Container[str] = ()) -> T:
    """Builds the frozen dataclass `cls` from a config section.

    A value of None or "" means "not set": the dataclass's default is used.

    Args:
      cls: a dataclass; its `__post_init__` raises ValueError on invalid values.
      section: mapping from option names to values.
      where: path of the section ("config.model"), for error messages.
      skip: keys of the section that are not options of `cls`.

    Raises:
      UserError: an unknown key has a value, a value is invalid or has the wrong type, or a field
        without a default is not set.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in section.items():
        if key in skip or value is None or (isinstance(value, str) and not value):
            continue
        if key not in fields:
            raise UserError(
                f"{where}.{key}={value!r} is not known{_suggest(key, fields)};"
                f" {where} takes: {', '.join(fields)}"
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


def defaults(cls: type) -> dict[str, Any]:
    """Returns the defaults of a `Config` dataclass.

    Args:
      cls: a dataclass.

    Returns:
      Mapping from field names to defaults, in the order of declaration. A field without a default
      maps to None, which `configure` reads as "not set".
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.default is not dataclasses.MISSING:
            values[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            values[field.name] = field.default_factory()
        else:
            values[field.name] = None
    return values


def _typed(value: Any, hint: Any, where: str) -> Any:
    """Converts a value to the annotated type if nothing is lost; raises UserError otherwise."""
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
            f"{where}={value!r} should be {getattr(origin, '__name__', origin)},"
            f" not {type(value).__name__}"
        )
    return value


def _suggest(name: str, valid: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(valid), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
