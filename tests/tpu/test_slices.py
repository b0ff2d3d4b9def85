"""Names of slices: the vendor's sizes and shapes, and the errors for names that do not exist."""

import math

import pytest

from lm.core.plugins import UserError
from tpu import slices


@pytest.mark.parametrize(
    ("name", "topology", "chips", "devices", "hosts"),
    [
        ("v2-8", "v2:2x2", 4, 8, 1),
        ("v3-8", "v3:2x2", 4, 8, 1),
        ("v3-32", "v3:4x4", 16, 32, 4),
        ("v4-8", "v4:2x2x1", 4, 4, 1),
        ("v4-32", "v4:2x2x4", 16, 16, 4),
        ("v5e-1", "v5e:1x1", 1, 1, 1),
        ("v5e-16", "v5e:4x4", 16, 16, 4),
        ("v5litepod-16", "v5e:4x4", 16, 16, 4),
        ("v5litepod-256", "v5e:16x16", 256, 256, 64),
        ("v5p-8", "v5p:2x2x1", 4, 4, 1),
        ("v5p-128", "v5p:4x4x4", 64, 64, 16),
        ("v6e-256", "v6e:16x16", 256, 256, 64),
        ("tpu7x-8", "tpu7x:2x2x1", 4, 8, 1),
        ("2xv5e-256", "v5e:16x16", 512, 512, 128),
        ("V6E-8", "v6e:2x4", 8, 8, 1),
    ],
)
def test_names(name, topology, chips, devices, hosts):
    tpu = slices.parse(name)
    assert (tpu.topology, tpu.chips, tpu.devices, tpu.hosts) == (
        topology,
        chips,
        devices,
        hosts,
    )


def test_shapes_multiply_to_the_chips():
    for shapes in slices.SHAPES.values():
        for chips, shape in shapes.items():
            assert math.prod(map(int, shape.split("x"))) == chips


def test_every_name_is_its_own():
    for name in slices.names():
        assert slices.parse(name).name == name


def test_several_slices():
    tpu = slices.parse("4xv5e-256")
    assert tpu.slices == 4 and tpu.arguments["num_slices"] == 4 and tpu.name == "4xv5e-256"
    assert slices.parse("1xv5e-256").name == "v5e-256"


def test_v4_is_one_device_a_chip():
    assert slices.parse("v4-32").arguments["chip_config_name"] == "megacore"


@pytest.mark.parametrize(
    ("name", "wraps"),
    [
        ("v5e-16", (False, False)),
        ("v5e-128", (False, True)),
        ("v5p-128", (True,) * 3),
        ("v4-8", (False,) * 3),
    ],
)
def test_which_dimensions_are_rings(name, wraps):
    assert slices.parse(name).wraps == wraps


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5e-15", "v5e-16"),
        ("v5p-7", "TensorCores"),
        ("v5e-512", "v5e-256"),
        ("v9z-8", "there are: v2, v3"),
        ("v5e16", "v5e-16"),
        ("0xv5e-16", "v5e"),
        ("", "v5e-16"),
    ],
)
def test_names_that_do_not_exist(name, message):
    with pytest.raises(UserError, match=message):
        slices.parse(name)


def test_no_slice():
    with pytest.raises(UserError, match="--tpu"):
        slices.parse_all([" "])


def test_the_next_larger_slice():
    assert slices.parse("v5e-16").larger() == "v5e-32"
    assert slices.parse("v5p-8").larger() == "v5p-16"
    assert slices.parse("2xv6e-128").larger() == "2xv6e-256"
    assert slices.parse("v6e-256").larger() is None
