"""What tasks on sentences have in common: reading files of them, and one scorer for each model and method."""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from lm.core.plugins import UserError
from lm.data import files, text
from lm.inference.scoring import Scorer

T = TypeVar("T")
_NAMED = 3  # broken lines that a message names


class Scorers:
    """Scorers of one program at a time: what they compiled serves all its parameters."""

    def __init__(self, tokenizer: Any, end: bool = False):
        self.tokenizer, self.end, self.program = tokenizer, end, None
        self.made: dict[str, Scorer] = {}

    def __call__(self, program: Any, method: str = "") -> Scorer:
        """The scorer of this program by this method."""
        if program is not self.program:
            self.program, self.made = program, {}
        if method not in self.made:
            self.made[method] = Scorer(program, self.tokenizer, method, self.end)
        return self.made[method]


def read(
    task: str,
    paths: Sequence[str],
    suffixes: Sequence[str],
    parse: Callable[[Any, str], T],
    share: float,
    most: int,
) -> tuple[list[T], list[str]]:
    """The records of JSON Lines files, and of text files a line each.

    Args:
      task: whose option `path` these are. paths: files, directories, globs. suffixes: of files in a directory.
      parse: makes a record of a line's value (the line itself in a .txt file) and the file's name without ending; raises ValueError with
        what is wrong, as "has no field …".
      share: of lines that may be broken. most: records of each file, the first ones; 0: all.

    Returns:
      The records, and for each file with broken lines a note that counts them.

    Raises:
      UserError: a path matches nothing, a file cannot be read or is empty, or more than the share of its lines is broken.
    """
    records: list[T] = []
    notes = []
    for path, name in files.find(paths, suffixes, task, f"{task}.path"):
        kept, broken, count = [], [], 0
        is_text = name.lower().removesuffix(".gz").endswith(".txt")
        try:
            with files.open_binary(path) as file:
                lines = [(number, *text.decode(raw)) for number, raw in enumerate(file, 1)]
        except (OSError, EOFError) as error:
            raise UserError(f"{path} cannot be read: {error}") from error
        for number, line, bad in lines:
            if line.strip() or bad:
                count += 1
                try:
                    kept.append(parse(line if is_text else _json(line, bad), files.stem(name)))
                except (ValueError, RecursionError) as error:
                    broken.append(f"line {number} {error}")
        if not count:
            raise UserError(f"{task}.path: {path} is empty")
        told = f"{len(broken)} of {count} lines are broken ({'; '.join(broken[:_NAMED])}{'; …' * (len(broken) > _NAMED)})"
        if len(broken) > share * count:
            raise UserError(
                f"{path}: {told}, more than {task}.broken={share:.0%}; repair the file, or allow a larger share"
            )
        notes += [f"{name}: {told} and left out"] * bool(broken)
        records += kept[:most] if most else kept
    return records, notes


def tell(task: str, notes: Sequence[str]) -> list[str]:
    """Says on stderr what was left out, and gives it back, for the report."""
    for note in notes:
        print(f"{task}: {note}", file=sys.stderr)
    return list(notes)


def _json(line: str, bad: float) -> Any:
    if bad > 0.01:
        raise ValueError("is no UTF-8 text")
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(f"is no JSON: {error}") from error
