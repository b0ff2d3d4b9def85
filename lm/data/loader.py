"""From a dataset of examples to batches on devices.

Batch s holds rows s·B to (s+1)·B of the endless shuffled sequence of examples, on any number of processes: each reads
the rows that its own devices hold. So a batch is a function of the seed and the step, and resuming needs no state.
"""

import time
from collections.abc import Iterator

import grain
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from lm import mesh as meshes
from lm.lookup import UserError


def endless(examples: grain.MapDataset) -> grain.MapDataset:
    """Repeats one epoch for ever, with another order and other random draws in each."""
    return examples.repeat(None)


def local_batches(examples: grain.MapDataset, rows: np.ndarray, batch_size: int) -> grain.MapDataset:
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
    """Iterates over global batches from `start` on, read ahead in the background.

    Attributes:
      waited: seconds that the caller spent waiting for input.
    """

    def __init__(self, examples: grain.MapDataset, batch_size: int, mesh: Mesh, start: int = 0, threads: int = 1, ahead: int = 4):
        if not len(examples):
            raise UserError("the corpus gives not one example of this length; give more text or a smaller data.length")
        parts = mesh.shape["data"] * mesh.shape["fsdp"]
        if batch_size % parts:
            raise UserError(f"training.batch_size={batch_size} is not a multiple of mesh data × fsdp = {parts}")
        self.sharding = NamedSharding(mesh, meshes.spec(("batch",)))
        rows = meshes.local_rows(self.sharding, batch_size)
        batches = local_batches(endless(examples), rows, batch_size)
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


def place(batch: dict[str, np.ndarray], sharding: NamedSharding, batch_size: int) -> dict[str, jax.Array]:
    """This process's rows as its part of the global arrays."""
    return {name: jax.make_array_from_process_local_data(sharding, value, (batch_size, *value.shape[1:])) for name, value in batch.items()}
