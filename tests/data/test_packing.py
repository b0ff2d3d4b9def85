import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lm.data import packing
from lm.data.packing import SHORTEST, SPECIALS

lengths = st.lists(st.integers(0, 90), max_size=40)
row_lengths = st.integers(SPECIALS + SHORTEST, 48)


def rows(plan: packing.Plan) -> list[list[tuple[int, int, int]]]:
    return [plan.pieces(row) for row in range(len(plan))]


@settings(max_examples=300, deadline=None)
@given(lengths, row_lengths)
@example([], 16)
@example([0, 0], 16)
@example([14, 14], 16)  # exactly full rows
@example([15], 16)  # one token more than fits
def test_every_token_once_in_order_and_no_row_too_full(sizes, length):
    plan = packing.pack(np.array(sizes, np.int64), length)
    seen = [
        (document, token)
        for row in rows(plan)
        for document, start, stop in row
        for token in range(start, stop)
    ]
    assert seen == [
        (document, token) for document, size in enumerate(sizes) for token in range(size)
    ]
    for row in rows(plan):
        assert row, "a row without text"
        assert sum(stop - start + SPECIALS for _, start, stop in row) <= length


@settings(max_examples=300, deadline=None)
@given(lengths, row_lengths)
def test_no_short_cut_and_no_needless_padding(sizes, length):
    plan = packing.pack(np.array(sizes, np.int64), length)
    rest = {}  # free positions of each row but the last
    for index, row in enumerate(rows(plan)):
        for document, start, stop in row:
            assert stop - start >= SHORTEST or stop == sizes[document], (
                "a document was cut for a few tokens"
            )
        rest[index] = length - sum(stop - start + SPECIALS for _, start, stop in row)
    for index in range(len(plan) - 1):
        document, start, stop = plan.pieces(index + 1)[0]
        room = rest[index] - SPECIALS
        assert room < min(SHORTEST, sizes[document] - start), (
            f"the next piece had room in row {index}"
        )


@pytest.mark.parametrize("length", [128, 512])
def test_hardly_any_padding(length):
    sizes = np.random.default_rng(0).geometric(1 / 300, 2000)
    plan = packing.pack(sizes, length)
    assert plan.padding(length) < (SPECIALS + SHORTEST) / length / 2
    used = sum(stop - start + SPECIALS for row in rows(plan) for _, start, stop in row)
    assert plan.padding(length) == pytest.approx(1 - used / (len(plan) * length))


def test_a_plan_is_made_of_lengths_alone():
    sizes = [5, 70, 0, 33, 12]
    one, two = packing.pack(np.array(sizes), 32), packing.pack(np.array(sizes, np.uint16), 32)
    assert rows(one) == rows(two)
    # By hand: 5 tokens leave room for 23; 30 fill a row; 17 leave room for 11; 22 leave room for 6,
    # too little for a piece of 12.
    assert rows(one) == [
        [(0, 0, 5), (1, 0, 23)],
        [(1, 23, 53)],
        [(1, 53, 70), (3, 0, 11)],
        [(3, 11, 33)],
        [(4, 0, 12)],
    ]


def test_documents_added_at_the_end_change_no_earlier_row():
    sizes = np.random.default_rng(1).integers(1, 60, 50)
    full, part = packing.pack(sizes, 32), packing.pack(sizes[:30], 32)
    assert rows(full)[: len(part) - 1] == rows(part)[:-1]
