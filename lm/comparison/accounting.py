"""What a step of an arm amounts to, from its program, without training."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lm.comparison.budgets import Accounting
from lm.core.plugins import UserError
from lm.data import loader
from lm.training.program import Program

ROWS = 512  # on which targets are counted at first: 15 % of 128 tokens are then known to about 0.5 %, those of a hybrid to 3 %
MOST_ROWS = 2**18  # that are counted where it must be known better


def build(config: Mapping[str, Any], tokenizer: Any, anywhere: bool = False) -> Program:
    """The program of a config.

    Args:
      anywhere: where the mesh is not for the devices that are here, take one that is: counts and sizes do not depend on it.
    """
    try:
        return Program(config, tokenizer)
    except UserError:
        if not anywhere:
            raise
        here = {
            "mesh": {"data": -1},
            "training": config["training"] | {"batch_size": jax.device_count(), "microbatches": 1},
        }
        return Program({**config, **here}, tokenizer)


def count(program: Program, batch_size: int, loss_tokens: float) -> Accounting:
    """Of one step of `batch_size` rows; `loss_tokens`: of one row."""
    return Accounting(
        tokens=batch_size * program.row_tokens,
        flops=float(batch_size * program.flops_per_row),
        loss_tokens=batch_size * loss_tokens,
        parameters=program.parameters,
        mask=program.objective.mask,
    )


def loss_tokens(program: Program, store: Any, precision: float = math.inf) -> float:
    """Targets of a row that bear a loss, as a run counts them: the mean over rows of the training split, spread over a run, since some
    objectives ask less, or something else, as the run goes on.

    Args:
      precision: the relative standard error that is good enough; by default whatever ROWS rows give.

    Raises:
      UserError: MOST_ROWS rows do not give it.
    """
    rows, found = ROWS, _targets(program, store, ROWS)
    while (error := _relative_error(found)) > precision:
        if rows >= MOST_ROWS:
            raise UserError(
                f"its rows differ so much in the number of targets that {MOST_ROWS:,} do not tell their mean to {precision:.2%};"
                " give a larger config.budget.tolerance, or match tokens or flops"
            )
        # A little more than these rows promise, whose own spread is not well known; and step by step, as the share of a jump between two
        # phases of a run falls faster than that of chance.
        rows = min(math.ceil(1.2 * rows * (error / precision) ** 2), 8 * rows, MOST_ROWS)
        found = _targets(program, store, rows)
    return float(found.mean())


def _relative_error(found: np.ndarray) -> float:
    """Of the mean of batches, from the differences of neighbours: what changes slowly over a run is covered evenly, and no chance."""
    return (
        float(math.sqrt(np.mean(np.diff(found) ** 2) / 2 / len(found)) / found.mean())
        if found.mean()
        else 0.0
    )


def _targets(program: Program, store: Any, count: int) -> np.ndarray:
    """The mean of targets of a row in each of so many batches as `count` rows fill."""
    size = min(32, program.training.batch_size)
    batches = max(2, -(-count // size))
    rows = loader.examples(
        program.objective, store, program.objective.plan(store), program.seed, size, batches
    )

    @jax.jit
    def targets(batch):
        # Weights depend on no parameter, so the compiler leaves out the model that the loss would ask.
        params = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), program.shapes["params"]
        )
        terms, metrics = program.objective.loss(program.model(params), batch, None)
        return (
            metrics["targets"][0]
            if "targets" in metrics
            else sum(weight for _, weight in terms.values())
        )

    found = []
    for start in range(0, batches * size, size):
        examples = [rows[index] for index in range(start, start + size)]
        found.append(
            float(
                targets({name: np.stack([row[name] for row in examples]) for name in examples[0]})
            )
            / size
        )
    return np.array(found)
