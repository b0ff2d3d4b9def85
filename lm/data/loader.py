"""From a dataset of examples to batches on devices.

Batch s holds rows s·B to (s+1)·B of the endless shuffled sequence of examples, on any number of processes: each reads
the rows that its own devices hold. So a batch is a function of the seed and the step, and resuming needs no state.
"""

import time
from collections.abc import Iterator
from typing import Any

import grain
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from lm.core.plugins import UserError
from lm.parallel import mesh as meshes


def examples(
    objective: Any, store: Any, plan: Any, seed: int, batch_size: int = 0, steps: int = 0
) -> grain.MapDataset:
    """The examples of an objective: example i of epoch e is a pure function of (store, seed, e, i) and of the run's progress.

    Args:
      plan: `objective.plan(store)`. seed: of order and draws.
      batch_size, steps: of the run: then they repeat for ever, with another order and other draws in each epoch, and know which share of
        the run is over, alike in all rows of a batch. By default one epoch, as at the end of a run.
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


def padding(objective: Any, store: Any, plan: Any, count: int = 64) -> float:
    """Share of positions, of all streams, that hold no token; over `count` examples, of each member where there are several."""
    if objective.composed:
        parts = zip(objective.shares, objective.members.values(), plan.plans.values(), strict=True)
        return float(
            sum(share * padding(member, store, theirs, count) for share, member, theirs in parts)
        )
    rows = examples(objective, store, plan, 0)
    found = [rows[index] for index in range(min(count, len(rows)))]
    segments = [
        example[name]
        for example in found
        for name in ("segments", "input_segments")
        if name in example
    ]
    return sum(int((part == 0).sum()) for part in segments) / max(1, sum(map(len, segments)))


def local_batches(
    examples: grain.MapDataset, rows: np.ndarray, batch_size: int
) -> grain.MapDataset:
    """Batch s of this process, at index s: the given rows of the global batch, stacked.

    Args:
      examples: an endless dataset. rows: rows of a global batch that this process holds. batch_size: B.
    """

    def read(index: int):
        step, row = divmod(index, len(rows))
        return examples[step * batch_size + int(rows[row])]

    total = 2**62 // batch_size * len(rows)
    return grain.MapDataset.range(total).map(read).batch(len(rows))


class Loader:
    """Iterates over global batches of an endless dataset from `start` on, read ahead in the background.

    Attributes:
      waited: seconds that the caller spent waiting for input.
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
        if not len(examples):
            raise UserError(
                "the corpus gives not one example of this length; give more text or a smaller data.length"
            )
        meshes.check_batch(mesh, batch_size)
        self.sharding = NamedSharding(mesh, meshes.spec(("batch",)))
        rows = meshes.local_rows(self.sharding, batch_size)
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
    batch: dict[str, np.ndarray], sharding: NamedSharding, batch_size: int
) -> dict[str, jax.Array]:
    """This process's rows as its part of the global arrays."""
    return {
        name: jax.make_array_from_process_local_data(
            sharding, value, (batch_size, *value.shape[1:])
        )
        for name, value in batch.items()
    }
