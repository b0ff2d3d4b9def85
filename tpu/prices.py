"""Prices of a chip-hour, to compare plans."""

import math
from collections.abc import Sequence

from lm.core.plugins import UserError

# USD per chip-hour, on demand, in the cheapest region of the United States: list prices of
# cloud.google.com/tpu/pricing as known in 2025 (v2-8 4.50 and v3-8 8.00 per hour for four chips).
# Prices change and differ by region and contract; --price=v5e=0.60 sets your own.
SOURCE = (
    "list prices on demand, cloud.google.com/tpu/pricing as known in 2025; yours by --price=v5e=…"
)
PER_CHIP_HOUR = {
    "v2": 1.125,
    "v3": 2.00,
    "v4": 3.22,
    "v5e": 1.20,
    "v5p": 4.20,
    "v6e": 2.70,
    "tpu7x": 12.00,
}


def table(given: Sequence[str] = ()) -> dict[str, float]:
    """Returns USD per chip-hour by generation.

    Args:
      given: the user's prices, "generation=USD", which override the list prices.

    Raises:
      UserError: a generation is unknown, or a value is not a price.
    """
    prices = dict(PER_CHIP_HOUR)
    for option in given:
        generation, _, text = option.partition("=")
        try:
            price = float(text)
        except ValueError:
            price = math.nan
        if generation not in prices or not 0 <= price < math.inf:
            raise UserError(
                f"--price={option!r} should be generation=USD per chip-hour, for example v5e=1.2;"
                f" generations: {', '.join(prices)}"
            )
        prices[generation] = price
    return prices


def per_billion(tokens_per_second_per_chip: float, price: float) -> float:
    """Returns USD per billion tokens.

    Args:
      tokens_per_second_per_chip: throughput, in tokens per second and chip.
      price: USD per chip-hour.
    """
    return price / 3600 * 1e9 / tokens_per_second_per_chip
