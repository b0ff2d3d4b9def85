"""Every source on small files: what it yields, reports as dropped, and refuses."""

import gzip
import json
import sys
import types

import pytest

from lm.core.plugins import UserError, configure
from lm.data import files, python_source
from lm.data.documents import Tally
from lm.data.sources import huggingface, jsonl, parquet, python_docs
from lm.data.sources import text as text_source

SENTENCE = "The quick brown fox number {} jumps over the lazy dog near the old river bank."


def lines(start: int, count: int) -> list[str]:
    return [SENTENCE.format(number) for number in range(start, start + count)]


def read(module, tally: Tally | None = None, **options):
    return list(module.documents(module.Config(**options), Tally() if tally is None else tally))


def sentences(document) -> list[str]:
    return [sentence for paragraph in document.paragraphs for sentence in paragraph]


def test_files_are_found_by_path_directory_and_glob(tmp_path):
    for name in ("b/two.md", "b/one.txt.gz", "c/three.md", "c/skipped.py", "c/.hidden.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    names = lambda *paths: [name for _, name in files.find(paths, (".md", ".txt"), "text")]
    assert names(str(tmp_path)) == ["b/one.txt.gz", "b/two.md", "c/three.md"]
    assert names(f"{tmp_path}/**/*.md") == ["b/two.md", "c/three.md"]
    assert names(f"{tmp_path}/c/skipped.py") == ["skipped.py"]
    assert names(f"{tmp_path}/b", f"{tmp_path}/b/two.md") == [
        "one.txt.gz",
        "two.md",
    ]  # each file once


@pytest.mark.parametrize("module", [text_source, jsonl, parquet])
def test_missing_paths_are_refused_before_anything_is_read(module, tmp_path):
    (tmp_path / "empty").mkdir()
    for path, message in [
        ((), "needs data.path"),
        ((f"{tmp_path}/none.x",), "no such file"),
        ((f"{tmp_path}/*.x",), "matches no file"),
        ((f"{tmp_path}/empty",), "has no file that ends in"),
    ]:
        with pytest.raises(UserError, match=message):
            module.documents(module.Config(path=path), Tally())  # not iterated: it fails at once
        with pytest.raises(UserError, match=message):
            module.signature(module.Config(path=path))


def test_signature_follows_the_files(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    config = text_source.Config(path=(str(path),))
    first = text_source.signature(config)
    assert first == text_source.signature(config)
    path.write_text("three")
    assert first != text_source.signature(config)


def test_path_comes_from_a_config_section(tmp_path):
    (tmp_path / "a.txt").write_text(SENTENCE)
    config = configure(
        text_source.Config, {"path": f"{tmp_path}/*.txt", "field": ""}, "config.data"
    )
    assert len(read(text_source, path=config.path)) == 1


def test_markdown_becomes_plain_paragraphs(tmp_path):
    (tmp_path / "page.md").write_text(
        """---
title: dropped
---
# A heading

Some **bold** and _slanted_ text with a [link](http://x.y/z_(a)) and `code` in one
paragraph, and &amp; an image ![alt](p.png) too.

* * *

```python
dropped = True

dropped_too = True
```

> A quoted line that is kept here.

- first of the items
- second of the items

| a | table |
|---|-------|

Setext heading
==============
The snake_case_name and 2 * 3 * 4 stay as they are.<!-- a
comment -->
""",
        encoding="utf-8-sig",
    )
    tally = Tally()
    (document,) = read(text_source, tally, path=(str(tmp_path),))
    assert document.name == "page.md" and document.label == "page"
    assert [" ".join(paragraph) for paragraph in document.paragraphs] == [
        "Some bold and slanted text with a link and code in one paragraph, and & an image too.",
        "A quoted line that is kept here.",
        "first of the items",
        "second of the items",
        "The snake_case_name and 2 * 3 * 4 stay as they are.",
    ]
    assert tally.dropped == {"headings, which begin documents": 2}


def test_plain_text_is_left_alone(tmp_path):
    (tmp_path / "a.txt").write_text(
        "# no heading in plain text, and _this_ is no emphasis in it either\n\n- not a list"
    )
    (document,) = read(text_source, path=(f"{tmp_path}/a.txt",))
    assert (
        sentences(document)[0]
        == "# no heading in plain text, and _this_ is no emphasis in it either"
    )


def book(chapters: int, length: int) -> str:
    parts = ["# Title: A Book", "## Author: Nobody"]
    for chapter in range(chapters):
        parts += [f"## Chapter {chapter}", *lines(chapter * length, length)]
    return "\n\n".join(parts)


def test_a_book_becomes_its_chapters_and_a_page_stays_whole(tmp_path):
    (tmp_path / "book.md").write_text(book(8, 100))  # 8 chapters of 1,600 words
    (tmp_path / "page.md").write_text(book(2, 20).replace("fox", "cat"))
    documents = read(text_source, path=(str(tmp_path),))
    assert [document.name for document in documents] == [
        *(f"book.md#{number}" for number in range(1, 9)),
        "page.md",
    ]
    assert sentences(documents[3]) == lines(300, 100)
    assert len(documents[-1].paragraphs) == 40


def test_wikitext_becomes_articles_and_a_long_text_without_headings_pieces(tmp_path):
    articles = "\n".join(
        f" = Article {i} = \n \n " + " \n ".join(lines(i * 400, 400)) + "\n = = Part = = \n"
        for i in range(3)
    )
    (tmp_path / "wiki.txt").write_text(articles)
    tally = Tally()
    documents = read(text_source, tally, path=(f"{tmp_path}/wiki.txt",))
    assert [sentences(document) for document in documents] == [
        lines(i * 400, 400) for i in range(3)
    ]
    assert tally.cut == 0
    (tmp_path / "plain.txt").write_text("\n\n".join(lines(0, 1000)))  # 16,000 words
    documents = read(text_source, tally, path=(f"{tmp_path}/plain.txt",))
    assert len(documents) == 8 and tally.cut == 7
    assert [sentence for document in documents for sentence in sentences(document)] == lines(
        0, 1000
    )


def test_short_parts_join_the_next(tmp_path):
    poems = "\n\n".join(
        f"## Poem {i}\n\n{SENTENCE.format(i)}" for i in range(1_000)
    )  # 16 words each, joined up to 200
    (tmp_path / "poems.md").write_text(poems)
    documents = read(text_source, path=(str(tmp_path),))
    assert [sentence for document in documents for sentence in sentences(document)] == lines(
        0, 1_000
    )
    assert {len(document.paragraphs) for document in documents[:-1]} == {13}


def test_bad_and_empty_files_are_counted(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 " * 50)
    (tmp_path / "b.txt").write_bytes(b"")
    (tmp_path / "c.txt").write_bytes(b"\x00\x01\x02")
    (tmp_path / "d.txt").write_bytes("字里行间。学而时习之，不亦说乎？".encode("utf-16"))
    (tmp_path / "e.txt").write_bytes(
        (" ".join(lines(0, 3))).encode() + b" caf\xe9 in the end of it"
    )
    (tmp_path / "f.txt.gz").write_bytes(gzip.compress(" ".join(lines(5, 3)).encode()))
    tally = Tally()
    documents = read(text_source, tally, path=(str(tmp_path),))
    assert [document.name for document in documents] == ["d.txt", "e.txt", "f.txt.gz"]
    assert documents[0].paragraphs == (("字里行间。", "学而时习之，不亦说乎？"),)
    assert "caf\ufffd" in documents[1].text
    assert tally.dropped == {
        "files of which over 1% is no UTF-8 text": 2,
        "empty files": 1,
        "invalid bytes, replaced by U+FFFD": 1,
    }


def test_jsonl_and_json(tmp_path):
    records = [
        {"id": number, "text": f"{SENTENCE.format(number)}\n\nAnother paragraph of it."}
        for number in range(3)
    ]
    packed = "\n".join(map(json.dumps, records)) + "\n\n"
    (tmp_path / "a.jsonl").write_text(packed)
    (tmp_path / "b.json").write_text(
        json.dumps(
            [{"title": "t", "paragraphs": ["学而时习之。不亦说乎？", "有朋自远方来。"]}],
            ensure_ascii=False,
        )
    )
    (tmp_path / "c.json").write_text(json.dumps({"content": lines(50, 2)}))
    (tmp_path / "d.json").write_text(packed.replace("fox", "cat"))  # JSON Lines under another name
    (tmp_path / "e.jsonl.gz").write_bytes(gzip.compress(packed.replace("fox", "cow").encode()))
    documents = read(jsonl, path=(str(tmp_path),))
    assert [document.name for document in documents][:5] == [
        "a.jsonl#1",
        "a.jsonl#2",
        "a.jsonl#3",
        "b.json#1",
        "c.json#1",
    ]
    assert len(documents) == 11
    assert documents[0].paragraphs == ((SENTENCE.format(0),), ("Another paragraph of it.",))
    assert documents[3].paragraphs == (("学而时习之。", "不亦说乎？"), ("有朋自远方来。",))


def test_jsonl_refuses_a_missing_field_and_lists_those_there_are(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"title": "x", "body": SENTENCE}))
    path = (f"{tmp_path}/a.jsonl",)
    with pytest.raises(UserError, match=r"line 1, has no field of the usual ones.*title, body"):
        read(jsonl, path=path)
    with pytest.raises(UserError, match=r"has no field 'bodyy'.*title, body"):
        read(jsonl, path=path, field="bodyy")
    assert len(read(jsonl, path=path, field="body")) == 1


def test_jsonl_counts_few_broken_lines_and_refuses_many(tmp_path):
    good = [json.dumps({"text": line}) for line in lines(0, 300)]
    path = tmp_path / "a.jsonl"
    for broken in ("{half", '["list"]', '{"other": 1}', '{"text": 5}'):
        tally = Tally()
        path.write_text("\n".join([*good[:200], broken, *good[200:]]))
        assert len(read(jsonl, tally, path=(str(path),))) == 300
        assert tally.dropped == {"records without text (broken JSON, or no such field)": 1}
        path.write_text("\n".join([*good[:40], broken, *[broken] * 5, *good[40:]]))
        with pytest.raises(UserError, match=r"a\.jsonl.*broken.*line 41 "):
            read(jsonl, path=(str(path),))


def test_jsonl_refuses_what_is_no_json(tmp_path):
    (tmp_path / "a.json").write_text("[{]")
    with pytest.raises(UserError, match="not valid JSON"):
        read(jsonl, path=(f"{tmp_path}/a.json",))
    (tmp_path / "b.jsonl.gz").write_bytes(b"not packed")
    with pytest.raises(UserError, match="cannot be read"):
        read(jsonl, path=(f"{tmp_path}/b.jsonl.gz",))


def test_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "text": [*lines(0, 5), None],
            "parts": [[line, "and more."] for line in lines(10, 6)],
            "size": list(range(6)),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    path = (f"{tmp_path}/a.parquet",)
    tally = Tally()
    assert [sentences(document) for document in read(parquet, tally, path=path)] == [
        [line] for line in lines(0, 5)
    ]
    assert tally.dropped == {"rows without text": 1}
    assert read(parquet, path=path, field="parts")[0].paragraphs == (
        (SENTENCE.format(10),),
        ("and more.",),
    )
    with pytest.raises(UserError, match="text, parts, size"):
        read(parquet, path=path, field="body")
    with pytest.raises(UserError, match="'size' is of type int64"):
        read(parquet, path=path, field="size")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        read(parquet, path=(f"{tmp_path}/b.parquet",))


@pytest.fixture
def hub(monkeypatch):
    """A package `datasets` that knows one dataset, and the calls it got."""
    calls = []

    def load_dataset(name, subset=None, *, split, streaming):
        calls.append((name, subset, split, streaming))
        if name != "tiny/set":
            raise FileNotFoundError(f"no dataset {name}")
        return iter(
            [{"id": number, "text": line} for number, line in enumerate(lines(0, 5))]
            + [{"id": 5, "text": None}]
        )

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    return calls


def test_huggingface(hub):
    tally = Tally()
    documents = read(huggingface, tally, name="tiny/set", subset="en", split="test")
    assert hub == [("tiny/set", "en", "test", True)]
    assert [document.name for document in documents] == [
        f"tiny/set#{number}" for number in range(1, 6)
    ]
    assert tally.dropped == {"records without text": 1}
    assert len(read(huggingface, name="tiny/set", limit=2)) == 2
    assert hub[-1] == ("tiny/set", None, "train", True)


def test_huggingface_refusals(hub, monkeypatch):
    with pytest.raises(UserError, match="needs data.name"):
        huggingface.documents(huggingface.Config(), Tally())
    with pytest.raises(UserError, match="'other/set'.*no dataset other/set"):
        huggingface.documents(huggingface.Config(name="other/set"), Tally())
    with pytest.raises(UserError, match="id, text"):
        read(huggingface, name="tiny/set", field="body")
    with pytest.raises(UserError, match="limit=-1"):
        configure(huggingface.Config, {"limit": -1}, "config.data")
    monkeypatch.setitem(sys.modules, "datasets", None)  # import fails
    with pytest.raises(UserError, match=r"pip install -e '\.\[huggingface\]'"):
        huggingface.documents(huggingface.Config(name="tiny/set"), Tally())
    assert huggingface.signature(huggingface.Config(name="a")) != huggingface.signature(
        huggingface.Config(name="b")
    )


def prose(topic: str, count: int) -> str:
    return "\n\n".join(
        f"The {topic} number {number} is one of the things that we can say about it here."
        for number in range(count)
    )


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package whose modules must never run."""
    root = tmp_path / "site" / "madeup"
    (root / "tests").mkdir(parents=True)
    (root / "inner").mkdir()
    run = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
    (root / "__init__.py").write_text(f'"""{prose("package", 5)}"""\n{run}')
    (root / "big.py").write_text(
        f'"""{prose("module", 5)}"""\n{run}'
        f'class Large:\n    """{prose("class", 5)}"""\n'
        f'    def method(self):\n        """{prose("method", 5)}"""\n\n'
        f'if True:\n    def small():\n        """{prose("small function", 1)}"""\n'
        f'add_newdoc("madeup.big", "ufunc", """{prose("ufunc", 10)}""")\n'
        f'Large.__doc__ = """{prose("attached", 10)}"""\n'
    )
    (root / "broken.py").write_text("def (")
    (root / "tests" / "skipped.py").write_text(f'"""{prose("test", 20)}"""')
    for name in ("a", "b", "c"):
        (root / "inner" / f"{name}.py").write_text(f'"""{prose(f"little {name}", 2)}"""')
    (root / "inner" / "copy.py").write_text(f'"""{prose("module", 5)}\n\n{prose("rest", 3)}"""')
    monkeypatch.syspath_prepend(str(root.parent))
    return tmp_path


def test_python_docs(package):
    tally = Tally()
    documents = read(python_docs, tally, packages=("madeup",))
    assert [document.name for document in documents] == [
        "madeup",
        "madeup.big",
        "madeup.big.Large",
        "madeup.big.ufunc",
        "madeup.big.Large.__doc__",
        "madeup.inner.copy",
        "madeup.inner.*",
    ]
    assert {document.label for document in documents} == {"madeup"}
    by_name = {document.name: document for document in documents}
    assert len(by_name["madeup.big"].paragraphs) == 6  # its own and the small function's
    assert len(by_name["madeup.big.Large"].paragraphs) == 10
    assert (
        by_name["madeup.inner.copy"].text.count("The rest") == 3
        and "The module" not in by_name["madeup.inner.copy"].text
    )
    assert len(by_name["madeup.inner.*"].paragraphs) == 6
    assert "The test" not in "".join(document.text for document in documents)
    assert tally.dropped == {"files that are not valid Python": 1, "paragraphs seen before": 5}
    assert not (package / "ran").exists()


def test_python_docs_do_not_depend_on_the_number_of_workers(package, monkeypatch):
    together = read(python_docs, packages=("madeup", "json"))
    monkeypatch.setattr(python_docs, "_BATCH", 1)  # a process for each directory
    assert read(python_docs, packages=("madeup", "json")) == together
    assert {document.label for document in together} == {"madeup", "json"}


def test_python_docs_signature_follows_the_source(package):
    config = python_docs.Config(packages=("madeup",))
    first = python_docs.signature(config)
    assert first == python_docs.signature(config)
    (package / "site" / "madeup" / "more.py").write_text('"""More."""')
    assert first != python_docs.signature(config)


def test_help_pages_are_english(package):
    tally = Tally()
    documents = read(python_docs, tally, packages=("topics",))
    assert {document.label for document in documents} == {"topics"}
    assert tally.words > 20_000
    assert any("assignment" in document.name for document in documents)
    everything = " ".join(document.text for document in documents)
    assert "::=" not in everything and ">>>" not in everything


def test_unknown_packages_are_refused():
    with pytest.raises(UserError, match="'numpyy'.*did you mean 'numpy'"):
        python_docs.documents(python_docs.Config(packages=("numpyy",)), Tally())
    with pytest.raises(UserError, match="no Python source of 'math'"):
        python_docs.documents(python_docs.Config(packages=("math",)), Tally())


def test_absent_default_packages_are_counted(monkeypatch):
    monkeypatch.setattr(python_docs, "PACKAGES", ["topics", "surely_absent"])
    tally = Tally()
    assert len(read(python_docs, tally)) > 20
    assert tally.dropped["packages that are not installed"] == 1


def test_a_worker_that_fails_is_no_silent_gap(monkeypatch):
    monkeypatch.setattr(python_docs, "_package", lambda package: [[(__file__, "m")]])
    monkeypatch.setattr(python_source, "__name__", "lm.data.no_such_module")
    with pytest.raises(RuntimeError, match="no_such_module"):
        read(python_docs, packages=("m",))
