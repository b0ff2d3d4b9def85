import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lm.data import packing
from lm.data.packing import SHORTEST, SPECIALS

ROOM = 40


def slow_best_fit(needs: list[list[int]], rooms: list[int]) -> list[list[int]]:
    """Longest first, by the first stream and ties in order.

    Each goes where the least room of the first stream is left over, among equals to the row that
    was used last.
    """
    rows: list[list[int]] = []
    left: list[list[int]] = []
    touched: list[int] = []
    for time, piece in enumerate(sorted(range(len(needs[0])), key=lambda at: -needs[0][at])):
        fits = [
            row
            for row in range(len(rows))
            if all(need[piece] <= room for need, room in zip(needs, left[row], strict=True))
        ]
        if fits:
            row = min(fits, key=lambda row: (left[row][0], -touched[row]))
        else:
            row = len(rows)
            rows.append([])
            left.append(list(rooms))
            touched.append(time)
        rows[row].append(piece)
        touched[row] = time
        left[row] = [room - need[piece] for need, room in zip(needs, left[row], strict=True)]
    return [sorted(row) for row in rows]


pieces = st.lists(st.integers(1, ROOM), max_size=60)


@settings(max_examples=300, deadline=None)
@given(pieces)
@example([])
@example([20, 20, 20, 20, 40, 1])
def test_one_stream(needs):
    assert packing.best_fit([np.array(needs, np.int64)], [ROOM]) == slow_best_fit([needs], [ROOM])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(1, ROOM), st.integers(1, 15)), max_size=60))
def test_two_streams(both):
    needs = [[a for a, _ in both], [b for _, b in both]]
    result = packing.best_fit([np.array(need, np.int64) for need in needs], [ROOM, 15])
    assert result == slow_best_fit(needs, [ROOM, 15])
    for row in result:
        assert sum(needs[0][at] for at in row) <= ROOM and sum(needs[1][at] for at in row) <= 15
    assert sorted(at for row in result for at in row) == list(range(len(both)))


def test_by_hand():
    # 9 and 8 open rows; 5 leaves least beside 9 (1); 4 and 2 go beside 8 (1 left); 2 opens a row;
    # 1 goes to the row that was used last.
    assert packing.best_fit([np.array([9, 8, 5, 4, 2, 2, 1])], [15]) == [[0, 2], [1, 3, 4, 6], [5]]


@settings(max_examples=200, deadline=None)
@given(pieces)
def test_in_order(needs):
    rows = packing.in_order([np.array(needs, np.int64), np.ones(len(needs), np.int64)], [ROOM, 5])
    assert [at for row in rows for at in row] == list(range(len(needs)))
    for number, row in enumerate(rows):
        used = sum(needs[at] for at in row)
        assert row and used <= ROOM and len(row) <= 5
        last = number + 1 == len(rows)
        assert last or len(row) == 5 or used + needs[row[-1] + 1] > ROOM, (
            "a new row only where the next does not fit"
        )


lengths = st.lists(st.integers(0, 90), max_size=40)
row_lengths = st.integers(SPECIALS + SHORTEST, 48)


def rows(plan: packing.Plan) -> list[list[tuple[int, int, int]]]:
    return [plan.pieces(row) for row in range(len(plan))]


@settings(max_examples=200, deadline=None)
@given(lengths, row_lengths)
def test_every_token_once_and_only_long_documents_are_cut(sizes, length):
    plan = packing.pack(np.array(sizes, np.int64), length, "best_fit")
    seen = sorted(
        (document, token)
        for row in rows(plan)
        for document, start, stop in row
        for token in range(start, stop)
    )
    assert seen == [
        (document, token) for document, size in enumerate(sizes) for token in range(size)
    ]
    for row in rows(plan):
        assert row and sum(stop - start + SPECIALS for _, start, stop in row) <= length
    cut = {
        document
        for row in rows(plan)
        for document, start, stop in row
        if (start, stop) != (0, sizes[document])
    }
    assert cut == {document for document, size in enumerate(sizes) if size > length - SPECIALS}
    full = [
        stop - start
        for row in rows(plan)
        for document, start, stop in row
        if document in cut and stop < sizes[document]
    ]
    assert set(full) <= {length - SPECIALS}, "long documents are cut into full rows and a rest"


@settings(max_examples=100, deadline=None)
@given(lengths, st.integers(12, 40), st.integers(12, 30), st.sampled_from(packing.METHODS))
def test_two_streams_of_documents(sizes, first, second, method):
    """A piece of n tokens takes n + 1 positions of one stream and n // 2 + 2 of the other."""
    counts = np.arange(80)
    needs = (counts + 1, counts // 2 + 2)
    most = min(first - 1, 2 * (second - 2) + 1)
    if most < SHORTEST:
        with pytest.raises(ValueError, match="too short"):
            packing.pack(np.array(sizes), (first, second), method, needs)
        return
    plan = packing.pack(np.array(sizes, np.int64), (first, second), method, needs)
    seen = sorted(
        (document, token)
        for row in rows(plan)
        for document, start, stop in row
        for token in range(start, stop)
    )
    assert seen == [
        (document, token) for document, size in enumerate(sizes) for token in range(size)
    ]
    for row in rows(plan):
        taken = [stop - start for _, start, stop in row]
        assert sum(n + 1 for n in taken) <= first and sum(n // 2 + 2 for n in taken) <= second
    if method == "best_fit":
        assert all(
            start % most == 0 and (stop == sizes[at] or stop == start + most)
            for row in rows(plan)
            for at, start, stop in row
        )


@pytest.mark.parametrize("mean", [20, 60, 300])
def test_less_padding_than_whole_documents_in_order(mean):
    length = 128
    sizes = np.random.default_rng(mean).geometric(1 / mean, 3000)
    plan = packing.pack(sizes, length, "best_fit")
    room = length - SPECIALS
    full = [
        min(room, size - at) + SPECIALS for size in sizes.tolist() for at in range(0, size, room)
    ]
    in_order = packing.in_order([np.array(full)], [length])
    used = sum(full)
    assert plan.padding(length) == pytest.approx(1 - used / (len(plan) * length))
    assert plan.padding(length) < 0.5 * (1 - used / (len(in_order) * length))
    assert plan.padding(length) < 0.03
    assert len(plan) >= -(-used // length)


def test_a_plan_depends_on_the_lengths_alone():
    sizes = np.random.default_rng(0).integers(1, 90, 200)
    assert rows(packing.pack(sizes, 48, "best_fit")) == rows(
        packing.pack(sizes.astype(np.uint16), 48, "best_fit")
    )


@settings(max_examples=100, deadline=None)
@given(lengths, row_lengths, st.sampled_from(packing.METHODS), st.integers(1, 30))
def test_without(sizes, length, method, least):
    plan = packing.pack(np.array(sizes, np.int64), length, method)
    kept = plan.without(least, "short ones")
    expected = [[piece for piece in row if piece[2] - piece[1] >= least] for row in rows(plan)]
    assert rows(kept) == [row for row in expected if row]
    gone = len(plan.document) - len(kept.document)
    assert kept.note == (f"left out: {gone} short ones" if gone else "")


def test_unknown_methods_are_refused():
    with pytest.raises(ValueError, match="packing='best' is not one of greedy, best_fit"):
        packing.pack(np.array([5]), 32, "best")
