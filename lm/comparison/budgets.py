"""The number of steps of each arm, such that all arms consume the same amount of a quantity.

The budget names the quantity to match: tokens, FLOPs or target tokens ("loss tokens" in
configs and records: tokens with a loss).

Amounts come from the program's own accounting: positions of a row in all streams, FLOPs of a row by
formula (lm/nn/flops.py), and targets of a row that count in the loss.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from lm.core.plugins import UserError

MATCHED = {"tokens": "tokens", "flops": "FLOPs", "loss_tokens": "loss tokens"}


@dataclasses.dataclass(frozen=True)
class Accounting:
    """Amounts that one step of an arm processes, and the size of the arm's model.

    Attributes:
      tokens: token positions of a step, over all streams.
      flops: training FLOPs of a step.
      loss_tokens: expected target tokens (tokens with a loss) of a step, measured on rows spread
        over a run.
      parameters: number of parameters of the model.
      mask: the attention mask that the objective trains under.
    """

    tokens: int
    flops: float
    loss_tokens: float
    parameters: int
    mask: str

    @property
    def flops_per_token(self) -> float:
        """Training FLOPs per token."""
        return self.flops / self.tokens


@dataclasses.dataclass(frozen=True)
class Budget:
    """The budget of a run.

    Attributes:
      matched: quantity that is equal for all arms, a key of MATCHED.
      value: amount of the matched quantity per run.
      tolerance: allowed ratio of the largest to the smallest amount, minus 1.
    """

    matched: str = "tokens"
    value: float = 0.0
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        if self.matched not in MATCHED:
            raise ValueError(f"matched={self.matched!r} is not one of {', '.join(MATCHED)}")
        if not 0 < self.value < math.inf:
            raise ValueError(
                f"value={self.value!r} must be a number of {MATCHED[self.matched]} above 0"
            )
        if not 0 <= self.tolerance < 1:
            raise ValueError(
                f"tolerance={self.tolerance!r} must be a fraction from 0 to below 1"
                " (0.01: within 1 %)"
            )


def plan(
    budget: Budget, arms: Mapping[str, Accounting], times: Mapping[str, float] | None = None
) -> dict[str, dict[str, Any]]:
    """Chooses the number of whole steps of each arm that comes closest to its budget.

    Args:
      budget: budget of the experiment.
      arms: amounts that a step of each arm processes, by arm.
      times: arm → factor by which its budget is multiplied; 1 for arms that it omits. Amounts must
        agree within the tolerance only among arms with the same factor.

    Returns:
      For each arm {"steps", "tokens", "flops", "loss_tokens"}.

    Raises:
      UserError: whole steps cannot match the arms within the tolerance. The message names the two
        arms that differ most, their difference, and the next larger budget that works.
    """
    planned: dict[str, dict[str, Any]] = {}
    multiples = {arm: (times or {}).get(arm, 1.0) for arm in arms}
    for factor in dict.fromkeys(multiples.values()):
        group = {arm: of for arm, of in arms.items() if multiples[arm] == factor}
        scaled = dataclasses.replace(budget, value=factor * budget.value)
        planned |= _matched(scaled, group, factor)
    return {arm: planned[arm] for arm in arms}


def _matched(
    budget: Budget, arms: Mapping[str, Accounting], factor: float
) -> dict[str, dict[str, Any]]:
    """`plan` for arms of one budget, which is `factor` times that of the experiment."""
    what = MATCHED[budget.matched]
    where = "config.budget.value" + (f" × {factor:g}" if factor != 1 else "")
    steps = _steps(budget, budget.value, arms)
    for arm, count in steps.items():
        if not count:
            raise UserError(
                f"{where}={_number(budget.value)} {what} are less than one step of arm {arm!r},"
                f" {_number(_step(budget, arms[arm]))}"
            )
    amounts = {arm: steps[arm] * _step(budget, arms[arm]) for arm in arms}
    most, least = max(amounts, key=amounts.__getitem__), min(amounts, key=amounts.__getitem__)
    if not _within(amounts, budget.tolerance):
        products = "; ".join(
            f"{arm} {steps[arm]:,} × {_number(_step(budget, arms[arm]))} = {_number(amounts[arm])}"
            for arm in (most, least)
        )
        suggestion = math.ceil(_matching(budget, arms)) / factor
        raise UserError(
            f"the arms cannot be matched within {budget.tolerance:.2%} of {what}: {most!r} would"
            f" get {amounts[most] / amounts[least] - 1:.2%} more than {least!r} in whole steps"
            f" ({products}); config.budget.value={suggestion:.12g} would match, or set a larger"
            " config.budget.tolerance, or give the arms equal steps"
        )
    return {
        arm: {
            "steps": steps[arm],
            "tokens": steps[arm] * of.tokens,
            "flops": steps[arm] * of.flops,
            "loss_tokens": round(steps[arm] * of.loss_tokens),
        }
        for arm, of in arms.items()
    }


def _step(budget: Budget, accounting: Accounting) -> float:
    """What a step uses of the budget."""
    amount = float(getattr(accounting, budget.matched))
    if amount <= 0:
        raise UserError(
            f"config.budget.matched={budget.matched!r}: a step has no {MATCHED[budget.matched]}"
        )
    return amount


def _steps(budget: Budget, value: float, arms: Mapping[str, Accounting]) -> dict[str, int]:
    return {arm: math.floor(value / _step(budget, of) + 0.5) for arm, of in arms.items()}


def _within(amounts: Mapping[str, float], tolerance: float) -> bool:
    return max(amounts.values()) <= (1 + tolerance) * min(amounts.values()) * (1 + 1e-12)


def _matching(budget: Budget, arms: Mapping[str, Accounting]) -> float:
    """The next larger budget, in whole steps of the arm with the largest, at which all match."""
    largest = max(_step(budget, of) for of in arms.values())
    count = math.ceil(budget.value / largest)
    # Each amount is off by at most half of its step, so a budget of this many steps always matches.
    certain = math.ceil((2 + budget.tolerance) / max(2 * budget.tolerance, 1e-6)) + 1
    for steps in range(count, min(max(count, certain), count + 1_000_000) + 1):
        value = steps * largest
        amounts = {
            arm: number * _step(budget, arms[arm])
            for arm, number in _steps(budget, value, arms).items()
        }
        if min(amounts.values()) > 0 and _within(amounts, budget.tolerance):
            return value
    return certain * largest


def _number(value: float) -> str:
    """Whole numbers in full; fractions, and numbers from 1e12 on, in six digits."""
    if value >= 1e12 or value != round(value):
        return f"{value:.6g}"
    return f"{value:,.0f}"
