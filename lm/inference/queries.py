"""Batched log-probability queries.

A query is one text with target ids at some of its positions. Each query takes a row of its own,
laid out as a single document. Queries are grouped by length, so that few shapes are compiled and
there is little padding. Rows are split over the mesh's devices.
"""

import collections
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Float64, Integer

from lm.core.protocols import Batch, Model, Params
from lm.data import loader, rows
from lm.nn import cross_entropy, token_loss
from lm.parallel import sharding
from lm.training.program import Program

# Approximate number of token positions of a batch: few enough for the cache of two CPU cores, and
# enough to fill an accelerator's matrix unit at these lengths.
POSITIONS = 4096
# Lengths of rows; longer rows have multiples of the last length. There are few lengths, because for
# tiny models compiling a shape takes longer than scoring 1,000 pairs.
WIDTHS = (16, 32, 64, 128)
_AHEAD = 32  # number of batches in flight while the next ones are assembled


class Query(NamedTuple):
    """One text of T tokens with P targets to score, and S inputs of an encoder.

    Attributes:
      tokens: ids that the model, or its decoder, reads, [T].
      positions: indices into `tokens` of the positions that predict targets, [P].
      targets: the id to score at each of `positions`, [P].
      prefix: number of leading tokens that all positions see, if the model has a prefix mask.
      inputs: ids that the encoder of an encoder-decoder reads, [S].
    """

    tokens: Integer[np.ndarray, "T"]
    positions: Integer[np.ndarray, "P"]
    targets: Integer[np.ndarray, "P"]
    prefix: int = 0
    inputs: Integer[np.ndarray, "S"] | None = None


class _Shape(NamedTuple):
    """Shape of a batch's rows: tokens, targets and encoder inputs (0: no encoder), rounded up."""

    tokens: int
    targets: int
    inputs: int


class QueryEngine:
    """Answers queries with the models of one program; compiled functions are kept.

    Attributes:
      masked_head: whether the head for masked tokens is applied before the vocabulary.
      pad: id of padding.
      mask: attention mask of the program's objective.
      sharding: sharding of a batch's rows.
      parts: number of parts into which the rows of a batch are split.
    """

    def __init__(self, program: Program, pad: int, masked_head: bool = False):
        """Keeps the options; nothing is compiled yet.

        Args:
          program: program of the models.
          pad: id of padding.
          masked_head: whether to apply the head for masked tokens before the vocabulary.
        """
        self.masked_head = masked_head
        self.pad, self.mask = pad, program.objective.mask
        self.sharding, self.parts = program.batch_sharding, sharding.parts("batch", program.mesh)

        def answer(model: Model, batch: Batch) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
            head = model.heads["masked"] if masked_head else None
            hidden_BTD = model.states(batch, None)
            sums = token_loss.sums(model, hidden_BTD, batch, cross_entropy.PLAIN, head)
            return sums.nll, sums.hits

        self._answer = program.jit(answer)

    def __call__(
        self, params: Params, queries: Iterable[tuple[int, Query]], count: int
    ) -> tuple[Float64[np.ndarray, "N"], Float64[np.ndarray, "N"]]:
        """Sums scores over the queries of each item: within a row in float32, over rows in float64.

        Args:
          params: parameters of the model.
          queries: (item, query) in any order; an item is a number below `count`, such as the index
            of a sentence.
          count: N, number of items.

        Returns:
          -log p of each item's targets in nats, [N]; and the number of each item's targets whose
          logit is the highest in the vocabulary, [N] (lm/nn/cross_entropy.py defines how ties
          count).
        """
        totals = np.zeros((2, count))
        waiting: dict[_Shape, list[tuple[int, Query]]] = collections.defaultdict(list)
        running: collections.deque[tuple[list[int], Any]] = collections.deque()

        def submit(shape: _Shape, size: int) -> None:
            items, members = zip(*waiting.pop(shape), strict=True)
            batch = loader.place(self._batch(members, shape, size), self.sharding, size)
            running.append((list(items), self._answer(params, batch)))
            if len(running) > _AHEAD:
                collect()

        def collect() -> None:
            items, sums = running.popleft()
            for total_N, values in zip(totals, jax.device_get(sums), strict=True):
                np.add.at(total_N, items, np.asarray(values, np.float64)[: len(items)])

        for item, query in queries:
            shape = _shape(query)
            waiting[shape].append((item, query))
            if len(waiting[shape]) == self._size(shape):
                submit(shape, self._size(shape))
        for shape in sorted(waiting):
            remaining = self._divisible(_next_power_of_two(len(waiting[shape])))
            submit(shape, min(self._size(shape), remaining))
        while running:
            collect()
        return totals[0], totals[1]

    def single(self, query: Query, size: int) -> dict[str, np.ndarray]:
        """Returns a batch with one query.

        Args:
          query: the query to put into the first row.
          size: number of rows of the batch.
        """
        return self._batch((query,), _shape(query), size)

    def _size(self, shape: _Shape) -> int:
        """Rows of a full batch."""
        return self._divisible(POSITIONS // (shape.tokens + shape.inputs))

    def _divisible(self, size: int) -> int:
        """The next number of rows that the mesh can split."""
        return max(1, -(-size // self.parts)) * self.parts

    def _batch(self, queries: Sequence[Query], shape: _Shape, size: int) -> dict[str, np.ndarray]:
        """This process's rows of a batch of `size`, in the fields of lm/nn/token_loss.py.

        Rows beyond the queries are padding of weight 0.
        """
        local = sharding.local_rows(self.sharding, size).tolist()
        fields = ("prefix",) if self.mask == "prefix" else ()
        texts = [rows.Row(shape.tokens, self.pad, fields) for _ in local]
        inputs = [rows.Row(shape.inputs, self.pad, prefix="input_") for _ in local if shape.inputs]
        targets = {
            "target_positions": np.zeros((len(local), shape.targets), np.int32),
            "targets": np.zeros((len(local), shape.targets), np.int32),
            "weights": np.zeros((len(local), shape.targets), np.float32),
        }
        for row, index in enumerate(local):
            if index >= len(queries):
                continue
            query = queries[index]
            texts[row].add(query.tokens)
            if fields:
                texts[row].arrays["prefix"][: query.prefix] = 1
            if query.inputs is not None:
                inputs[row].add(query.inputs)
            used = len(query.targets)
            targets["target_positions"][row, :used] = query.positions
            targets["targets"][row, :used] = query.targets
            targets["weights"][row, :used] = 1.0
        return targets | rows.stack(texts) | (rows.stack(inputs) if shape.inputs else {})


def _shape(query: Query) -> _Shape:
    tokens, count = _width(len(query.tokens)), len(query.positions)
    targets = 1 if count == 1 else min(tokens, max(4, _next_power_of_two(count)))
    return _Shape(tokens, targets, 0 if query.inputs is None else _width(len(query.inputs)))


def _width(length: int) -> int:
    """The smallest sufficient length of WIDTHS, or else multiple of the last length."""
    fitting = (width for width in WIDTHS if width >= length)
    return next(fitting, -(-length // WIDTHS[-1]) * WIDTHS[-1])


def _next_power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
