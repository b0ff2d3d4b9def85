"""Shared by tasks on sentences: a reader of files, and scorers that are compiled once."""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from lm.core.plugins import UserError
from lm.core.protocols import Tokenizer
from lm.data import files, text
from lm.inference.scoring import Scorer
from lm.training.program import Program

T = TypeVar("T")
_NAMED = 3  # maximum number of broken lines that a message names


class Scorers:
    """Scorers of one program at a time, compiled once for all its parameters."""

    def __init__(self, tokenizer: Tokenizer, end: bool = False):
        """Keeps the options of the scorers.

        Args:
          tokenizer: tokenizer of the programs.
          end: whether a causal log-probability includes the [EOS] after a sentence.
        """
        self._tokenizer, self._end = tokenizer, end
        self._program: Program | None = None
        self._scorers: dict[str, Scorer] = {}

    def __call__(self, program: Program, method: str = "") -> Scorer:
        """The scorer of this program by this method."""
        if program is not self._program:
            self._program, self._scorers = program, {}
        if method not in self._scorers:
            self._scorers[method] = Scorer(program, self._tokenizer, method, self._end)
        return self._scorers[method]


def read(
    task: str,
    paths: Sequence[str],
    suffixes: Sequence[str],
    parse: Callable[[Any, str], T],
    broken: float,
    most: int,
) -> tuple[list[T], list[str]]:
    """Reads records from JSON Lines files, and from text files with a record per line.

    Args:
      task: name of the task, for messages.
      paths: files, directories or globs from the task's option `path`.
      suffixes: suffixes of the files to read in a directory.
      parse: function from a line's value (the line itself in a .txt file) and the file's name
        without suffix to a record; raises ValueError with a description of the problem, such as
        "has no field …".
      broken: maximum fraction of broken lines in a file.
      most: maximum number of records, taken from the beginning of each file; 0 means all.

    Returns:
      The records, and for each file with broken lines a note that counts them.

    Raises:
      UserError: a path matches nothing, a file cannot be read or is empty, or too many of its lines
        are broken.
    """
    records: list[T] = []
    notes: list[str] = []
    for path, name in files.find(paths, suffixes, task, f"{task}.path"):
        is_text = name.lower().removesuffix(".gz").endswith(".txt")
        try:
            with files.open_binary(path) as file:
                lines = [(number, *text.decode(raw)) for number, raw in enumerate(file, 1)]
        except (OSError, EOFError) as error:
            raise UserError(f"{path} cannot be read: {error}") from error
        parsed: list[T] = []
        errors: list[str] = []
        for number, line, undecodable in lines:
            if not line.strip() and not undecodable:
                continue
            try:
                value = line if is_text else _json(line, undecodable)
                parsed.append(parse(value, files.stem(name)))
            except (ValueError, RecursionError) as error:
                errors.append(f"line {number} {error}")
        count = len(parsed) + len(errors)
        if not count:
            raise UserError(f"{task}.path: {path} is empty")
        examples = "; ".join(errors[:_NAMED]) + "; …" * (len(errors) > _NAMED)
        summary = f"{len(errors)} of {count} lines are broken ({examples})"
        if len(errors) > broken * count:
            raise UserError(
                f"{path}: {summary}, more than {task}.broken={broken:.0%}; repair the file, or"
                " allow a larger fraction"
            )
        notes += [f"{name}: {summary} and left out"] * bool(errors)
        records += parsed[:most] if most else parsed
    return records, notes


def print_notes(task: str, notes: Sequence[str]) -> None:
    """Prints notes on records that were left out on stderr.

    Args:
      task: name of the task.
      notes: notes of one line each.
    """
    for note in notes:
        print(f"{task}: {note}", file=sys.stderr)


def _json(line: str, undecodable: float) -> Any:
    """Parses a line; `undecodable` is the fraction of the line that is not UTF-8."""
    if undecodable > 0.01:
        raise ValueError("is not UTF-8 text")
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from error
