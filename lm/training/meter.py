"""Adds up a run's metrics, one step behind the device, and raises if one is not finite."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax

from lm.core.plugins import UserError
from lm.core.protocols import Sums
from lm.training.program import divide_sums, total_loss


class Diverged(UserError):
    """The loss or its gradient is no longer finite."""


class MetricAccumulator:
    """Accumulates the sums of metrics since the last line of the log.

    Attributes:
      loss_tokens: number of target tokens (tokens with a loss) so far: the weight of all loss
        terms, or the metric "targets" if weights are not counts.
      total: (sum, weight) of each metric by name since the last flush.
      steps: number of steps since the last flush in which a term had a weight, by term; the key
        "" counts all steps.
    """

    def __init__(
        self,
        terms: Mapping[str, float],
        counters: Mapping[str, Any],
        last_good: Callable[[], int | None],
    ):
        """Continues from the counters of a checkpoint.

        Args:
          terms: factor of each loss term, by name.
          counters: result of `counters` when the checkpoint was saved.
          last_good: function that returns the step of the newest checkpoint, for messages.
        """
        self.terms, self.last_good = terms, last_good
        self.loss_tokens = counters["loss_tokens"]
        self.total: dict[str, tuple[float, float]] = {
            name: tuple(pair) for name, pair in counters["sums"].items()
        }
        self.steps: dict[str, int] = dict(counters.get("steps", {}))
        self.pending: tuple[int, Sums] | None = None

    def add(self, step: int, sums: Sums) -> None:
        """Takes the sums of a step that may still be running; reads those of the previous step.

        Args:
          step: number of the step.
          sums: (sum, weight) of each metric by name, on the device.

        Raises:
          Diverged: a sum of the previous step is not finite.
        """
        self._read()
        self.pending = (step, sums)

    def flush(self) -> dict[str, float]:
        """Returns the metrics' means since the last flush, and the "loss" of these means."""
        self._read()
        means, steps = divide_sums(self.total), max(self.steps.values(), default=1)
        # The mean of a term covers only the steps that had the term: in a run with two phases, one
        # line may cover both.
        factors = {
            name: factor * self.steps.get(name, 0) / steps for name, factor in self.terms.items()
        }
        self.total, self.steps = {}, {}
        return {"loss": total_loss(factors, means), **means}

    def counters(self) -> dict[str, Any]:
        """The counters that a checkpoint saves."""
        self._read()
        return {"loss_tokens": self.loss_tokens, "sums": self.total, "steps": self.steps}

    def check(self, step: int, values: Mapping[str, float]) -> None:
        """Checks that all values are finite.

        Args:
          step: number of the step, for the message.
          values: metrics by name.

        Raises:
          Diverged: a value is not finite; the message names the last good checkpoint.
        """
        for name, value in values.items():
            if not math.isfinite(value):
                last = self.last_good()
                good = (
                    f"The last good checkpoint is that of step {last}."
                    if last
                    else "There is no checkpoint yet."
                )
                raise Diverged(
                    f"{name} is {value} at step {step}; training stops. {good}"
                    " Lower config.optimizer.learning_rate or raise config.optimizer.warmup, in a"
                    " new --workdir; or look at the data."
                )

    def _read(self) -> None:
        if self.pending is None:
            return
        step, sums = self.pending
        self.pending = None
        values = jax.device_get(sums)
        self.check(step, {name: float(value) for name, (value, _) in values.items()})
        counted = float(values.pop("targets", (0.0, 0.0))[0])
        self.loss_tokens += counted or sum(
            float(weight) for name, (_, weight) in values.items() if name in self.terms
        )
        self.steps[""] = self.steps.get("", 0) + 1
        for name, (value, weight) in values.items():
            before = self.total.get(name, (0.0, 0.0))
            self.total[name] = (before[0] + float(value), before[1] + float(weight))
            if name in self.terms and float(weight):
                self.steps[name] = self.steps.get(name, 0) + 1
