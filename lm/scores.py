"""A measured number with what it takes to read it."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Score:
    """A value, what it was measured on, and its direction.

    Attributes:
      value: the number. count: examples or tokens behind it. unit: "nats/token", "bits/byte", "share" …
      better: "lower" or "higher".
    """

    value: float
    count: int
    unit: str
    better: str


def share(hits: float, count: float) -> Score:
    """A share of hits: higher is better."""
    return Score(hits / count if count else float("nan"), int(count), "share", "higher")


def nats(total: float, count: float) -> Score:
    """A mean negative log-likelihood in nats: lower is better."""
    return Score(total / count if count else float("nan"), int(count), "nats/token", "lower")
