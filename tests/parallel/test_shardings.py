"""The shardings of every config equal the golden files, and split every large array."""

import difflib

import pytest
from golden import shardings

from lm.parallel import sharding


@pytest.mark.parametrize("name", shardings.CONFIGS)
def test_shardings_are_those_of_the_golden_file(name):
    golden = (shardings.HERE / f"{name}.txt").read_text(encoding="utf-8")
    moved = list(
        difflib.unified_diff(
            golden.splitlines(),
            shardings.table(name).splitlines(),
            "golden",
            "now",
            lineterm="",
            n=0,
        )
    )
    message = "\n".join(moved[:40])
    assert not moved, f"{message}\nIf intended, run: PYTHONPATH=tests python -m golden.shardings"


@pytest.mark.parametrize("name", shardings.CONFIGS)
def test_every_large_array_is_split(name):
    """No device holds a complete matrix of the optimizer or the model: ZeRO-3."""
    for line in (shardings.HERE / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        path, shape, split = line.split("  ")
        matrix = sum(int(size) >= 128 for size in shape.strip("[]").split(", ") if size) >= 2
        assert not matrix or "fsdp" in split or "tensor" in split, line


def test_a_moved_array_is_shown():
    """The comparison fails and names the array when a rule changes."""
    with sharding.override_rules(width=()):
        lines = shardings.table("bert")
    golden = (shardings.HERE / "bert.txt").read_text(encoding="utf-8")
    moved = [
        line
        for line in difflib.ndiff(golden.splitlines(), lines.splitlines())
        if line.startswith("+ ")
    ]
    assert any(
        "params/stack/blocks/feedforward/up" in line and "(stage, -, tensor)" in line
        for line in moved
    )
