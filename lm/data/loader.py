"""From a dataset of examples to batches on devices.

Batch s holds rows s·B to (s+1)·B - 1 of the endless shuffled sequence of examples, on any number of
processes: each process reads the rows of its own devices. A batch is thus a function of the seed
and the step, and resuming needs no state.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import grain
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Integer

from lm.core.plugins import UserError
from lm.core.protocols import Example, Objective, Plan
from lm.data.store import Store
from lm.parallel import sharding


def examples(
    objective: Objective, store: Store, plan: Plan, seed: int, batch_size: int = 0, steps: int = 0
) -> grain.MapDataset:
    """The examples of an objective, in random order.

    Example i of epoch e is a pure function of the store, the seed, e, i and the progress of
    training.

    Args:
      objective: makes the examples.
      store: the documents.
      plan: `objective.plan(store)`.
      seed: seed of the order and of the objective's draws.
      batch_size: rows of a global batch.
      steps: number of training steps. If above 0, examples repeat without end, with a new order and
        new draws in each epoch, and the progress of an example is that of its step. 0 gives one
        epoch, with progress 1.
    """
    rows = grain.MapDataset.range(len(plan)).seed(seed).shuffle()
    if not steps:
        return rows.random_map(lambda row, rng: objective.example(store, plan, row, rng, 1.0))
    placed = rows.repeat(None).map_with_index(
        lambda index, row: (row, min(1.0, index // batch_size / steps))
    )
    return placed.random_map(
        lambda place, rng: objective.example(store, plan, place[0], rng, place[1])
    )


def padding(objective: Any, store: Store, plan: Any, count: int = 64) -> float:
    """Fraction of positions, of all streams, without a token.

    Args:
      objective: maker of the examples; a mixture gives the weighted mean over its members.
      store: the documents.
      plan: `objective.plan(store)`.
      count: number of examples to average over.
    """
    if objective.composed:
        return float(
            sum(
                fraction * padding(objective.members[name], store, plan.plans[name], count)
                for name, fraction in objective.fractions.items()
            )
        )
    rows = examples(objective, store, plan, 0)
    segments = [
        example[name]
        for example in (rows[index] for index in range(min(count, len(rows))))
        for name in ("segments", "input_segments")
        if name in example
    ]
    return sum(int((part == 0).sum()) for part in segments) / max(1, sum(map(len, segments)))


def local_batches(
    examples: grain.MapDataset, rows: Integer[np.ndarray, "rows"], batch_size: int
) -> grain.MapDataset:
    """A dataset whose item s is batch s of this process.

    Args:
      examples: an endless dataset.
      rows: indices of the rows of a global batch that this process holds.
      batch_size: B, rows of a global batch.
    """

    def read(index: int) -> Example:
        step, row = divmod(index, len(rows))
        return examples[step * batch_size + int(rows[row])]

    total = 2**62 // batch_size * len(rows)
    return grain.MapDataset.range(total).map(read).batch(len(rows))


class Loader:
    """Iterates over the global batches of an endless dataset, read ahead in the background.

    Attributes:
      sharding: sharding of each array of a batch.
      waited: total seconds for which the caller waited for input.
    """

    def __init__(
        self,
        examples: grain.MapDataset,
        batch_size: int,
        mesh: Mesh,
        start: int = 0,
        threads: int = 1,
        ahead: int = 4,
    ):
        """Starts to read.

        Args:
          examples: an endless dataset.
          batch_size: B, rows of a global batch.
          mesh: mesh of devices.
          start: number of the first batch.
          threads: number of threads that read.
          ahead: number of batches to prefetch.

        Raises:
          UserError: there is no example, or the mesh's batch axes do not divide B.
        """
        if not len(examples):
            raise UserError(
                "the corpus gives no example of this length; give more text or a smaller"
                " data.length"
            )
        sharding.check_batch(mesh, batch_size)
        self.sharding = NamedSharding(mesh, sharding.spec(("batch",)))
        rows = sharding.local_rows(self.sharding, batch_size)
        batches = local_batches(examples, rows, batch_size)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        self.batches = iter(batches.slice(slice(start, None)).to_iter_dataset(options))
        self.batch_size = batch_size
        self.waited = 0.0

    def __iter__(self) -> Iterator[dict[str, jax.Array]]:
        return self

    def __next__(self) -> dict[str, jax.Array]:
        begin = time.perf_counter()
        batch = next(self.batches)
        self.waited += time.perf_counter() - begin
        return place(batch, self.sharding, self.batch_size)


def place(
    batch: Mapping[str, np.ndarray], sharding: NamedSharding, batch_size: int
) -> dict[str, jax.Array]:
    """Puts this process's rows of a batch on its devices, as a part of global arrays.

    Args:
      batch: name → array of this process's rows.
      sharding: sharding of the global arrays.
      batch_size: number of rows of the global arrays.
    """
    return {
        name: jax.make_array_from_process_local_data(
            sharding, value, (batch_size, *value.shape[1:])
        )
        for name, value in batch.items()
    }
