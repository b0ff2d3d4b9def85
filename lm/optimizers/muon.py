"""Muon (Jordan 2024; optax.contrib) for the matrices of the blocks, Adam for everything else; both with Nesterov momentum.

Muon takes the update of a matrix to the nearest orthogonal one. Layers are stacked on a leading axis and heads have an
axis of their own; each layer's matrix is made orthogonal by itself, heads together.
"""

import dataclasses
from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers

from lm.optimizers import groups

# The axes of a stacked parameter that the product contracts, and those that it makes.
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
    """learning_rate is the matrices' rate; adam_rate the rate of all else, as a factor on it; embedding_rate on top of that."""

    beta: float = 0.95
    weight_decay: float = 0.0
    adam_rate: float = 0.1
    adam_b1: float = 0.9
    adam_b2: float = 0.99
    embedding_rate: float = 1.0

    def __post_init__(self):
        if not (0 <= self.beta < 1 and 0 <= self.adam_b1 < 1 and 0 <= self.adam_b2 < 1):
            raise ValueError(
                f"beta={self.beta}, adam_b1={self.adam_b1} and adam_b2={self.adam_b2} must lie in [0, 1)"
            )
        if self.adam_rate <= 0 or self.weight_decay < 0 or self.embedding_rate <= 0:
            raise ValueError("adam_rate and embedding_rate must be above 0, weight_decay not below")


def make(
    config: Config, learning_rate: float, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """The transformation; `schedule` gives the rate relative to `learning_rate`."""
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


def dimensions(params: Any) -> Any:
    """For each parameter its MuonDimensionNumbers, or None where Adam serves."""

    def of(path, value):
        axes = _AXES.get(groups.name(path))
        stacked = any(getattr(entry, "key", None) == "blocks" for entry in path)
        return (
            MuonDimensionNumbers(*axes)
            if axes and stacked and value.ndim == 1 + len(axes[0]) + len(axes[1])
            else None
        )

    return jax.tree_util.tree_map_with_path(of, params)
