"""Single questions to a model, many at a time: read these ids; how likely are those, at these places?

Questions are gathered by length, so that few shapes are compiled and little is padded. A row holds one question: a text alone, as its own
document. Rows are divided over the mesh's devices.
"""

import collections
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from lm.data import loader
from lm.nn import cross_entropy, token_loss
from lm.parallel import mesh as meshes

POSITIONS = 4096  # of a batch, about: what fits a cache of two cores and still fills an accelerator's matrix unit at these lengths
WIDTHS = (
    16,
    32,
    64,
    128,
)  # of rows; then multiples of the last. Few: compiling a shape at tiny takes longer than 1,000 pairs do
_AHEAD = 32  # batches that are computed while the next are put together


class Query(NamedTuple):
    """What is read, and what is asked.

    Attributes:
      tokens: ids that the model, or its decoder, reads. at: places in them. targets: ids that are asked there, one a place.
      prefix: so many of the first tokens are seen by all, where the model has a prefix mask.
      inputs: ids that the encoder of an encoder-decoder reads.
    """

    tokens: np.ndarray
    at: np.ndarray
    targets: np.ndarray
    prefix: int = 0
    inputs: np.ndarray | None = None


class QueryEngine:
    """Asks one program's models; what is compiled is kept.

    Args:
      program: the program. pad: id of padding. head: whether the masked-language head stands before the vocabulary.
    """

    def __init__(self, program: Any, pad: int, head: bool = False):
        self.head = head
        self.pad, self.mask = pad, program.objective.mask
        self.sharding, self.parts = program.batch_sharding, meshes.parts("batch", program.mesh)

        def answer(model, batch):
            hidden_BTD = token_loss.states(model, batch, None)
            found = token_loss.sums(
                model,
                hidden_BTD,
                batch,
                cross_entropy.PLAIN,
                model.heads["masked"] if head else None,
            )
            return found.nll, found.hits

        self._answer = program.jit(answer)

    def __call__(
        self, params: Any, queries: Iterable[tuple[int, Query]], count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Sums over the questions of each owner 0 … count - 1.

        Args:
          questions: (owner, question), in any order.

        Returns:
          -log p in nats, float64 [count]; how many of the targets score above all other words, float64 [count] (lm.nn.cross_entropy says what a
          tie counts). Each row is summed in float32 by the model, the rows in float64.
        """
        total = np.zeros((2, count))
        waiting: dict[tuple[int, int, int], list[tuple[int, Query]]] = collections.defaultdict(list)
        running: collections.deque[tuple[list[int], Any]] = collections.deque()

        def ask(shape: tuple[int, int, int], size: int) -> None:
            owners, rows = zip(*waiting.pop(shape), strict=True)
            batch = self._batch(rows, shape, size)
            running.append(
                (list(owners), self._answer(params, loader.place(batch, self.sharding, size)))
            )
            if len(running) > _AHEAD:
                add()

        def add() -> None:
            owners, found = running.popleft()
            for row, values in zip(total, jax.device_get(found), strict=True):
                np.add.at(row, owners, np.asarray(values, np.float64)[: len(owners)])

        for owner, query in queries:
            shape = self._shape(query)
            waiting[shape].append((owner, query))
            if len(waiting[shape]) == self._rows(shape):
                ask(shape, self._rows(shape))
        for shape in sorted(waiting):
            ask(shape, min(self._rows(shape), self._even(_power(len(waiting[shape])))))
        while running:
            add()
        return total[0], total[1]

    def alone(self, query: Query, size: int) -> dict[str, np.ndarray]:
        """A batch of `size` rows with one question in it."""
        return self._batch((query,), self._shape(query), size)

    def _shape(self, query: Query) -> tuple[int, int, int]:
        """Positions of the row, places that are asked, and positions of the encoder's row, each rounded up."""
        width, asked = _width(len(query.tokens)), len(query.at)
        places = 1 if asked == 1 else min(width, max(4, _power(asked)))
        return width, places, 0 if query.inputs is None else _width(len(query.inputs))

    def _rows(self, shape: tuple[int, int, int]) -> int:
        return self._even(POSITIONS // (shape[0] + shape[2]))

    def _even(self, rows: int) -> int:
        """The next number of rows that the mesh divides."""
        return max(1, -(-rows // self.parts)) * self.parts

    def _batch(
        self, rows: tuple[Query, ...], shape: tuple[int, int, int], size: int
    ) -> dict[str, np.ndarray]:
        """This process's rows of the batch, in the fields of lm/nn/token_loss.py; what is not filled is padding and counts nothing."""
        T, P, S = shape
        mine = meshes.local_rows(self.sharding, size)
        batch = {
            name: np.zeros((len(mine), P), np.int32) for name in ("target_positions", "targets")
        }
        batch["weights"] = np.zeros((len(mine), P), np.float32)
        batch |= self._stream("", [rows[row].tokens if row < len(rows) else () for row in mine], T)
        if S:
            batch |= self._stream(
                "input_", [rows[row].inputs if row < len(rows) else () for row in mine], S
            )
        if self.mask == "prefix":
            batch["prefix"] = np.zeros((len(mine), T), np.int32)
        for index, row in enumerate(mine):
            if row < len(rows):
                query, asked = rows[row], len(rows[row].at)
                batch["target_positions"][index, :asked] = query.at
                batch["targets"][index, :asked] = query.targets
                batch["weights"][index, :asked] = 1.0
                if self.mask == "prefix":
                    batch["prefix"][index, : query.prefix] = 1
        return batch

    def _stream(self, name: str, texts: list[Any], width: int) -> dict[str, np.ndarray]:
        tokens, segments = (
            np.full((len(texts), width), self.pad, np.int32),
            np.zeros((len(texts), width), np.int32),
        )
        for index, ids in enumerate(texts):
            tokens[index, : len(ids)] = ids
            segments[index, : len(ids)] = 1
        places = np.arange(width, dtype=np.int32)[None] * segments
        return {f"{name}tokens": tokens, f"{name}segments": segments, f"{name}positions": places}


def _width(length: int) -> int:
    return next(
        (width for width in WIDTHS if width >= length), -(-length // WIDTHS[-1]) * WIDTHS[-1]
    )


def _power(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()
