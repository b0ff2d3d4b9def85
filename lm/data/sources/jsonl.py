"""JSON Lines (.jsonl, .ndjson) and JSON files (.json: an object or a list of them); also gzipped.

A record is an object with a text field: a string whose blank lines separate paragraphs, or a list
of strings, its paragraphs. A record may also be a string. JSON Lines are streamed; a .json file is
read at once.
"""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from lm.core.plugins import UserError
from lm.data import files, text
from lm.data.documents import Collector, Document, Tally
from lm.data.documents import signature as identity

MAX_BROKEN = 0.01  # maximum fraction of broken records; a file with more has another format
_SUFFIXES = (".jsonl", ".ndjson", ".json")


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
      path: files, directories or globs.
      field: the field of the text; "" means the first of "text", "paragraphs" and "content" that
        the first record has.
    """

    path: tuple[str, ...] = ()
    field: str = ""


def documents(config: Config, tally: Tally) -> Iterator[Document]:
    """Yields one document per record.

    Raises:
      UserError: a path matches nothing, a file lacks the field, or more than 1 % of its records are
        broken.
    """
    return _documents(files.find(config.path, _SUFFIXES, "jsonl"), config.field, tally)


def signature(config: Config) -> str:
    """An identity of the field, and of the names, sizes and times of the files."""
    matches = files.find(config.path, _SUFFIXES, "jsonl")
    return identity(config.field, files.identity(matches), code=(__file__, files.__file__))


def _documents(matches: list[tuple[str, str]], wanted: str, tally: Tally) -> Iterator[Document]:
    collector = Collector(tally)
    for path, name in matches:
        field = ""
        number = 0
        broken: list[str] = []  # problems, one per record
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
                no_text = f"has no text in field {field!r}, but {str(record)[:40]!r}"
                broken.append(f"{place} {problem or no_text}")
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
            f"{path}: {len(broken)} of {number} records are broken, more than {MAX_BROKEN:.0%}. The"
            f" first: {broken[0]}. Give JSON Lines, or a JSON list of objects, with text or a list"
            " of texts in data.field"
        )


@dataclasses.dataclass(frozen=True)
class _Broken:
    reason: str


def _records(path: str) -> Iterator[tuple[str, Any]]:
    """Yields (place, value or _Broken) of each record."""
    if path.lower().removesuffix(".gz").endswith(".json"):
        content, bad = text.decode(files.read(path))
        if bad > 0.01:
            raise UserError(f"{path} is not UTF-8 text")
        if not content.strip():
            return
        try:
            value = json.loads(content)
        except ValueError as error:
            if "Extra data" not in str(error):
                raise UserError(f"{path} is not valid JSON: {error}") from error
            # There is more after the first value: the file may be JSON Lines with another suffix.
        else:
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
                        _parse(content) if bad <= 0.01 else _Broken("is not UTF-8 text"),
                    )
    except (OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return _Broken(f"is not valid JSON: {error}")
