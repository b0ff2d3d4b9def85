"""Checksums of a checkpoint: which files they cover, and which damage they detect."""

import pytest

from lm.training import checksums


@pytest.fixture
def folder(tmp_path):
    """A folder with checksums: three files in two items, and one beside them."""
    for name, content in {
        "state/d/array": b"0123456789" * 1000,
        "state/names": b"{}",
        "counters/metadata": b"{}",
        "written_later": b"1",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    checksums.write_checksums(tmp_path)
    return tmp_path


def flip(path, at=-1):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_unchanged_files_are_intact(folder):
    assert checksums.verify(folder)
    (folder / "written_later").write_bytes(b"2")  # belongs to no item
    (folder / "state" / "new").write_bytes(b"")
    assert checksums.verify(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: flip(folder / "state/d/array"),
            "state/d/array does not match its checksum",
        ),
        (
            lambda folder: (folder / "state/d/array").write_bytes(b"0123456789"),
            "state/d/array has 10 bytes, not 10,000",
        ),
        (lambda folder: (folder / "state/names").unlink(), "state/names is missing"),
        (
            lambda folder: (folder / "counters/metadata").write_bytes(b""),
            "counters/metadata has 0 bytes, not 2",
        ),
        (
            lambda folder: (folder / checksums.NAME).write_bytes(b""),
            "checksums.json cannot be read",
        ),
        (
            lambda folder: (folder / checksums.NAME).write_bytes(b"[]"),
            "checksums.json cannot be read",
        ),
        (
            lambda folder: flip(folder / checksums.NAME, -20),
            "checksums.json does not match its own checksum",
        ),
    ],
)
def test_any_difference_is_reported(folder, damage, message):
    damage(folder)
    with pytest.raises(checksums.Damaged) as raised:
        checksums.verify(folder)
    assert str(raised.value) == message


def test_a_file_that_cannot_be_read_is_damaged(folder, monkeypatch):
    def fail(path):
        raise OSError(5, "Input/output error", "state/names")

    monkeypatch.setattr(checksums, "_measure", fail)
    with pytest.raises(checksums.Damaged, match="state/names cannot be read: Input/output error"):
        checksums.verify(folder)


def test_one_item_alone(folder):
    flip(folder / "state/d/array")
    assert checksums.verify(folder, within="counters")


def test_without_checksums_there_is_nothing_to_compare(folder):
    (folder / checksums.NAME).unlink()
    assert not checksums.verify(folder)
