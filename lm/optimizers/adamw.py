"""AdamW (Loshchilov and Hutter 2019), without weight decay on norms and biases."""

import dataclasses

import optax

from lm.optimizers import groups


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of AdamW.

    Attributes:
      b1: decay of the first moment; β₁ in the paper.
      b2: decay of the second moment; β₂ in the paper.
      epsilon: constant added to the square root of the second moment.
      weight_decay: rate of weight decay, in units of the learning rate.
      embedding_rate: factor on the learning rate of embeddings.
    """

    b1: float = 0.9
    b2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    embedding_rate: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.b1 < 1 and 0 <= self.b2 < 1):
            raise ValueError(f"b1={self.b1} and b2={self.b2} must be in [0, 1)")
        if self.epsilon <= 0 or self.weight_decay < 0 or self.embedding_rate <= 0:
            raise ValueError(
                f"epsilon={self.epsilon} and embedding_rate={self.embedding_rate} must be above 0,"
                f" and weight_decay={self.weight_decay} must not be negative"
            )


def make(
    config: Config, learning_rate: float, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """Makes the transformation.

    Args:
      config: options of AdamW.
      learning_rate: the peak learning rate.
      schedule: step → learning rate, relative to `learning_rate`.
    """
    return optax.chain(
        optax.scale_by_adam(config.b1, config.b2, config.epsilon),
        optax.add_decayed_weights(config.weight_decay, groups.decayed),
        optax.masked(optax.scale(config.embedding_rate), groups.embeddings),
        optax.scale_by_learning_rate(lambda step: learning_rate * schedule(step)),
    )
