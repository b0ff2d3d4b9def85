"""Who takes part in a collective: HLO's ways to write groups of devices, and what they mean on a mesh and on the wires.

HLO numbers devices as they stand in the mesh, row by row.
"""

import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np

Groups = list[tuple[int, ...]]
Pairs = list[tuple[int, int]]


def parse(text: str, devices: int) -> Groups:
    """The replica groups that an instruction names, in any of HLO's forms.

    {{0,2},{1,3}}                        the groups
    [2,2]<=[2,2]T(1,0)                   the numbers from 0, reshaped to the right shape, transposed, reshaped to groups × members
    mesh['a'=2,'b'=2] {'b'}              axes of a mesh; `device_ids=([2,2]T(1,0))` before the axes orders the mesh's devices so
    {} or nothing                        all devices are one group
    """
    mesh = re.search(
        r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(([^)]*(?:\([^)]*\))?[^)]*)\))?\s*\{([^}]*)\}",
        text,
    )
    if mesh:
        return _mesh_groups(*mesh.groups())
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([0-9,]+)\](?:T\(([0-9,]+)\))?", text)
    if iota:
        members = _iota(_numbers(iota[3]), _numbers(iota[4] or "")).reshape(
            int(iota[1]), int(iota[2])
        )
        return [tuple(row) for row in members.tolist()]
    listed = re.search(r"replica_groups=\{(\{[0-9,{}]*\})\}", text)
    if listed:
        return [tuple(_numbers(group)) for group in re.findall(r"\{([0-9,]*)\}", listed[1])]
    return [tuple(range(devices))]


def _mesh_groups(axes: str, order: str | None, along: str) -> Groups:
    names, sizes = zip(
        *((name, int(size)) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)), strict=True
    )
    ids = np.arange(math.prod(sizes))
    if order:
        shaped = re.match(r"\[([0-9,]+)\](?:T\(([0-9,]+)\))?", order)
        ids = (
            _iota(_numbers(shaped[1]), _numbers(shaped[2] or ""))
            if shaped
            else np.array(_numbers(order))
        )
    chosen = [names.index(name) for name in re.findall(r"'([^']+)'", along)]
    others = [axis for axis in range(len(names)) if axis not in chosen]
    members = (
        ids.reshape(sizes)
        .transpose(others + chosen)
        .reshape(-1, math.prod(sizes[axis] for axis in chosen))
    )
    return [tuple(row) for row in members.tolist()]


def pairs(text: str) -> Pairs:
    """The (source, target) pairs of a collective-permute."""
    found = re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", text)
    return (
        [(int(source), int(target)) for source, target in re.findall(r"\{(\d+),(\d+)\}", found[1])]
        if found
        else []
    )


def _iota(shape: Sequence[int], permutation: Sequence[int]) -> np.ndarray:
    ids = np.arange(math.prod(shape)).reshape(shape)
    return (ids.transpose(permutation) if permutation else ids).ravel()


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the devices of a mesh stand.

    Attributes:
      names, shape: of the mesh's axes. slice_of: [devices] the slice of each, in the mesh's order. place: [devices, dimensions] its chip's
        coordinates in its slice, None where unknown. wraps: dimensions whose ends are joined.
      link: a device's bytes a second over one ICI link in one direction. dcn: to other slices.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    slice_of: tuple[int, ...] = ()
    place: np.ndarray | None = None
    wraps: tuple[bool, ...] = ()
    link: float = 0.0
    dcn: float = 0.0

    @property
    def devices(self) -> int:
        """How many."""
        return math.prod(self.shape)

    @property
    def slices(self) -> int:
        """How many."""
        return len(set(self.slice_of)) or 1

    @property
    def slice_axes(self) -> tuple[str, ...]:
        """Mesh axes along which the slice changes."""
        if self.slices == 1:
            return ()
        of = np.array(self.slice_of).reshape(self.shape)
        return tuple(
            name for axis, name in enumerate(self.names) if (np.diff(of, axis=axis) != 0).any()
        )

    def axes(self, members: Groups) -> tuple[str, ...]:
        """The mesh axes along which the devices of a group differ."""
        places = np.array(np.unravel_index(np.array(members), self.shape))
        return tuple(
            name
            for name, place in zip(self.names, places, strict=True)
            if (place != place[:, :1]).any()
        )

    def leaves(self, members: Groups) -> bool:
        """Whether a group has devices of several slices."""
        return bool(self.slice_of) and any(
            len({self.slice_of[device] for device in group}) > 1 for group in members
        )

    def rate(self, members: Groups) -> float:
        """Bytes a second that each device can send to the others of its group: over every dimension of the torus that the group extends
        along, one link, or both where the dimension is a closed ring that the group fills; the network if it leaves the slice."""
        if self.leaves(members):
            return self.dcn
        if self.place is None or not self.link:
            return 0.0
        extents = self.place.max(0) + 1
        group = self.place[list(members[0])]
        links = 0
        for dimension in range(group.shape[1]):
            reached = len(set(group[:, dimension].tolist()))
            if reached > 1:
                links += 2 if self.wraps[dimension] and reached == extents[dimension] else 1
        # Two devices of one chip: no wire between chips; as quick as all its links.
        return (links or 2 * group.shape[1]) * self.link

    def axes_of_pairs(self, given: Pairs) -> tuple[str, ...]:
        """The mesh axes along which sources and targets differ."""
        return (
            self.axes([pair for pair in given if pair[0] != pair[1]])
            if any(source != target for source, target in given)
            else ()
        )

    def pairs_leave(self, given: Pairs) -> bool:
        """Whether a pair's devices are of two slices."""
        return self.leaves([pair for pair in given if pair[0] != pair[1]])

    def rate_of_pairs(self, given: Pairs) -> float:
        """Bytes a second of one transfer: one link, or the network."""
        return self.dcn if self.pairs_leave(given) else self.link
