"""Labelled text in published formats: files → training, development and test examples.

    tsv, csv    a header, then an example per line (quotes count in .csv only, as GLUE has none)
    jsonl       an object per line (SNLI, MNLI: sentence1, sentence2, gold_label; the label "-"
                means that the annotators did not agree)
    classes     a file per class, an example per line; the label is the file's name, or its suffix
                (rt-polarity.pos)
    conll       a word and its tag per line, with other columns between them ignored, and a blank
                line after each sentence

Broken lines are counted and reported; a file with too many of them raises UserError. Training
examples that are also in the test set are removed. Which part of a single file is held out depends
on the content of each example alone.
"""

import collections
import csv
import dataclasses
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lm.core import plugins
from lm.core.plugins import UserError
from lm.data import files, text

FORMATS = ("tsv", "csv", "jsonl", "classes", "conll")
_ENDINGS = {
    ".tsv": "tsv",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".conll": "conll",
    ".iob": "conll",
}
TEXTS = ("text", "sentence", "content", "review")
PAIRS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"),
    ("question", "sentence"), ("text_a", "text_b"),
)  # fmt: skip
LABELS = ("gold_label", "label", "class")
UNDECIDED = "-"


@dataclasses.dataclass(frozen=True)
class Files:
    """Files of labelled text, and the names of their fields.

    Attributes:
      path: training files; for `classes` one per class.
      dev: files of the development set. If empty, the set is a fraction of `path`, selected by a
        hash of each example.
      test: files of the test set. If empty, the set is a fraction of `path`, selected by a hash of
        each example. The validation split evaluates on `dev`, or on a fraction of `path`, and does
        not read `test`.
      format: one of FORMATS; "" derives it from the first file's suffix.
      encoding: "utf-8", "latin-1" …
      text, second, label: names of fields; "" means the first usual name that the file has.
      held_out: fraction of a single file that becomes the test set; an equal fraction of the rest
        becomes the development set.
      broken: maximum fraction of broken lines in a file.
    """

    path: tuple[str, ...] = ()
    dev: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    format: str = ""
    encoding: str = "utf-8"
    text: str = ""
    second: str = ""
    label: str = ""
    held_out: float = 0.2
    broken: float = 0.01

    def __post_init__(self) -> None:
        if self.format:
            plugins.choice("format", self.format, FORMATS)
        try:
            b"a".decode(self.encoding, errors="ignore")
        except LookupError:
            raise ValueError(
                f"encoding={self.encoding!r} is not known; utf-8, latin-1 and utf-16 are usual"
            ) from None
        if not 0 < self.held_out < 1 or not 0 <= self.broken < 1:
            raise ValueError(
                f"held_out={self.held_out} and broken={self.broken} are fractions: they must be"
                " between 0 and 1"
            )
        if (self.dev or self.test) and not self.path:
            raise ValueError("dev and test need path, the training files, in addition")


@dataclasses.dataclass(frozen=True)
class Example:
    """One text or two with one label, or the words of a sentence with a tag each."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Examples of a task.

    Attributes:
      train: examples to train on.
      dev: examples to select by.
      test: examples to evaluate on.
      tally: reason → number of examples left out; the first broken line is quoted.
    """

    train: list[Example]
    dev: list[Example]
    test: list[Example]
    tally: dict[str, int]

    @property
    def note(self) -> str:
        """A description of the examples left out, or ""."""
        return "; ".join(f"{count:,} {reason}" for reason, count in self.tally.items())


def read(given: Files, kind: str, split: str, where: str) -> Labelled:
    """Reads the examples of a task.

    Args:
      given: the files.
      kind: "text", "pair" or "words".
      split: "validation" or "test".
      where: the task's name, for messages.

    Raises:
      UserError: a file is missing, lacks the fields or has too many broken lines; or the train, dev
        or test part has no examples.
    """
    tally = collections.Counter[str]()
    names = ("path", "dev") if split == "validation" else ("path", "dev", "test")
    parts = {
        name: _read(getattr(given, name), given, kind, where, tally)
        for name in names
        if getattr(given, name)
    }
    train, dev, test = (parts.get(name, []) for name in ("path", "dev", "test"))
    if split == "validation" and dev:
        test, dev = dev, []
    elif not test:
        if split == "test" or not given.test:
            train, test = _held_out(train, given.held_out, "test")
        # Selection on the validation split must not use the examples of the test split.
        if split == "validation":
            train, test = _held_out(train, given.held_out, "validation")
    texts = {example.texts for example in test}
    train, dev = _without(train, texts, "test", tally), _without(dev, texts, "test", tally)
    if dev:
        train = _without(train, {example.texts for example in dev}, "dev", tally)
    else:
        train, dev = _held_out(train, given.held_out, "dev")
    for name, part in (("train", train), ("dev", dev), ("test", test)):
        if not part:
            raise UserError(
                f"{where}: there is no example in the {name} part; give more, or"
                f" {where}.{'path' if name == 'train' else name}"
            )
    return Labelled(train, dev, test, dict(tally))


def _held_out(
    examples: list[Example], fraction: float, salt: str
) -> tuple[list[Example], list[Example]]:
    """Splits off a fraction by a hash of the texts, so that equal ones stay together.

    Returns:
      The rest, and the fraction.
    """
    sides: tuple[list[Example], list[Example]] = ([], [])
    for example in examples:
        digest = hashlib.blake2b("\0".join((salt, *example.texts)).encode(), digest_size=8).digest()
        sides[int.from_bytes(digest, "big") < fraction * 2**64].append(example)
    return sides


def _without(
    examples: list[Example],
    others: set[tuple[str, ...]],
    name: str,
    tally: collections.Counter[str],
) -> list[Example]:
    kept = [example for example in examples if example.texts not in others]
    if len(kept) < len(examples):
        reason = f"examples taken out because the {name} set has them too"
        tally[reason] += len(examples) - len(kept)
    return kept


class _Broken(str):
    """What is wrong with a record."""


Record = tuple[int, Example | _Broken | None]  # line, and an example; None without a label
Row = tuple[int, dict[str, Any] | _Broken]  # line, and its fields


def _read(
    paths: Sequence[str], given: Files, kind: str, where: str, tally: collections.Counter[str]
) -> list[Example]:
    """Examples of all files; `tally` counts those that are left out."""
    try:
        matches = [path for path, _ in files.find(paths, tuple(_ENDINGS), where)]
    except UserError as error:
        raise UserError(str(error).replace("data.path", f"{where}: path")) from None
    ending = Path(matches[0].lower().removesuffix(".gz")).suffix
    form = given.format or _ENDINGS.get(ending, "conll" if kind == "words" else "classes")
    if (form == "conll") != (kind == "words") or (form == "classes" and kind != "text"):
        forms = {"words": "conll", "pair": "tsv, csv, jsonl", "text": "tsv, csv, jsonl, classes"}[
            kind
        ]
        raise UserError(
            f"{where}: {matches[0]} is taken as {form}, but this task reads {forms}; set"
            f" {where}.format, or give other files"
        )
    if form == "classes" and len(matches) < 2:
        raise UserError(
            f"{where}: format 'classes' needs a file for each class, but {where}.path names only"
            f" {matches[0]}"
        )
    names = _class_names(matches)
    examples: list[Example] = []
    for path, name in zip(matches, names, strict=True):
        content = (
            files.read(path).decode(given.encoding, errors="surrogateescape").removeprefix("\ufeff")
        )
        records = list(_records(form, content, path, name, given, kind, where))
        broken = [
            f"line {line} {record}" for line, record in records if isinstance(record, _Broken)
        ]
        if broken and len(broken) > given.broken * len(records):
            raise UserError(
                f"{path}: {len(broken)} of {len(records)} records are broken, more than"
                f" {where}.broken={given.broken:g}. The first: {broken[0]}"
            )
        if broken:
            tally[f"broken records in {path} (the first: {broken[0]})"] += len(broken)
        if undecided := sum(record is None for _, record in records):
            tally[f"examples without an agreed label in {path}"] += undecided
        examples += [record for _, record in records if isinstance(record, Example)]
    return examples


def _records(
    form: str, content: str, path: str, name: str, given: Files, kind: str, where: str
) -> Iterator[Record]:
    """Parses a file; `name` is the label of a file of a class."""
    if form == "conll":
        yield from _sentences(content, given)
    elif form == "classes":
        for line, value in enumerate(content.split("\n"), 1):
            if value.strip():
                yield line, _example([value], name, given)
    else:
        fields: list[str] = []
        for line, row in {"tsv": _tsv, "csv": _csv, "jsonl": _jsonl}[form](content):
            if isinstance(row, _Broken):
                yield line, row
                continue
            fields = fields or _fields(row, given, kind, f"{where}: {path}", where)
            if missing := [
                field for field in fields if not isinstance(row.get(field), str | int | float)
            ]:
                yield line, _Broken(f"has no {' and no '.join(missing)}")
            elif kind == "pair" and row[fields[-1]] == UNDECIDED:
                yield line, None
            else:
                texts = [str(row[field]) for field in fields[:-1]]
                yield line, _example(texts, str(row[fields[-1]]).strip(), given)


def _example(texts: list[str], label: str, given: Files) -> Example | _Broken:
    if problem := _undecoded("".join(texts) + label, given):
        return problem
    clean = tuple(" ".join(text.normalize(value).split()) for value in texts)
    if not all(clean) or not label:
        return _Broken("has an empty text" if label else "has an empty label")
    return Example(clean, (label,))


def _undecoded(value: str, given: Files) -> _Broken | None:
    """A problem if text holds the surrogates of bytes that could not be decoded."""
    if any("\udc80" <= character <= "\udcff" for character in value):
        return _Broken(f"is not {given.encoding} text; set encoding, perhaps to latin-1")
    return None


def _fields(row: dict[str, Any], given: Files, kind: str, path: str, where: str) -> list[str]:
    """Names of the fields of the text or texts, and of the label."""
    usual = PAIRS if kind == "pair" else [(name,) for name in TEXTS]
    wanted = (given.text, given.second)[: 1 + (kind == "pair")]
    texts: tuple[str, ...] = (
        wanted if all(wanted) else next((names for names in usual if set(names) <= row.keys()), ())
    )
    label = given.label or next((name for name in LABELS if name in row), "")
    if not texts or not label or not {*texts, label} <= row.keys():
        options = f"{where}.text{f', {where}.second' * (kind == 'pair')} and {where}.label"
        raise UserError(
            f"{path} has the fields {', '.join(row)}; select those to read by {options}"
        )
    return [*texts, label]


def _fields_of(header: list[str], cells: list[str]) -> dict[str, Any] | _Broken:
    if len(cells) != len(header):
        return _Broken(f"has {len(cells)} columns, not {len(header)}")
    return dict(zip(header, cells, strict=True))


def _tsv(content: str) -> Iterator[Row]:
    lines = [line.rstrip("\r") for line in content.split("\n")]
    header = lines[0].split("\t")
    for number, line in enumerate(lines[1:], 2):
        if line.strip():
            yield number, _fields_of(header, line.split("\t"))


def _csv(content: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(content, newline=""))
    header = next(reader, [])
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield reader.line_num, _Broken(f"is not CSV: {error}")
            continue
        if cells is None:
            return
        if cells:
            yield reader.line_num, _fields_of(header, cells)


def _jsonl(content: str) -> Iterator[Row]:
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, _Broken(f"is not JSON: {error}")
                continue
            if isinstance(value, dict):
                yield number, value
            else:
                yield number, _Broken(f"is a JSON {type(value).__name__}, not an object")


def _class_names(paths: list[str]) -> list[str]:
    """Labels of files: their stems, or their suffixes where stems are equal (rt-polarity.pos)."""
    names = [Path(path.removesuffix(".gz")) for path in paths]
    stems = [name.stem for name in names]
    if len(set(stems)) == len(stems):
        return stems
    return [name.suffix.lstrip(".") or name.stem for name in names]


def _sentences(content: str, given: Files) -> Iterator[Record]:
    """Sentences of words and tags; a broken line breaks its sentence.

    If all words of the file end in a digit after another character, the digit is the position of a
    character in its word (Weibo) and is cut.
    """
    rows = [(number, line.split()) for number, line in enumerate(content.split("\n"), 1)]
    words = [cells[0] for _, cells in rows if len(cells) > 1]
    numbered = bool(words) and all(len(word) > 1 and word[-1].isdigit() for word in words)
    sentence: list[tuple[str, str]] = []
    start = 0
    problem: _Broken | None = None
    for number, cells in [*rows, (len(rows) + 1, [])]:
        if cells and cells[0] != "-DOCSTART-":
            start = start or number
            problem = problem or _undecoded("".join(cells), given)
            if len(cells) < 2:
                problem = problem or _Broken(f"has no tag, only {cells[0][:40]!r} (line {number})")
            else:
                sentence.append(
                    (text.normalize(cells[0][:-1] if numbered else cells[0]) or cells[0], cells[-1])
                )
        elif not cells and start:
            yield (
                start,
                problem or Example(*(tuple(column) for column in zip(*sentence, strict=True))),
            )
            sentence, start, problem = [], 0, None
