"""Options that make every task quick, and input files for the tasks that need one."""

from pathlib import Path
from typing import Any

BRIEF = {
    "train_most": 48,
    "dev_most": 16,
    "test_most": 32,
    "longest": 13,
    "rates": (0.01,),
    "epochs": 1,
    "batch_size": 16,
}
# Options of the slow tasks.
TASKS: dict[str, dict[str, Any]] = {
    "classification": BRIEF | {"shortest": 8},
    "pair_classification": BRIEF,
    "token_classification": BRIEF,
}

TAGS = "".join(
    f"red\tB-colour\nwine\tI-colour\nin\tO\nw{number}\tB-place\n\n" for number in range(80)
)
PAIRS = (
    '{"sentence_good": "8 9 10", "sentence_bad": "10 8 9"}\n'
    '{"sentence_good": "9 9", "sentence_bad": "8"}\n'
)
# Task → name and content of its input file.
FILES = {
    "token_classification": ("tags.conll", TAGS),
    "minimal_pairs": ("pairs.jsonl", PAIRS),
}


def task_options(name: str, directory: Path) -> dict[str, Any]:
    """Options that make a task quick; writes the input file where the task needs one."""
    if name not in FILES:
        return TASKS.get(name, {})
    file, text = FILES[name]
    (directory / file).write_text(text, encoding="utf-8")
    return TASKS.get(name, {}) | {"path": (str(directory / file),)}
