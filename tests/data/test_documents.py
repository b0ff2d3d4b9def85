"""Text to sentences, documents to splits, and what the collector keeps, cuts and drops."""

import random
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.core.plugins import UserError
from lm.data import docstrings, text
from lm.data.documents import (
    Collector,
    Document,
    NearDuplicates,
    Tally,
    normalized_hash,
    signature,
    split_of,
)


def words(count: int, seed: int = 0) -> str:
    generator = random.Random(seed)
    return (
        " ".join("".join(generator.choices(string.ascii_lowercase, k=6)) for _ in range(count))
        + "."
    )


@pytest.mark.parametrize(
    "paragraph, expected",
    [
        ("One ends. Two ends! Three ends? Four", ["One ends.", "Two ends!", "Three ends?", "Four"]),
        ("He met Mr. Smith, e.g. the baker, vs. Dr. A. B. Jones. Then he left.", None),
        ("It is 3.14 long, see Fig. 2 and Smith et al. (2019). It is fine.", None),
        (
            '"Stop!" he cried. "Why should I?" She left.',
            ['"Stop!" he cried.', '"Why should I?"', "She left."],
        ),
        ("1. The first item stays with its number. 2. So does this.", None),
        (
            "So did I. The U.S. Army came at 5 p.m. It went.",
            ["So did I.", "The U.S. Army came at 5 p.m.", "It went."],
        ),
        ("He was . . . gone. Well . . .", ["He was . . . gone.", "Well . . ."]),
        ("An item\nAnother item", ["An item", "Another item"]),
        (
            "学而时习之，不亦说乎？有朋自远方来。不知",
            ["学而时习之，不亦说乎？", "有朋自远方来。", "不知"],
        ),
        (
            "孟子曰：「亦有仁義而已矣。」王笑！何也；",
            ["孟子曰：「亦有仁義而已矣。」", "王笑！", "何也；"],
        ),
        ("你好!我是谁?不知", ["你好!", "我是谁?", "不知"]),
    ],
)
def test_sentences(paragraph, expected):
    result = text.sentences(paragraph)
    if expected is None:
        assert len(result) == 2
    else:
        assert list(result) == expected


@given(st.text(alphabet="aB1 .!?。？」\"'(\n…é", max_size=200))
@settings(max_examples=200, deadline=None)
def test_sentences_lose_no_character_but_spaces(paragraph):
    assert "".join("".join(text.sentences(paragraph)).split()) == "".join(paragraph.split())


def test_text_without_punctuation_is_cut():
    result = text.sentences(words(2_000)[:-1])
    assert max(map(len, result)) <= text.MAX_SENTENCE
    assert " ".join(result) == words(2_000)[:-1]
    assert max(map(len, text.sentences("学" * 5_000))) <= text.MAX_SENTENCE


def test_paragraphs_join_wrapped_lines_and_part_long_ones():
    assert list(text.paragraphs("a b\nc d\n \n\ne\n")) == ["a b c d", "e"]
    assert list(text.paragraphs("学而\n时习之，\n不亦")) == ["学而时习之，不亦"]
    long = [words(60, seed) for seed in range(3)]
    assert list(text.paragraphs("\n".join(long))) == long


@pytest.mark.parametrize(
    "raw, expected",
    [
        ("naïve".encode(), "naïve"),
        (b"\xef\xbb\xbfwith a mark", "with a mark"),
        ("字 and word".encode("utf-16"), "字 and word"),
    ],
)
def test_decode(raw, expected):
    assert text.decode(raw) == (expected, 0.0)


def test_decode_measures_what_is_invalid():
    content, fraction = text.decode(b"caf\xe9 " * 10)
    assert content == "caf\ufffd " * 10 and fraction == pytest.approx(0.2)
    assert text.decode(b"\x00\x01binary") == ("", 1.0)


def test_normalize_composes_and_removes_what_is_invisible():
    assert text.normalize("e\u0301a\u200bb\r\nc\u00a0 d\ufeff") == "\u00e9ab\nc d"


def test_count_words():
    assert text.count_words("three small words") == 3
    assert text.count_words("学而时习之，ok") == 6
    assert text.count_words("naïve – idea") == 3


def test_split_depends_on_the_text_alone():
    documents = [Document(f"d{i}", ((words(20, i),),)) for i in range(4_000)]
    splits = [split_of(document, 0.1, 0.05) for document in documents]
    assert abs(splits.count("validation") / 4_000 - 0.1) < 0.02
    assert abs(splits.count("test") / 4_000 - 0.05) < 0.015
    renamed = [
        split_of(Document("x", document.paragraphs, "label"), 0.1, 0.05) for document in documents
    ]
    assert renamed == splits
    assert {split_of(document, 0, 0) for document in documents} == {"train"}
    # A larger fraction only takes from the others: what was validation stays out of training.
    larger = [split_of(document, 0.2, 0.05) for document in documents]
    assert all(
        after == "validation"
        for before, after in zip(splits, larger, strict=True)
        if before == "validation"
    )


@pytest.mark.parametrize("validation, test", [(-0.1, 0), (0.5, 0.5), (0, 1)])
def test_impossible_fractions(validation, test):
    with pytest.raises(UserError, match="fractions"):
        split_of(Document("d", (("text",),)), validation, test)


def test_collector_counts_what_it_keeps_and_drops():
    tally = Tally()
    collector = Collector(tally)
    kept = list(
        collector.collect(
            "a",
            ["One two three four five six. Seven eight nine ten.", "* * *", "学而时习之。"],
            "label",
        )
    )
    assert kept == [
        Document(
            "a",
            (("One two three four five six.", "Seven eight nine ten."), ("学而时习之。",)),
            "label",
        )
    ]
    assert not list(collector.collect("b", ["Too short."]))
    assert not list(collector.collect("c", ["", "***"]))
    assert not list(
        collector.collect(
            "d", ["one  two three four FIVE six; seven eight nine ten", "学而时习之。"]
        )
    )
    assert (tally.documents, tally.paragraphs, tally.sentences, tally.words, tally.bytes) == (
        1,
        2,
        3,
        15,
        28 + 21 + 18,
    )
    assert tally.dropped == {
        "documents of under 10 words": 1,
        "empty documents": 1,
        "documents seen before": 1,
    }
    assert tally.labels == {"label": (1, 15)}
    assert "1 documents" in str(tally) and "seen before" in str(tally)
    assert tally.summary()["words"] == 15


def test_enormous_documents_are_cut_at_paragraph_borders():
    tally = Tally()
    paragraphs = [words(30, seed) for seed in range(50)]
    pieces = list(Collector(tally, max_words=400).collect("big", paragraphs))
    assert [piece.name for piece in pieces] == ["big#1", "big#2", "big#3", "big#4"]
    assert [sentence for piece in pieces for (sentence,) in piece.paragraphs] == paragraphs
    sizes = [30 * len(piece.paragraphs) for piece in pieces]
    assert max(sizes) <= 400 and min(sizes) >= 330
    assert tally.cut == 3 and tally.documents == 4


def test_an_enormous_paragraph_is_cut_at_sentences():
    paragraph = " ".join(words(20, seed).capitalize() for seed in range(100))
    pieces = list(Collector(Tally(), max_words=500).collect("big", [paragraph]))
    assert len(pieces) == 4
    assert (
        " ".join(sentence for piece in pieces for part in piece.paragraphs for sentence in part)
        == paragraph
    )


def test_near_duplicates():
    near = NearDuplicates()
    texts = [words(200, seed) for seed in range(50)]
    assert not any(near.seen(content) for content in texts)
    changed = texts[7].split()
    changed[100] = "other"
    assert near.seen(" ".join(changed))
    half = " ".join(texts[8].split()[:100] + texts[9].split()[100:])
    assert not near.seen(half)
    assert not near.seen("") and not near.seen("word")


def test_normalized_hash_ignores_case_spaces_and_punctuation():
    assert normalized_hash("The  end.") == normalized_hash("the end") != normalized_hash("the ends")
    assert normalized_hash("学而") != normalized_hash("学")


NUMPY_STYLE = """Sum the elements, see :func:`~np.add` and `the guide <http://x.y>`_ for more.

    Parameters
    ----------
    a : array_like
        Elements to sum, of any :term:``type`` [1]_.
    axis : {None, int,
            tuple of ints}, optional
        Axis along which a sum is performed. The default is to sum
        all of the ``elements`` of the input.

    Returns
    -------
    total : ndarray
        An array with the same shape as `a`, and :math:`x^2` in it.

    See Also
    --------
    add : This is dropped with its section.

    Notes
    -----
    Arithmetic is modular when using *integer* types, and no error is raised. The
    proof is found in [1]_. It is
    defined by :math:`\\\\frac{1}{2} \\\\sum_{i=0}^{n} x_i + \\\\int_0^1 f(x) dx` for all of it.

    ======  ======
    a       table
    ======  ======

    .. versionadded:: 1.2
       Dropped, as it is about a release.
    .. note:: This note is kept as prose of the text.

    Examples
    --------
    We sum a list with the function::

        code(is=dropped)

    >>> np.sum([0.5, 1.5])
    2.0

    References
    ----------
    .. [1] A. Author, "This is the title of a dropped book".
    """


def test_numpy_docstring():
    assert docstrings.clean(NUMPY_STYLE) == [
        "Sum the elements, see add and the guide for more.",
        "Elements to sum, of any type.\nAxis along which a sum is performed. The default is to sum"
        " all of the elements of the input.",
        "An array with the same shape as a, and x^2 in it.",
        "Arithmetic is modular when using integer types, and no error is raised.",
        "This note is kept as prose of the text.",
        "We sum a list with the function:",
    ]


def test_google_and_field_docstrings():
    google = """Loads the weights of a model.

    Args:
      path (str): Where the file lies on the disk, which
        must exist.
      strict: Whether to raise an error if a name is missing

    Returns:
      The weights as a tree of arrays.

    ```python
    code = 1

    more_code = 2
    ```

    After the code there is more to say.
    """
    assert docstrings.clean(google) == [
        "Loads the weights of a model.",
        "Where the file lies on the disk, which must exist.\nWhether to raise an error if a name is"
        " missing.",
        "The weights as a tree of arrays.",
        "After the code there is more to say.",
    ]
    fields = """Opens it.

    :param path: the path of the file that is opened
    :type path: str
    :returns: a handle to the open file
    """
    assert docstrings.clean(fields)[1:] == [
        "the path of the file that is opened\na handle to the open file."
    ]


@pytest.mark.parametrize(
    "paragraph, expected",
    [
        ("This returns the number of elements in the list.", True),
        ("x = foo(bar)[1:2] + {baz: qux} -> Array[float32]", False),
        ("Licensed under the Apache License, you may not use this file.", False),
        ("Copyright of this file is held by the authors.", False),
        ("%(before)s is the template of this paragraph.", False),
        ("alpha beta gamma delta epsilon", False),
    ],
)
def test_is_prose(paragraph, expected):
    assert docstrings.is_prose(paragraph) is expected


MODULE = '''"""A module."""

import os


class Cleaner:
    """Cleans."""

    def clean(self, text):
        """Strips."""
        return text.strip()  # both ends


def documented():
    """Only a docstring."""
'''


def test_cache_keys_follow_the_code_alone(tmp_path):
    path = tmp_path / "cleaner.py"

    def key(source: str) -> str:
        path.write_text(source)
        return signature("x", code=[str(path)])

    first = key(MODULE)
    assert len(first) == 32 and first == key(MODULE)
    for same in (
        MODULE.replace('"""Strips."""', '"""Removes spaces\n\n        at both ends."""'),
        MODULE.replace('        """Strips."""\n', ""),
        MODULE.replace("  # both ends", "\n\n        # Not reached."),
        MODULE.replace("text.strip()", "(\n            text.strip()\n        )"),
    ):
        assert same != MODULE and key(same) == first
    for other in (
        MODULE.replace("strip", "rstrip"),
        MODULE.replace("return text", 'text = text or "a"\n        return text'),
        MODULE.replace("documented", "undocumented"),
    ):
        assert key(other) != first
    assert signature("x", code=[str(path)]) != signature("y", code=[str(path)])
