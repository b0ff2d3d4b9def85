"""JSON Lines (.jsonl, .ndjson) and JSON files (.json: a list of objects, or one object), also packed with gzip.

A record is an object with a text field: a string, in which blank lines separate paragraphs, or a list of strings, its
paragraphs. Where `field` is not set, it is the first of "text", "paragraphs", "content" that the first record has. A record may
also be a string itself. JSON Lines are streamed; a .json file is read whole.
"""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from lm.core.plugins import UserError
from lm.data import files, text
from lm.data.documents import Collector, Document, Tally
from lm.data.documents import signature as identity

MAX_BROKEN = 0.01  # share of lines; beyond it the file is something else than the user thinks
_SUFFIXES = (".jsonl", ".ndjson", ".json")


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
      path: files, directories or globs.
      field: the field with the text.
    """

    path: tuple[str, ...] = ()
    field: str = ""


def documents(config: Config, tally: Tally) -> Iterator[Document]:
    """One document a record.

    Raises:
      UserError: a path matches nothing, a file has no such field, or more than 1 % of its lines are broken.
    """
    return _documents(files.find(config.path, _SUFFIXES, "jsonl"), config.field, tally)


def signature(config: Config) -> str:
    """Changes with the field and with any file's name, size or time."""
    found = files.find(config.path, _SUFFIXES, "jsonl")
    return identity(config.field, files.identity(found), code=(__file__, files.__file__))


def _documents(found: list[tuple[str, str]], wanted: str, tally: Tally) -> Iterator[Document]:
    collector = Collector(tally)
    for path, name in found:
        field = ""
        number = 0
        broken: list[str] = []  # what is wrong, a line each
        for number, (place, record) in enumerate(_records(path), start=1):
            problem = record.reason if isinstance(record, _Broken) else ""
            if isinstance(record, dict):
                field = field or files.pick_field(wanted, record, f"{path}, {place},")
                problem = (
                    "" if field in record else f"has no field {field!r}, only: {', '.join(record)}"
                )
                record = record.get(field)
            elif not problem and not isinstance(record, str):
                problem = f"is a JSON {type(record).__name__}, not an object"
            paragraphs = None if problem else files.paragraphs_of(record)
            if paragraphs is None:
                broken.append(
                    f"{place} {problem or f'has no text in field {field!r}, but {str(record)[:40]!r}'}"
                )
                tally.drop("records without text (broken JSON, or no such field)")
                if number >= 100:
                    _check(path, broken, number)
            else:
                yield from collector.collect(f"{name}#{number}", paragraphs)
        _check(path, broken, number)
        tally.drop("empty files", number == 0)


def _check(path: str, broken: list[str], number: int) -> None:
    if len(broken) > MAX_BROKEN * number:
        raise UserError(
            f"{path}: {len(broken)} of {number} records are broken, more than {MAX_BROKEN:.0%}. The first: {broken[0]}. "
            "Give JSON Lines, or a JSON list of objects, with text or a list of texts in data.field"
        )


@dataclasses.dataclass(frozen=True)
class _Broken:
    reason: str


def _records(path: str) -> Iterator[tuple[str, Any]]:
    """The (place, value or _Broken) of each record."""
    if path.lower().removesuffix(".gz").endswith(".json"):
        content, bad = text.decode(files.read(path))
        if bad > 0.01:
            raise UserError(f"{path} is no UTF-8 text")
        if not content.strip():
            return
        try:
            value = json.loads(content)
        except ValueError as error:
            if "Extra data" not in str(error):
                raise UserError(f"{path} is no valid JSON: {error}") from error
        else:  # not valid as a whole, but there is more after the first value: it may be JSON Lines under another name
            for number, record in enumerate(value if isinstance(value, list) else [value], start=1):
                yield f"record {number}", record
            return
    try:
        with files.open_binary(path) as file:
            for number, raw in enumerate(file, start=1):
                content, bad = text.decode(raw)
                if content.strip() or bad:
                    yield (
                        f"line {number}",
                        _parse(content) if bad <= 0.01 else _Broken("is no UTF-8 text"),
                    )
    except (OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return _Broken(f"is no valid JSON: {error}")
