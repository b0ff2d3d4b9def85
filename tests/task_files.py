"""Options under which every task is quick, and files for those that need one."""

BRIEF = {
    "train_most": 48,
    "dev_most": 16,
    "test_most": 32,
    "longest": 13,
    "rates": (0.01,),
    "epochs": 1,
    "batch_size": 16,
}
TASKS = {
    "classification": BRIEF | {"shortest": 8},
    "pair_classification": BRIEF,
    "token_classification": BRIEF,
}  # options for slow ones


TAGS = "".join(
    f"red\tB-colour\nwine\tI-colour\nin\tO\nw{number}\tB-place\n\n" for number in range(80)
)
PAIRS = '{"sentence_good": "8 9 10", "sentence_bad": "10 8 9"}\n{"sentence_good": "9 9", "sentence_bad": "8"}\n'
FILES = {
    "token_classification": ("tags.conll", TAGS),
    "minimal_pairs": ("pairs.jsonl", PAIRS),
}  # of tasks that need one


def task_options(name: str, directory) -> dict:
    """Options under which a task is quick, and its file where it needs one."""
    if name not in FILES:
        return TASKS.get(name, {})
    file, text = FILES[name]
    (directory / file).write_text(text, encoding="utf-8")
    return TASKS.get(name, {}) | {"path": (str(directory / file),)}
