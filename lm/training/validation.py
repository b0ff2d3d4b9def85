"""The same held-out batches for every model, step and seed: rows, order and masks are fixed by the split alone."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from lm.core.plugins import UserError
from lm.data import loader
from lm.parallel import mesh as meshes
from lm.training.program import Program

SEED = 0  # of order, masks and pairs on held-out text: fixed, so that no two evaluations differ in what they ask


class Validation:
    """Up to `tokens` tokens of a split as batches, each row at most once.

    Args:
      program: the program. objective: whose examples and loss; program.objective or another one that fits the model.
      store: the split. split: its name, for messages. tokens: the most tokens to read.
      batch_size: rows a batch; rounded up to what the mesh divides, made smaller where the split has fewer.
      plan: of rows, where it is not the objective's own.

    Attributes:
      batches: the batches, in host memory: the budget is small, and building them again would cost more than scoring.
    """

    def __init__(
        self,
        program: Program,
        objective: Any,
        store,
        split: str,
        tokens: int,
        batch_size: int,
        plan: Any = None,
    ):
        try:
            examples = loader.examples(
                objective, store, objective.plan(store) if plan is None else plan, SEED
            )
        except UserError as error:
            raise UserError(
                f"the {split} split: {error} (config.data.{split} is its share)"
            ) from error
        parts = meshes.parts("batch", program.mesh)
        size = min(-(-batch_size // parts) * parts, len(examples) // parts * parts)
        if not size:
            raise UserError(
                f"the {split} split gives {len(examples)} examples of {program.length} tokens, fewer than the {parts} parts of the mesh;"
                f" give more text or a larger config.data.{split} share"
            )
        count = max(1, min(tokens // (size * objective.positions), len(examples) // size))
        batches = loader.local_batches(
            examples, meshes.local_rows(program.batch_sharding, size), size
        )
        self.batches = [batches[index] for index in range(count)]
        self._examples, self._count = examples, count
        self.size, self.sharding = size, program.batch_sharding

        def evaluate(model, batch):
            terms, metrics = objective.loss(model, batch, None)
            return terms | metrics

        self.evaluate = program.jit(evaluate)
        # Compiled where it is called: objectives that no task asks need no `by_row`.
        self.rows = program.jit(lambda model, batch: objective.by_row(model, batch))

    def whole(self) -> list[dict[str, np.ndarray]]:
        """The batches with the rows of all processes: what was asked, for baselines and counts."""
        if jax.process_count() == 1:
            return self.batches
        batches = loader.local_batches(self._examples, np.arange(self.size), self.size)
        return [batches[index] for index in range(self._count)]

    def sums(
        self, params: Any, before_each: Callable[[], None] = lambda: None
    ) -> dict[str, tuple[float, float]]:
        """Loss terms and metrics over all batches as (sum, weight), without dropout.

        Args:
          before_each: is called before each batch; what it raises ends the evaluation.
        """
        total: dict[str, tuple[float, float]] = {}
        for batch in self.batches:
            before_each()
            sums = jax.device_get(
                self.evaluate(params, loader.place(batch, self.sharding, self.size))
            )
            sums.pop("targets", None)  # a count for training, no measure
            for name, (value, weight) in sums.items():
                before = total.get(name, (0.0, 0.0))
                total[name] = (before[0] + float(value), before[1] + float(weight))
        return total

    def by_row(self, params: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Nats and hits row by row, in the order of `whole`, without dropout: each name as (sums, weights), float64 [rows].

        The same on every process. Summed over rows they are `sums`, but for smoothing and z-loss, which they leave out.
        """
        batches = [
            jax.device_get(self.rows(params, loader.place(batch, self.sharding, self.size)))
            for batch in self.batches
        ]
        return {
            name: (np.concatenate([batch[name][0] for batch in batches], dtype=np.float64),
                   np.concatenate([batch[name][1] for batch in batches], dtype=np.float64))
            for name in batches[0]
        }  # fmt: skip
