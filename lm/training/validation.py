"""Held-out batches that are the same for every model, step and seed.

Rows, order and masks depend on the split alone.
"""

from collections.abc import Callable

import jax
import numpy as np

from lm.core.plugins import UserError
from lm.core.protocols import Batch, Model, Objective, Params, Plan, Sums
from lm.data import loader
from lm.data.store import Store
from lm.parallel import sharding
from lm.training.program import Program

SEED = 0  # of order, masks and pairs: fixed, so that evaluations are comparable


class Validation:
    """Up to `tokens` token positions of a split as batches, each row at most once.

    Attributes:
      batches: this process's rows of each batch, in host memory. Building them again would cost
        more than scoring them.
      size: number of rows of a batch, over all processes.
    """

    def __init__(
        self,
        program: Program,
        objective: Objective,
        store: Store,
        split: str,
        tokens: int,
        batch_size: int,
        plan: Plan | None = None,
    ):
        """Lays out the batches.

        Args:
          program: the program that computes the losses.
          objective: objective that gives the examples and the loss: the program's own, or another
            that fits the model.
          store: tokens of the split.
          split: name of the split, for messages.
          tokens: maximum number of token positions to read.
          batch_size: number of rows of a batch; rounded up so that the mesh divides it, and reduced
            if the split has fewer rows.
          plan: plan of rows; None takes the objective's own.

        Raises:
          UserError: the split gives too few rows.
        """
        try:
            examples = loader.examples(
                objective, store, objective.plan(store) if plan is None else plan, SEED
            )
        except UserError as error:
            message = f"the {split} split: {error} (its fraction is config.data.{split})"
            raise UserError(message) from error
        parts = sharding.parts("batch", program.mesh)
        size = min(-(-batch_size // parts) * parts, len(examples) // parts * parts)
        if not size:
            raise UserError(
                f"the {split} split gives {len(examples)} examples of {program.length} tokens,"
                f" fewer than the {parts} parts of the mesh; give more text or a larger fraction"
                f" config.data.{split}"
            )
        count = max(1, min(tokens // (size * objective.positions), len(examples) // size))
        batches = loader.local_batches(
            examples, sharding.local_rows(program.batch_sharding, size), size
        )
        self.batches = [batches[index] for index in range(count)]
        self._examples, self._count = examples, count
        self.size, self.sharding = size, program.batch_sharding

        def evaluate(model: Model, batch: Batch) -> Sums:
            terms, metrics = objective.loss(model, batch, None)
            return terms | metrics

        self.evaluate = program.jit(evaluate)
        # Compiled when it is called.
        self.rows = program.jit(lambda model, batch: objective.by_row(model, batch))

    def full(self) -> list[dict[str, np.ndarray]]:
        """The batches with the rows of all processes, for baselines and counts."""
        if jax.process_count() == 1:
            return self.batches
        batches = loader.local_batches(self._examples, np.arange(self.size), self.size)
        return [batches[index] for index in range(self._count)]

    def sums(
        self, params: Params, before_batch: Callable[[], None] = lambda: None
    ) -> dict[str, tuple[float, float]]:
        """Returns (sum, weight) of each loss term and metric over all batches, without dropout.

        Args:
          params: parameters of the model.
          before_batch: function to call before each batch; its exceptions end the evaluation.
        """
        total: dict[str, tuple[float, float]] = {}
        for batch in self.batches:
            before_batch()
            sums = jax.device_get(
                self.evaluate(params, loader.place(batch, self.sharding, self.size))
            )
            sums.pop("targets", None)  # a count for training, not a metric
            for name, (value, weight) in sums.items():
                before = total.get(name, (0.0, 0.0))
                total[name] = (before[0] + float(value), before[1] + float(weight))
        return total

    def by_row(self, params: Params) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Returns nats and hits of each row, without dropout, label smoothing and z-loss.

        Args:
          params: parameters of the model.

        Returns:
          (sums, weights) by name, float64 [rows], in the order of `full`; equal on every process.
        """
        batches = [
            jax.device_get(self.rows(params, loader.place(batch, self.sharding, self.size)))
            for batch in self.batches
        ]

        def joined(name: str, part: int) -> np.ndarray:
            return np.concatenate([batch[name][part] for batch in batches], dtype=np.float64)

        return {name: (joined(name, 0), joined(name, 1)) for name in batches[0]}
