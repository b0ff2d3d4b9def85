"""Prices of chips and of a billion tokens."""

import pytest

from lm.core.plugins import UserError
from tpu import prices, slices


def test_every_generation_has_a_price():
    assert set(prices.PER_CHIP_HOUR) == set(slices.SHAPES)


def test_the_users_price_overrides():
    assert prices.table(["v5e=0.6"])["v5e"] == 0.6
    assert prices.table(["v5e=0.6"])["v6e"] == prices.PER_CHIP_HOUR["v6e"]


@pytest.mark.parametrize("given", ["v5e", "v5e=cheap", "v5e=-1", "v9=1", "v5e=nan", "v5e=inf"])
def test_wrong_prices_raise(given):
    with pytest.raises(UserError, match="USD per chip-hour"):
        prices.table([given])


def test_a_billion_tokens():
    # A chip that reads 10,000 tokens per second needs 100,000 s, 27.8 hours, for a billion.
    assert prices.per_billion(10_000, 1.2) == pytest.approx(27.7778 * 1.2, rel=1e-5)
