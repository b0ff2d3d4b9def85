"""Learning-rate schedules, made of optax schedules."""

import dataclasses

import optax

NAMES = ("constant", "cosine", "linear", "wsd")


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """Options of a schedule: linear warm-up, then a schedule chosen by name.

    Attributes:
      learning_rate: the peak learning rate.
      schedule: kind of schedule: "constant"; "cosine" or "linear" decay until the end; or "wsd"
        (warm-up, stable, decay): linear decay in the last fraction `cooldown` of the run (MiniCPM,
        Hu et al. 2024).
      warmup: fraction of the steps in which the rate rises from 0.
      cooldown: fraction of the steps in which wsd decays.
      final: rate at the end, as a fraction of the peak rate.
    """

    learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup: float = 0.05
    cooldown: float = 0.3
    final: float = 0.0

    def __post_init__(self) -> None:
        if self.schedule not in NAMES:
            raise ValueError(f"schedule={self.schedule!r} is not one of {', '.join(NAMES)}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate={self.learning_rate} must be above 0")
        for field in ("warmup", "cooldown", "final"):
            if not 0.0 <= getattr(self, field) <= 1.0:
                raise ValueError(
                    f"{field}={getattr(self, field)} is a fraction: it must be in [0, 1]"
                )
        if self.schedule == "wsd" and self.warmup + self.cooldown > 1.0:
            raise ValueError(
                f"warmup={self.warmup} and cooldown={self.cooldown} are fractions of one run:"
                " their sum must not exceed 1"
            )


def make(config: ScheduleConfig, steps: int) -> optax.Schedule:
    """Makes the schedule of a run.

    Args:
      config: options of the schedule.
      steps: number of steps of the run.

    Returns:
      Function from the step to the learning rate, relative to the peak rate.
    """
    rise = round(config.warmup * steps)
    rest = max(1, steps - rise)
    fall = min(rest, max(1, round(config.cooldown * steps)))
    after = {
        "constant": lambda: optax.constant_schedule(1.0),
        "cosine": lambda: optax.cosine_decay_schedule(1.0, rest, config.final),
        "linear": lambda: optax.linear_schedule(1.0, config.final, rest),
        "wsd": lambda: optax.linear_schedule(1.0, config.final, fall, transition_begin=rest - fall),
    }[config.schedule]()
    if not rise:
        return after
    # Starts above zero, so that the first step is not lost.
    warmup = optax.linear_schedule(1.0 / (rise + 1), 1.0, rise)
    return optax.join_schedules([warmup, after], [rise])
