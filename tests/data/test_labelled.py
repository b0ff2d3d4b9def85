import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.core.plugins import UserError, configure
from lm.data import labelled
from lm.data.labelled import Example, Files


@pytest.fixture
def write(tmp_path):
    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def read(kind: str, split: str = "test", **options) -> labelled.Labelled:
    given = configure(Files, options, "tasks.it")
    return labelled.read(given, kind, split, "tasks.it")


def everything(result: labelled.Labelled) -> list[Example]:
    return result.train + result.dev + result.test


def texts(examples: list[Example]) -> set[str]:
    return {example.texts[0] for example in examples}


def test_tsv_is_not_quoted(write):
    rows = [f"it's \"a {number}\t{number % 2}" for number in range(60)]
    path = write("sst.tsv", "sentence\tlabel\r\n" + "\r\n".join(rows) + "\r\n")
    result = everything(read("text", path=path))
    assert sorted((example.texts[0], example.labels[0]) for example in result) == sorted(
        tuple(row.split("\t")) for row in rows
    )


def test_csv_is_quoted(write):
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerows(
        [
            ["id", "label", "text"],
            *[[number, "ab"[number % 2], f'"x",\nline {number}'] for number in range(40)],
        ]
    )
    result = everything(read("text", path=write("a.csv", out.getvalue())))
    assert texts(result) == {f'"x", line {number}' for number in range(40)}


def test_snli_lines_and_those_without_agreement(write):
    lines = [
        {
            "sentence1": f"a {n}",
            "sentence2": f"b {n}",
            "gold_label": "-" if n % 10 == 0 else "entailment",
            "label1": "x",
        }
        for n in range(50)
    ]
    path = write("snli.jsonl", "\n".join(map(json.dumps, lines)))
    result = read("pair", path=path)
    assert len(everything(result)) == 45
    assert result.tally == {f"examples without an agreed label in {path}": 5}
    assert all(
        example.texts[0][2:] == example.texts[1][2:] and example.labels == ("entailment",)
        for example in everything(result)
    )


def test_fields_can_be_named(write):
    path = write(
        "a.jsonl",
        "\n".join(json.dumps({"q": f"one {n}", "r": f"two {n}", "y": n % 2}) for n in range(30)),
    )
    with pytest.raises(
        UserError,
        match=r"has the fields q, r, y; select those to read by tasks.it.text, tasks.it.second and"
        r" tasks.it.label",
    ):
        read("pair", path=path)
    result = everything(read("pair", path=path, text="q", second="r", label="y"))
    assert len(result) == 30 and {example.labels for example in result} == {("0",), ("1",)}


def test_a_file_a_class_in_latin_1(write):
    # \x85 is a line end for str.splitlines, but a character in such a file.
    good = write(
        "polarity.pos", "\n".join(f"très bon {n} \x85 oui" for n in range(40)).encode("latin-1")
    )
    bad = write("polarity.neg", "\n".join(f"bad {n}" for n in range(40)).encode("latin-1"))
    with pytest.raises(
        UserError,
        match=r"polarity.pos: 40 of 40 records are broken.*line 1 is not utf-8 text; set encoding,"
        r" perhaps to latin-1",
    ):
        read("text", path=f"{good},{bad}")
    result = everything(read("text", path=f"{good},{bad}", encoding="latin-1"))
    assert len(result) == 80 and {
        example.labels[0] for example in result if "bon" in example.texts[0]
    } == {"pos"}
    assert sum(example.texts[0].startswith("très bon") for example in result) == 40


def test_conll_columns(write):
    sentence = "-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VBZ O\nR2 NN B-MISC\n\t\n"
    result = everything(
        read(
            "words",
            path=write(
                "conll.train", sentence + "\n".join(f"w{n} NN O\nyes UH O\n" for n in range(30))
            ),
        )
    )
    assert Example(("EU", "rejects", "R2"), ("B-ORG", "O", "B-MISC")) in result
    assert len(result) == 31 and Example(("w7", "yes"), ("O", "O")) in result


def test_characters_that_carry_their_place(write):
    content = (
        "科0\tO\n技1\tO\n30\tB-X\n" + "\n" + "".join(f"在0\tO\n{n}0\tB-X\n\n" for n in range(20))
    )
    result = everything(read("words", path=write("weibo.conll", content)))
    assert Example(("科", "技", "3"), ("O", "O", "B-X")) in result
    assert Example(("在", "17"), ("O", "B-X")) in result


def test_broken_lines_are_counted_and_named(write):
    lines = [f"text {n}\tyes" for n in range(200)]
    lines[7] = "only text"
    path = write("a.tsv", "text\tlabel\n" + "\n".join(lines))
    result = read("text", path=path)
    assert len(everything(result)) == 199
    assert result.tally == {f"broken records in {path} (the first: line 9 has 1 columns, not 2)": 1}
    assert result.note.startswith("1 broken records in")
    with pytest.raises(
        UserError,
        match=r"1 of 200 records are broken, more than tasks.it.broken=0.001. The first: line 9 has"
        r" 1 columns",
    ):
        read("text", path=path, broken=0.001)


@pytest.mark.parametrize(
    ("name", "kind", "line", "message"),
    [
        ("a.jsonl", "text", "{oops", "is not JSON"),
        ("a.jsonl", "text", "[1]", "is a JSON list, not an object"),
        ("a.jsonl", "text", '{"text": null, "label": "x"}', "has no text"),
        ("a.jsonl", "text", '{"text": " ", "label": "x"}', "has an empty text"),
        ("a.conll", "words", "alone\n", "has no tag, only 'alone'"),
    ],
)
def test_what_a_broken_record_is(write, name, kind, line, message):
    good = '{"text": "fine", "label": "x"}\n' if kind == "text" else "fine O\n\n"
    with pytest.raises(UserError, match=message):
        read(kind, path=write(name, good + line))


@given(st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=60), st.randoms())
def test_what_is_held_out_depends_on_content_alone(words, random):
    examples = [Example((word,), ("x",)) for word in words]
    rest, out = labelled._held_out(examples, 0.3, "test")
    assert texts(rest).isdisjoint(texts(out)) and len(rest) + len(out) == len(words)
    random.shuffle(examples)
    again, too = labelled._held_out(examples, 0.3, "test")
    assert (texts(again), texts(too)) == (texts(rest), texts(out))


def test_shares_of_a_single_file(write):
    result = read(
        "text", path=write("a.tsv", "text\tlabel\n" + "\n".join(f"{n}\tx" for n in range(5000)))
    )
    assert len(result.test) == pytest.approx(1000, abs=100) and len(result.dev) == pytest.approx(
        800, abs=100
    )
    assert len(texts(everything(result))) == 5000


def test_what_is_asked_is_taken_out_of_training(write):
    train = write("train.tsv", "text\tlabel\n" + "\n".join(f"{n}\tx" for n in range(50)))
    dev = write("dev.tsv", "text\tlabel\n" + "\n".join(f"{n}\tx" for n in range(40, 60)))
    test = write("test.tsv", "text\tlabel\n" + "\n".join(f"{n}\tx" for n in range(55, 70)))
    result = read("text", path=train, dev=dev, test=test)
    assert [len(part) for part in (result.train, result.dev, result.test)] == [40, 15, 15]
    assert result.tally == {
        "examples taken out because the test set has them too": 5,
        "examples taken out because the dev set has them too": 10,
    }  # fmt: skip


def test_the_validation_split_never_reads_the_test_file(write):
    train = write("train.tsv", "text\tlabel\n" + "\n".join(f"{n}\tx" for n in range(50)))
    dev = write("dev.tsv", "text\tlabel\n" + "\n".join(f"d{n}\tx" for n in range(10)))
    result = read("text", "validation", path=train, dev=dev, test="/nowhere/test.tsv")
    assert texts(result.test) == {f"d{n}" for n in range(10)}
    without = read("text", "validation", path=train, test="/nowhere/test.tsv")
    assert without.test and texts(everything(without)) == {str(n) for n in range(50)}
    assert texts(without.test).isdisjoint(texts(without.train + without.dev)) and texts(
        without.train
    ).isdisjoint(texts(without.dev))
    alone, requested = read("text", "validation", path=train), read("text", path=train)
    assert texts(everything(alone)).isdisjoint(texts(requested.test))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            "text",
            {"path": "/nowhere/x.tsv"},
            "tasks.it: path='/nowhere/x.tsv': there is no such file",
        ),
        ("text", {"format": "xml"}, "format='xml' is not one of tsv"),
        ("text", {"encoding": "ebcdic"}, "encoding='ebcdic' is not known"),
        ("text", {"held_out": 1.5}, "must be between 0 and 1"),
        ("text", {"test": "a.tsv"}, "need path"),
    ],
)
def test_impossible_options(kind, options, message):
    with pytest.raises(UserError, match=message):
        read(kind, **options)


def test_a_file_of_another_form(write):
    one = write("only.pos", "good\n")
    for kind, path, message in [
        ("pair", one, "is taken as classes, but this task reads tsv, csv, jsonl"),
        ("words", write("a.tsv", "text\tlabel\n"), "is taken as tsv, but this task reads conll"),
        ("text", one, "needs a file for each class"),
        ("text", write("b.tsv", "text\tlabel\nfine\tx\n"), "there is no example in the"),
    ]:
        with pytest.raises(UserError, match=message):
            read(kind, path=path)
