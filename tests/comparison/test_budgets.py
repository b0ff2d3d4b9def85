"""Steps of arms against values by hand, and invalid budgets."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.comparison.budgets import Accounting, Budget, plan
from lm.core.plugins import UserError


def arm(tokens: int, flops: float = 1.0, loss_tokens: float = 1.0) -> Accounting:
    return Accounting(tokens, flops, loss_tokens, 10, "causal")


def test_budgets_of_all_kinds_by_hand():
    arms = {"small": arm(1000, 2e9, 1000.0), "large": arm(2000, 3e9, 300.0)}
    assert plan(Budget("tokens", 100_000), arms) == {
        "small": {"steps": 100, "tokens": 100_000, "flops": 2e11, "loss_tokens": 100_000},
        "large": {"steps": 50, "tokens": 100_000, "flops": 1.5e11, "loss_tokens": 15_000},
    }
    assert {
        name: planned["steps"] for name, planned in plan(Budget("flops", 6e11), arms).items()
    } == {
        "small": 300,
        "large": 200,
    }
    assert {
        name: planned["steps"]
        for name, planned in plan(Budget("loss_tokens", 30_000), arms).items()
    } == {"small": 30, "large": 100}
    assert arms["large"].flops_per_token == 1.5e6


def test_arms_that_cannot_match_are_named_with_a_budget_that_works():
    arms = {"a": arm(1000), "b": arm(1700), "c": arm(1000)}
    with pytest.raises(
        UserError,
        match=r"'b' would get 13\.33% more than 'a' in whole steps \(b 1 × 1,700 = 1,700;"
        " a 1 × 1,500",
    ) as raised:
        plan(Budget("tokens", 1600), {"b": arm(1700), "a": arm(1500)})
    assert "config.budget.value=" in str(raised.value)
    with pytest.raises(UserError, match="config.budget.value=17000 would match") as raised:
        plan(Budget("tokens", 4000, 0.0), arms)
    assert (
        len({planned["tokens"] for planned in plan(Budget("tokens", 17000, 0.0), arms).values()})
        == 1
    )
    assert plan(Budget("tokens", 4000, 0.3), arms)["b"]["steps"] == 2


def test_arms_are_matched_with_arms_of_the_same_multiple():
    times = {"small_4": 4.0, "large_4": 4.0}
    arms = {"small": arm(300), "small_4": arm(300), "large": arm(500), "large_4": arm(500)}
    assert {
        name: planned["steps"]
        for name, planned in plan(Budget("tokens", 1500), arms, times).items()
    } == {
        "small": 5,
        "small_4": 20,
        "large": 3,
        "large_4": 12,
    }
    odd = {"small": arm(300), "large_4": arm(500), "small_4": arm(800)}
    with pytest.raises(
        UserError,
        match=r"'small_4' would get 2\.86% more .* config\.budget\.value=2000 would match",
    ):
        plan(Budget("tokens", 1800, 0.02), odd, times)
    assert plan(Budget("tokens", 2000, 0.02), odd, times)["small_4"]["steps"] == 10
    with pytest.raises(
        UserError,
        match=r"config\.budget\.value × 0\.1=20 tokens are less than one step of arm 'small', 300",
    ):
        plan(Budget("tokens", 200), {"small": arm(300)}, {"small": 0.1})


def test_a_budget_below_one_step_is_rejected():
    with pytest.raises(UserError, match="100 tokens are less than one step of arm 'a', 1,000"):
        plan(Budget("tokens", 100), {"a": arm(1000)})


@pytest.mark.parametrize(
    "fields",
    [
        {"matched": "steps"},
        {"value": 0.0},
        {"value": float("nan")},
        {"tolerance": -0.1},
        {"tolerance": 1.0},
    ],
)
def test_impossible_budgets(fields):
    with pytest.raises(ValueError):
        Budget(**{"matched": "tokens", "value": 10.0} | fields)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=5),
    st.integers(1, 10**6),
    st.sampled_from([0.005, 0.01, 0.1]),
)
def test_planned_amounts_are_within_the_tolerance_and_the_suggestion_works(sizes, value, tolerance):
    arms = {str(index): arm(size) for index, size in enumerate(sizes)}
    try:
        planned = plan(Budget("tokens", value, tolerance), arms)
    except UserError as error:
        if "would match" not in str(error):
            return
        suggested = float(str(error).split("config.budget.value=")[1].split()[0])
        assert suggested >= value
        planned = plan(Budget("tokens", suggested, tolerance), arms)
    amounts = [of["tokens"] for of in planned.values()]
    assert max(amounts) <= (1 + tolerance) * min(amounts) * (1 + 1e-9)
    assert all(of["tokens"] == of["steps"] * arms[name].tokens for name, of in planned.items())
