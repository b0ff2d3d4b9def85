"""Learning-rate schedules against their formulas."""

import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lm.optimizers import schedules
from lm.optimizers.schedules import ScheduleConfig


def rates(steps: int, **options: Any) -> list[float]:
    """The rate before each step, and the one after the last."""
    schedule = schedules.make(ScheduleConfig(**options), steps)
    return [float(schedule(step)) for step in range(steps + 1)]


def test_warm_up_rises_evenly_and_loses_no_step():
    result = rates(100, schedule="constant", warmup=0.05)
    assert result[:6] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0])
    assert result[6:] == pytest.approx([1.0] * 95)


def test_without_warm_up():
    assert rates(4, schedule="constant", warmup=0.0) == [1.0] * 5
    assert rates(4, schedule="linear", warmup=0.0) == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])


def test_cosine():
    result = rates(110, schedule="cosine", warmup=10 / 110, final=0.2)
    assert result[10:] == pytest.approx(
        [0.2 + 0.8 * (1 + math.cos(math.pi * step / 100)) / 2 for step in range(101)], abs=1e-6
    )


def test_linear():
    result = rates(100, schedule="linear", warmup=0.2, final=0.1)
    assert result[20:] == pytest.approx([1.0 - 0.9 * step / 80 for step in range(81)], abs=1e-6)


def test_warm_up_stable_decay():
    result = rates(100, schedule="wsd", warmup=0.1, cooldown=0.3, final=0.0)
    assert result[10:71] == pytest.approx([1.0] * 61)
    assert result[70:] == pytest.approx([1.0 - step / 30 for step in range(31)], abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(schedules.NAMES),
    st.integers(1, 40),
    st.floats(0.0, 0.9),
    st.floats(0.0, 1.0),
    st.floats(0.0, 1.0),
)
@example("wsd", 3, 0.5, 0.5, 0.0)  # both halves round up: together they are longer than the run
def test_every_schedule_stays_below_its_rate_and_ends_at_its_final_rate(
    name, steps, warmup, cooldown, final
):
    cooldown = min(cooldown, 1.0 - warmup)
    result = rates(steps, schedule=name, warmup=warmup, cooldown=cooldown, final=final)
    rise = round(warmup * steps)
    assert all(0.0 < rate <= 1.0 + 1e-6 for rate in result[:-1]), "no step is lost"
    assert all(b > a for a, b in zip(result[:rise], result[1 : rise + 1], strict=True))
    assert all(b <= a + 1e-6 for a, b in zip(result[rise:], result[rise + 1 :], strict=False))
    if rise < steps:
        assert result[rise] == pytest.approx(1.0)
        assert result[-1] == pytest.approx(1.0 if name == "constant" else final, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "cosin"}, "schedule='cosin' is not one of constant, cosine, linear, wsd"),
        ({"learning_rate": 0.0}, r"learning_rate=0\.0 must be above 0"),
        ({"warmup": 1.5}, r"warmup=1\.5 is a fraction"),
        ({"cooldown": -0.1}, r"cooldown=-0\.1 is a fraction"),
        ({"final": 2.0}, r"final=2\.0 is a fraction"),
        ({"schedule": "wsd", "warmup": 0.6, "cooldown": 0.6}, "their sum must not exceed 1"),
    ],
)
def test_impossible_schedules_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ScheduleConfig(**options)
