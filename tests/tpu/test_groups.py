"""HLO's forms of groups, and the mesh axes and wires behind them."""

import numpy as np
import pytest

from tpu import groups

COLUMNS = [(0, 2), (1, 3)]
ROWS = [(0, 1), (2, 3)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("replica_groups={{0,2},{1,3}}, x", COLUMNS),
        ("replica_groups=[2,2]<=[2,2]T(1,0), x", COLUMNS),
        ("replica_groups=[2,2]<=[4], x", ROWS),
        ("replica_groups=[1,4]<=[4], x", [(0, 1, 2, 3)]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}, x", COLUMNS),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}, x", ROWS),
        ("replica_groups=mesh['a'=1,'b'=4] {'b'}, x", [(0, 1, 2, 3)]),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}, x", ROWS),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a','b'}, x", [(0, 2, 1, 3)]),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=(0,3,1,2) {'b'}, x", [(0, 3), (1, 2)]),
        ("replica_groups={}, x", [(0, 1, 2, 3)]),
        ("channel_id=1", [(0, 1, 2, 3)]),
    ],
)
def test_forms(text, expected):
    assert groups.parse(text, 4) == expected


def test_an_iota_of_three_dimensions():
    # Devices [2, 2, 2]; groups vary in the first and the last.
    parsed = groups.parse("replica_groups=[2,4]<=[2,2,2]T(1,0,2)", 8)
    assert parsed == [(0, 1, 4, 5), (2, 3, 6, 7)]


def test_pairs():
    assert groups.pairs("source_target_pairs={{0,0},{1,2},{2,1}}, x") == [(0, 0), (1, 2), (2, 1)]
    assert groups.pairs("x") == []


LAYOUT = groups.Layout(("data", "fsdp", "tensor"), (2, 2, 2))


@pytest.mark.parametrize(
    ("members", "axes"),
    [
        ([(0, 1), (2, 3), (4, 5), (6, 7)], ("tensor",)),
        ([(0, 2), (1, 3), (4, 6), (5, 7)], ("fsdp",)),
        ([(0, 1, 4, 5), (2, 3, 6, 7)], ("data", "tensor")),
        ([tuple(range(8))], ("data", "fsdp", "tensor")),
    ],
)
def test_mesh_axes(members, axes):
    assert LAYOUT.axes(members) == axes


def test_axes_of_pairs():
    ring = [(0, 2), (2, 0), (1, 3), (3, 1), (4, 6), (6, 4), (5, 7), (7, 5)]
    assert LAYOUT.axes_of_pairs(ring) == ("fsdp",)
    assert LAYOUT.axes_of_pairs([(0, 0), (1, 1)]) == ()


def square(wraps: bool) -> groups.Layout:
    """A mesh a 4 × b 4 on 4 × 4 chips."""
    coordinates = np.array([(row, column, 0) for row in range(4) for column in range(4)])
    return groups.Layout(
        ("a", "b"), (4, 4), (0,) * 16, coordinates, (wraps, wraps, False), 50.0, 3.0
    )


@pytest.mark.parametrize(("wraps", "links"), [(False, 1), (True, 2)])
def test_the_rate_counts_the_links_that_a_group_can_use(wraps, links):
    layout = square(wraps)
    assert layout.rate([(0, 1, 2, 3)]) == links * 50
    assert layout.rate([(0, 4, 8, 12)]) == links * 50
    assert layout.rate([tuple(range(16))]) == 2 * links * 50
    assert layout.rate([(0, 1)]) == 50  # half of a ring has no way round


def test_two_slices():
    coordinates = np.array([(0, 0, 0), (0, 1, 0)] * 2)
    layout = groups.Layout(
        ("slice", "fsdp"), (2, 2), (0, 0, 1, 1), coordinates, (False,) * 3, 50.0, 3.0
    )
    assert layout.slices == 2 and layout.slice_axes == ("slice",)
    assert layout.leaves([(0, 2), (1, 3)]) and not layout.leaves([(0, 1), (2, 3)])
    assert layout.rate([(0, 2), (1, 3)]) == 3.0 and layout.rate([(0, 1), (2, 3)]) == 50.0
    assert layout.pairs_leave([(0, 2), (2, 0)]) and layout.rate_of_pairs([(0, 1)]) == 50.0
