"""Tokens, FLOPs, target tokens and parameters of an arm, from its program, without training.

Target tokens (`loss_tokens`) are tokens with a loss.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from lm.comparison.budgets import Accounting
from lm.core.plugins import UserError
from lm.core.protocols import Batch, Tokenizer
from lm.data import loader
from lm.data.store import Store
from lm.parallel.mesh import DeviceMismatch
from lm.training.program import Program

# Rows on which targets are counted at first: the mean of 15 % of 128 tokens is then known to about
# 0.5 %, the mean of the hybrid objective to 3 %.
ROWS = 512
MAX_ROWS = 2**18  # maximum number of rows to count, where the mean must be more precise


def build(config: Mapping[str, Any], tokenizer: Tokenizer, any_devices: bool = False) -> Program:
    """Builds the program of a run config.

    Args:
      config: the run config.
      tokenizer: the tokenizer of the run's corpus.
      any_devices: whether to use data parallelism over all devices of this host if the mesh does
        not fit them; sizes and counts per row do not depend on the mesh.

    Raises:
      UserError: the config is invalid.
    """
    try:
        return Program(config, tokenizer)
    except DeviceMismatch:
        if not any_devices:
            raise
        fitting = {
            "mesh": {"data": -1},
            "training": config["training"] | {"batch_size": jax.device_count(), "microbatches": 1},
        }
        return Program({**config, **fitting}, tokenizer)


def count(program: Program, batch_size: int, loss_tokens: float) -> Accounting:
    """Returns the amounts that one step processes.

    Args:
      program: program of the arm.
      batch_size: number of rows of a step.
      loss_tokens: number of target tokens of one row.
    """
    return Accounting(
        tokens=batch_size * program.row_tokens,
        flops=float(batch_size * program.flops_per_row),
        loss_tokens=batch_size * loss_tokens,
        parameters=program.parameters,
        mask=program.objective.mask,
    )


def loss_tokens(program: Program, store: Store, precision: float = math.inf) -> float:
    """Returns the mean number of target tokens (tokens with a loss) per row, as a run counts them.

    It is measured on rows of the training split that are spread over a run, because the number of
    targets may change during a run.

    Args:
      program: program of the arm.
      store: token store of the training split.
      precision: relative standard error to reach; by default the error of ROWS rows.

    Raises:
      UserError: MAX_ROWS rows do not reach the precision.
    """
    rows, targets = ROWS, _targets(program, store, ROWS)
    while (error := _relative_error(targets)) > precision:
        if rows >= MAX_ROWS:
            raise UserError(
                f"the number of targets varies so much between rows that {MAX_ROWS:,} rows do not"
                f" give its mean to {precision:.2%}; set a larger config.budget.tolerance, or match"
                " tokens or flops"
            )
        # Somewhat more rows than this error suggests, since the spread is itself an estimate. At
        # most eightfold: the part of the error that comes from a jump between two phases of a run
        # shrinks faster with the number of rows than sampling error does.
        rows = min(math.ceil(1.2 * rows * (error / precision) ** 2), 8 * rows, MAX_ROWS)
        targets = _targets(program, store, rows)
    return float(targets.mean())


def _relative_error(means: Float[np.ndarray, " batches"]) -> float:
    """Relative standard error of the mean of batches, from differences of neighbours.

    What changes slowly over a run is sampled evenly, so it adds no error.
    """
    if not means.mean():
        return 0.0
    return float(math.sqrt(np.mean(np.diff(means) ** 2) / 2 / len(means)) / means.mean())


def _targets(program: Program, store: Store, count: int) -> Float[np.ndarray, " batches"]:
    """Mean number of targets per row, in each of the batches that `count` rows fill."""
    size = min(32, program.training.batch_size)
    batches = max(2, -(-count // size))
    rows = loader.examples(
        program.objective, store, program.objective.plan(store), program.seed, size, batches
    )

    @jax.jit
    def targets(batch: Batch) -> jax.Array:
        # Weights do not depend on parameters, so the compiler removes the model.
        params = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), program.shapes["params"]
        )
        terms, metrics = program.objective.loss(program.model(params), batch, None)
        if "targets" in metrics:
            return metrics["targets"][0]
        return sum(weight for _, weight in terms.values())

    means = []
    for start in range(0, batches * size, size):
        examples = [rows[index] for index in range(start, start + size)]
        batch = {name: np.stack([row[name] for row in examples]) for name in examples[0]}
        means.append(float(targets(batch)) / size)
    return np.array(means)
