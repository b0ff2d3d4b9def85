"""Compiler options: the generation's, overridden by the user's."""

import pytest

from lm.core.plugins import UserError
from lm.parallel import chips
from tpu import flags, slices


def test_every_generation_has_options():
    assert set(chips.COMPILER_OPTIONS) == set(slices.SHAPES)
    assert all(
        isinstance(value, str)
        for options in chips.COMPILER_OPTIONS.values()
        for value in options.values()
    )


def test_the_users_options_override():
    name = "xla_tpu_enable_latency_hiding_scheduler"
    assert flags.options("v5e")[name] == "true"
    assert flags.options("v5e", [f"{name}=false"])[name] == "false"
    assert flags.options("v5e", [f"--{name}=false"])[name] == "false"
    assert name not in flags.options("v5e", [f"{name}="])


def test_wrong_options_raise():
    with pytest.raises(UserError, match="name=value"):
        flags.options("v5e", ["xla_tpu_something"])
