import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.tasks import _spans

# seqeval's published examples and rules, by hand: (tags, spans by default, spans in strict IOB2).
CASES = [
    ("O O", [], []),
    ("B-PER I-PER O B-LOC", [(0, 2, "PER"), (3, 4, "LOC")], [(0, 2, "PER"), (3, 4, "LOC")]),
    ("O O O B-MISC I-MISC I-MISC O", [(3, 6, "MISC")], [(3, 6, "MISC")]),
    ("B-PER B-PER", [(0, 1, "PER"), (1, 2, "PER")], [(0, 1, "PER"), (1, 2, "PER")]),
    ("B-PER I-LOC", [(0, 1, "PER"), (1, 2, "LOC")], [(0, 1, "PER")]),
    ("O I-PER I-PER", [(1, 3, "PER")], []),
    ("I-PER B-PER I-PER", [(0, 1, "PER"), (1, 3, "PER")], [(1, 3, "PER")]),
    ("B-PER O I-PER", [(0, 1, "PER"), (2, 3, "PER")], [(0, 1, "PER")]),
    ("B-creative-work I-creative-work", [(0, 2, "creative-work")], [(0, 2, "creative-work")]),
    ("I-A I-B I-B", [(0, 1, "A"), (1, 3, "B")], []),
]


@pytest.mark.parametrize(("tags", "default", "strict"), CASES)
def test_spans(tags, default, strict):
    assert _spans.spans(tags.split()) == default
    assert _spans.spans(tags.split(), strict=True) == strict


def test_counts_by_hand():
    gold = ["O O O B-MISC I-MISC I-MISC O".split(), "B-PER I-PER O".split()]
    said = ["O O B-MISC I-MISC I-MISC I-MISC O".split(), "B-PER I-PER O".split()]
    # seqeval's own example: F1 0.5, one span of two is right.
    assert _spans.counts(gold, said) == [(0, 2), (1, 2)]
    assert (
        2
        * sum(right for right, _ in _spans.counts(gold, said))
        / sum(both for _, both in _spans.counts(gold, said))
        == 0.5
    )


@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["", "x", "y-z"])), max_size=8))
def test_what_was_tagged_is_found(runs):
    tags, expected = [], []
    for size, kind in runs:
        if kind:
            expected.append((len(tags), len(tags) + size, kind))
        tags += [f"B-{kind}", *[f"I-{kind}"] * (size - 1)] if kind else ["O"] * size
    assert _spans.spans(tags) == _spans.spans(tags, strict=True) == expected


@given(st.lists(st.sampled_from(["O", "B-a", "I-a", "B-b", "I-b"]), max_size=12))
def test_spans_of_any_tags(tags):
    loose, strict = _spans.spans(tags), _spans.spans(tags, strict=True)
    assert {start for start, _, _ in strict} == {at for at, tag in enumerate(tags) if tag[0] == "B"}
    assert set(strict) <= set(loose)
    covered = [at for start, end, kind in loose for at in range(start, end) if tags[at][2:] == kind]
    assert covered == [at for at, tag in enumerate(tags) if tag != "O"]
