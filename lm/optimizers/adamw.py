"""AdamW (Loshchilov and Hutter 2019), without decay on norms and biases."""

import dataclasses

import optax

from lm.optimizers import groups


@dataclasses.dataclass(frozen=True)
class Config:
    """b1, b2, epsilon as in the paper; embedding_rate: factor on the embeddings' learning rate."""

    b1: float = 0.9
    b2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    embedding_rate: float = 1.0

    def __post_init__(self):
        if not (0 <= self.b1 < 1 and 0 <= self.b2 < 1):
            raise ValueError(f"b1={self.b1} and b2={self.b2} must lie in [0, 1)")
        if self.epsilon <= 0 or self.weight_decay < 0 or self.embedding_rate <= 0:
            raise ValueError("epsilon and embedding_rate must be above 0, weight_decay not below")


def make(
    config: Config, learning_rate: float, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """The transformation; `schedule` gives the rate relative to `learning_rate`."""
    return optax.chain(
        optax.scale_by_adam(config.b1, config.b2, config.epsilon),
        optax.add_decayed_weights(config.weight_decay, groups.decayed),
        optax.masked(optax.scale(config.embedding_rate), groups.embeddings),
        optax.scale_by_learning_rate(lambda step: learning_rate * schedule(step)),
    )
