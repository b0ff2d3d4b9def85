"""Muon (Jordan 2024; optax.contrib) on the matrices of the blocks, Adam on all other parameters.

Both use Nesterov momentum. Muon replaces the update of a matrix by the nearest orthogonal matrix.
Layers are stacked on a leading axis, and heads have an axis of their own: each layer's matrix is
orthogonalized by itself, all its heads together.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
import optax
from optax.contrib import MuonDimensionNumbers

from lm.core.protocols import Params
from lm.optimizers import groups

# Input and output axes of each matrix; axis 0 is the layer.
_AXES = {
    "query": ((1,), (2, 3)),
    "key": ((1,), (2, 3)),
    "value": ((1,), (2, 3)),
    "out": ((1, 2), (3,)),
    "up": ((1,), (2,)),
    "gate": ((1,), (2,)),
    "down": ((1,), (2,)),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of Muon. The section's `learning_rate` applies to the matrices.

    Attributes:
      beta: momentum of the matrices.
      weight_decay: weight decay of the matrices, in units of the learning rate.
      adam_rate: learning rate of all other parameters, relative to that of the matrices.
      adam_b1: decay of Adam's first moment.
      adam_b2: decay of Adam's second moment.
      embedding_rate: a further factor on the learning rate of embeddings.
    """

    beta: float = 0.95
    weight_decay: float = 0.0
    adam_rate: float = 0.1
    adam_b1: float = 0.9
    adam_b2: float = 0.99
    embedding_rate: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.beta < 1 and 0 <= self.adam_b1 < 1 and 0 <= self.adam_b2 < 1):
            raise ValueError(
                f"beta={self.beta}, adam_b1={self.adam_b1} and adam_b2={self.adam_b2} must be in"
                " [0, 1)"
            )
        if self.adam_rate <= 0 or self.weight_decay < 0 or self.embedding_rate <= 0:
            raise ValueError(
                f"adam_rate={self.adam_rate} and embedding_rate={self.embedding_rate} must be"
                f" above 0, and weight_decay={self.weight_decay} must not be negative"
            )


def make(
    config: Config, learning_rate: float, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """Makes the transformation.

    Args:
      config: options of Muon.
      learning_rate: the peak learning rate of the matrices.
      schedule: step → learning rate, relative to `learning_rate`.
    """
    return optax.chain(
        optax.contrib.muon(
            learning_rate=lambda step: learning_rate * schedule(step),
            beta=config.beta,
            weight_decay=config.weight_decay,
            adam_b1=config.adam_b1,
            adam_b2=config.adam_b2,
            adam_weight_decay=0.0,
            adam_learning_rate=lambda step: learning_rate * config.adam_rate * schedule(step),
            muon_weight_dimension_numbers=dimensions,
        ),
        optax.masked(optax.scale(config.embedding_rate), groups.embeddings),
    )


def dimensions(params: Params) -> Any:
    """Returns a tree of MuonDimensionNumbers for matrices of the blocks, None for the others."""

    def of(path: groups.Path, value: jax.Array | np.ndarray) -> MuonDimensionNumbers | None:
        axes = _AXES.get(groups.name(path))
        is_stacked = any(getattr(entry, "key", None) == "blocks" for entry in path)
        if axes and is_stacked and value.ndim == 1 + len(axes[0]) + len(axes[1]):
            return MuonDimensionNumbers(*axes)
        return None

    return jax.tree_util.tree_map_with_path(of, params)
