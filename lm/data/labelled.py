"""Labelled text as it is published: files → training, development and test examples.

    tsv, csv    a header, then an example a line (GLUE's tables are not quoted: quotes are read in .csv only)
    jsonl       an object a line (SNLI, MNLI: sentence1, sentence2, gold_label; the label "-" says that the annotators did not agree)
    classes     a file for each class, an example a line; the label is the file's name, or its ending (rt-polarity.pos)
    conll       a word and its tag a line, columns in between passed over, a blank line after each sentence

Lines that cannot be read are counted and named, and a file in which they are too many is refused. An example of the test set that stands in
training too is taken from training. Which part of a single file is held out depends on each example's content alone.
"""

import collections
import csv
import dataclasses
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
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
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("question", "sentence"), ("text_a", "text_b"),
)  # fmt: skip
LABELS = ("gold_label", "label", "class")
UNDECIDED = "-"


@dataclasses.dataclass(frozen=True)
class Files:
    """Where labelled text is, and what its fields are called.

    Attributes:
      path: files of training (classes: one for each class). dev: to choose by. test: what is asked. Without these two, they are shares of
        what `path` has, by a hash of each example. On the validation split `dev` is asked, or a share of `path`; `test` is not read.
      format: one of FORMATS; by default what the first file's ending says.
      encoding: "utf-8", "latin-1" …
      text, second, label: names of the fields; by default the first of the usual ones that the file has.
      held_out: share of a single file that is the test set, and of what is then left that is chosen by.
      broken: the largest share of broken lines that is passed over.
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

    def __post_init__(self):
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
                f"held_out={self.held_out} and broken={self.broken} are shares: they must lie between 0 and 1"
            )
        if (self.dev or self.test) and not self.path:
            raise ValueError("dev and test need path, the files of training, beside them")


@dataclasses.dataclass(frozen=True)
class Example:
    """One text, two texts, or the words of a sentence; with one label, or a tag for each word."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Examples to learn from, to choose by, and to ask; and how many were left out, by reason (the first broken line is named)."""

    train: list[Example]
    dev: list[Example]
    test: list[Example]
    tally: dict[str, int]

    @property
    def note(self) -> str:
        """What was left out, "" if nothing."""
        return "; ".join(f"{count:,} {reason}" for reason, count in self.tally.items())


def read(given: Files, kind: str, split: str, where: str) -> Labelled:
    """The examples of a task.

    Args:
      kind: "text", "pair" or "words". split: "validation" or "test". where: the task's name, for messages.

    Raises:
      UserError: a file is missing, has no such fields, has too many broken lines, or leaves a part without examples.
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
        if (
            split == "validation"
        ):  # what is chosen by must not be what is asked, and the test part stays unread
            train, test = _held_out(train, given.held_out, "validation")
    asked = {example.texts for example in test}
    train, dev = _without(train, asked, "test", tally), _without(dev, asked, "test", tally)
    if dev:
        train = _without(train, {example.texts for example in dev}, "dev", tally)
    else:
        train, dev = _held_out(train, given.held_out, "dev")
    for name, part in (("train", train), ("dev", dev), ("test", test)):
        if not part:
            raise UserError(
                f"{where}: there is no example in the {name} part; give more, or {where}.{'path' if name == 'train' else name}"
            )
    return Labelled(train, dev, test, dict(tally))


def _held_out(
    examples: list[Example], share: float, salt: str
) -> tuple[list[Example], list[Example]]:
    """(The rest, the share): each example by a hash of its texts, so that equal ones stay together."""
    sides: tuple[list[Example], list[Example]] = ([], [])
    for example in examples:
        digest = hashlib.blake2b("\0".join((salt, *example.texts)).encode(), digest_size=8).digest()
        sides[int.from_bytes(digest, "big") < share * 2**64].append(example)
    return sides


def _without(
    examples: list[Example], others: set[tuple[str, ...]], name: str, tally: collections.Counter
) -> list[Example]:
    kept = [example for example in examples if example.texts not in others]
    if len(kept) < len(examples):
        tally[f"examples taken out because the {name} set has them too"] += len(examples) - len(
            kept
        )
    return kept


class _Broken(str):
    """What is wrong with a record."""


Record = tuple[int, "Example | _Broken | None"]  # line; None for a label that says nothing


def _read(
    paths: Iterable[str], given: Files, kind: str, where: str, tally: collections.Counter
) -> list[Example]:
    try:
        found = [path for path, _ in files.find(list(paths), tuple(_ENDINGS), where)]
    except UserError as error:
        raise UserError(str(error).replace("data.path", f"{where}: path")) from None
    ending = Path(found[0].lower().removesuffix(".gz")).suffix
    form = given.format or _ENDINGS.get(ending, "conll" if kind == "words" else "classes")
    if (form == "conll") != (kind == "words") or (form == "classes" and kind != "text"):
        forms = {"words": "conll", "pair": "tsv, csv, jsonl", "text": "tsv, csv, jsonl, classes"}[
            kind
        ]
        raise UserError(
            f"{where}: {found[0]} is taken as {form}, but this task reads {forms}; set {where}.format, or give other files"
        )
    if form == "classes" and len(found) < 2:
        raise UserError(
            f"{where}: format 'classes' needs a file for each class, but {where}.path names only {found[0]}"
        )
    names = _class_names(found)
    examples = []
    for path, name in zip(found, names, strict=True):
        content = (
            files.read(path).decode(given.encoding, errors="surrogateescape").removeprefix("\ufeff")
        )
        records = list(_records(form, content, path, name, given, kind, where))
        broken = [
            f"line {line} {record}" for line, record in records if isinstance(record, _Broken)
        ]
        if broken and len(broken) > given.broken * len(records):
            raise UserError(
                f"{path}: {len(broken)} of {len(records)} records are broken, more than {where}.broken={given.broken:g}."
                f" The first: {broken[0]}"
            )
        if broken:
            tally[f"broken records in {path} (the first: {broken[0]})"] += len(broken)
        if empty := sum(record is None for _, record in records):
            tally[f"examples without an agreed label in {path}"] += empty
        examples += [record for _, record in records if isinstance(record, Example)]
    return examples


def _records(
    form: str, content: str, path: str, name: str, given: Files, kind: str, where: str
) -> Iterator[Record]:
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
                yield (
                    line,
                    _example(
                        [str(row[field]) for field in fields[:-1]],
                        str(row[fields[-1]]).strip(),
                        given,
                    ),
                )


def _example(texts: list[str], label: str, given: Files) -> Example | _Broken:
    if problem := _undecoded("".join(texts) + label, given):
        return problem
    clean = tuple(" ".join(text.normalise(value).split()) for value in texts)
    if not all(clean) or not label:
        return _Broken("has an empty text" if label else "has an empty label")
    return Example(clean, (label,))


def _undecoded(value: str, given: Files) -> _Broken | None:
    bad = any("\udc80" <= character <= "\udcff" for character in value)
    return (
        _Broken(f"is no {given.encoding} text; set encoding, perhaps to latin-1") if bad else None
    )


def _fields(row: dict[str, Any], given: Files, kind: str, path: str, where: str) -> list[str]:
    """The fields of the text or texts, and of the label."""
    usual = PAIRS if kind == "pair" else [(name,) for name in TEXTS]
    set_ = (given.text, given.second)[: 1 + (kind == "pair")]
    texts: tuple[str, ...] = (
        set_ if all(set_) else next((names for names in usual if set(names) <= row.keys()), ())
    )
    label = given.label or next((name for name in LABELS if name in row), "")
    if not texts or not label or not {*texts, label} <= row.keys():
        options = f"{where}.text{f', {where}.second' * (kind == 'pair')} and {where}.label"
        raise UserError(
            f"{path} has the fields {', '.join(row)}; say by {options} which of them are read"
        )
    return [*texts, label]


def _tsv(content: str) -> Iterator[tuple[int, Any]]:
    lines = [line.rstrip("\r") for line in content.split("\n")]
    header = lines[0].split("\t")
    for number, line in enumerate(lines[1:], 2):
        if line.strip():
            cells = line.split("\t")
            same = len(cells) == len(header)
            yield (
                number,
                dict(zip(header, cells, strict=True))
                if same
                else _Broken(f"has {len(cells)} columns, not {len(header)}"),
            )


def _csv(content: str) -> Iterator[tuple[int, Any]]:
    reader = csv.reader(io.StringIO(content, newline=""))
    header = next(reader, [])
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield reader.line_num, _Broken(f"is no CSV: {error}")
            continue
        if cells is None:
            return
        if cells:
            same = len(cells) == len(header)
            found = (
                dict(zip(header, cells, strict=True))
                if same
                else _Broken(f"has {len(cells)} columns, not {len(header)}")
            )
            yield reader.line_num, found


def _jsonl(content: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, _Broken(f"is no JSON: {error}")
            else:
                yield (
                    number,
                    value
                    if isinstance(value, dict)
                    else _Broken(f"is a JSON {type(value).__name__}, not an object"),
                )


def _class_names(paths: list[str]) -> list[str]:
    """What tells the files' names apart: their stems, or their endings where the stems are alike (rt-polarity.pos, rt-polarity.neg)."""
    names = [Path(path.removesuffix(".gz")) for path in paths]
    stems = [name.stem for name in names]
    return (
        stems
        if len(set(stems)) == len(stems)
        else [name.suffix.lstrip(".") or name.stem for name in names]
    )


def _sentences(content: str, given: Files) -> Iterator[Record]:
    """Sentences of word and tag; a broken line breaks its sentence.

    Where every word of the file ends in a digit after something else, the digit is the place of a character in its word (Weibo) and is cut.
    """
    rows = [(number, line.split()) for number, line in enumerate(content.split("\n"), 1)]
    words = [cells[0] for _, cells in rows if len(cells) > 1]
    numbered = bool(words) and all(len(word) > 1 and word[-1].isdigit() for word in words)
    sentence: list[tuple[str, str]] = []
    start, problem = 0, None
    for number, cells in [*rows, (len(rows) + 1, [])]:
        if cells and cells[0] != "-DOCSTART-":
            start = start or number
            problem = problem or _undecoded("".join(cells), given)
            if len(cells) < 2:
                problem = problem or _Broken(f"has no tag, only {cells[0][:40]!r} (line {number})")
            else:
                sentence.append(
                    (text.normalise(cells[0][:-1] if numbered else cells[0]) or cells[0], cells[-1])
                )
        elif not cells and start:
            yield (
                start,
                problem or Example(*(tuple(column) for column in zip(*sentence, strict=True))),
            )
            sentence, start, problem = [], 0, None
