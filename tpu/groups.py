"""Groups of devices in collectives: HLO's notations, and their mesh axes and network links.

HLO numbers devices by their position in the mesh, in row-major order.
"""

import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np

Groups = list[tuple[int, ...]]
Pairs = list[tuple[int, int]]


def parse(text: str, devices: int) -> Groups:
    """Returns the replica groups of an instruction, in any of HLO's notations.

        {{0,2},{1,3}}             the groups
        [2,2]<=[2,2]T(1,0)        the numbers from 0, reshaped to the shape on the right,
                                  transposed, reshaped to groups × members
        mesh['a'=2,'b'=2] {'b'}   axes of a mesh; `device_ids=([2,2]T(1,0))` before the axes gives
                                  the order of the mesh's devices
        {} or nothing             all devices are one group

    Args:
      text: the instruction's operands and attributes.
      devices: the number of devices.
    """
    mesh = re.search(
        r"replica_groups=mesh\[([^\]]*)\]"
        r"(?:, device_ids=\(([^)]*(?:\([^)]*\))?[^)]*)\))?\s*\{([^}]*)\}",
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
        iota = re.match(r"\[([0-9,]+)\](?:T\(([0-9,]+)\))?", order)
        ids = (
            _iota(_numbers(iota[1]), _numbers(iota[2] or "")) if iota else np.array(_numbers(order))
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
    """Returns the (source, target) pairs of a collective-permute.

    Args:
      text: the instruction's operands and attributes.
    """
    match = re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", text)
    return (
        [(int(source), int(target)) for source, target in re.findall(r"\{(\d+),(\d+)\}", match[1])]
        if match
        else []
    )


def _iota(shape: Sequence[int], permutation: Sequence[int]) -> np.ndarray:
    ids = np.arange(math.prod(shape)).reshape(shape)
    return (ids.transpose(permutation) if permutation else ids).ravel()


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Positions of a mesh's devices in the network.

    Attributes:
      names: names of the mesh's axes.
      shape: number of devices along each axis.
      slice_of: [devices], the slice of each device, in the mesh's order.
      coordinates: [devices, dimensions], coordinates of each device's chip in its slice; None if
        unknown.
      wraps: [dimensions], whether the ends of a dimension are connected as a ring.
      link: bytes per second of a device over one ICI link in one direction.
      dcn: bytes per second of a device to other slices.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    slice_of: tuple[int, ...] = ()
    coordinates: np.ndarray | None = None
    wraps: tuple[bool, ...] = ()
    link: float = 0.0
    dcn: float = 0.0

    @property
    def devices(self) -> int:
        """The number of devices."""
        return math.prod(self.shape)

    @property
    def slices(self) -> int:
        """The number of slices."""
        return len(set(self.slice_of)) or 1

    @property
    def slice_axes(self) -> tuple[str, ...]:
        """Mesh axes along which the slice changes."""
        if self.slices == 1:
            return ()
        slices = np.array(self.slice_of).reshape(self.shape)
        return tuple(
            name for axis, name in enumerate(self.names) if (np.diff(slices, axis=axis) != 0).any()
        )

    def axes(self, members: Groups) -> tuple[str, ...]:
        """The mesh axes along which the devices of a group differ."""
        indices = np.array(np.unravel_index(np.array(members), self.shape))
        return tuple(
            name
            for name, index in zip(self.names, indices, strict=True)
            if (index != index[:, :1]).any()
        )

    def leaves(self, members: Groups) -> bool:
        """Whether a group has devices of several slices."""
        return bool(self.slice_of) and any(
            len({self.slice_of[device] for device in group}) > 1 for group in members
        )

    def rate(self, members: Groups) -> float:
        """Returns the bytes per second that a device can send to the others of its group.

        A device uses one link of every dimension of the torus along which the group extends, or
        both links if the dimension is a closed ring that the group fills. A group of several slices
        uses the network. The rate is 0 if unknown.
        """
        if self.leaves(members):
            return self.dcn
        if self.coordinates is None or not self.link:
            return 0.0
        extents = self.coordinates.max(0) + 1
        group = self.coordinates[list(members[0])]
        links = 0
        for dimension in range(group.shape[1]):
            reached = len(set(group[:, dimension].tolist()))
            if reached > 1:
                links += 2 if self.wraps[dimension] and reached == extents[dimension] else 1
        # Two devices of one chip use no link between chips; they count at the rate of all links.
        return (links or 2 * group.shape[1]) * self.link

    def axes_of_pairs(self, given: Pairs) -> tuple[str, ...]:
        """The mesh axes along which the devices of a pair differ."""
        return (
            self.axes([pair for pair in given if pair[0] != pair[1]])
            if any(source != target for source, target in given)
            else ()
        )

    def pairs_leave(self, given: Pairs) -> bool:
        """Whether a pair connects two slices."""
        return self.leaves([pair for pair in given if pair[0] != pair[1]])

    def rate_of_pairs(self, given: Pairs) -> float:
        """Bytes per second of a transfer: over one link, or over the network."""
        return self.dcn if self.pairs_leave(given) else self.link
