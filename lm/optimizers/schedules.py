"""Learning-rate schedules, all from optax."""

import dataclasses

import optax

NAMES = ("constant", "cosine", "linear", "wsd")


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """A schedule: linear warm-up, then by name.

    Attributes:
      learning_rate: the highest rate.
      schedule: "constant"; "cosine" or "linear" decay until the end; "wsd" (warm-up, stable, decay) falls linearly in
        the last `cooldown` of the run (Hu et al. 2024, MiniCPM).
      warmup: share of the steps in which the rate rises from 0.
      cooldown: share of the steps in which wsd falls.
      final: share of the highest rate that is left at the end.
    """

    learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup: float = 0.05
    cooldown: float = 0.3
    final: float = 0.0

    def __post_init__(self):
        if self.schedule not in NAMES:
            raise ValueError(f"schedule={self.schedule!r} is not one of {', '.join(NAMES)}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate={self.learning_rate} must be above 0")
        for field in ("warmup", "cooldown", "final"):
            if not 0.0 <= getattr(self, field) <= 1.0:
                raise ValueError(
                    f"{field}={getattr(self, field)} is a share: it must lie in [0, 1]"
                )
        if self.schedule == "wsd" and self.warmup + self.cooldown > 1.0:
            raise ValueError(
                f"warmup={self.warmup} and cooldown={self.cooldown} pass the whole run together"
            )


def make(config: ScheduleConfig, steps: int) -> optax.Schedule:
    """The rate at each step of a run of `steps` steps, relative to `learning_rate` (so 1 is the highest)."""
    rise = round(config.warmup * steps)
    rest = max(1, steps - rise)
    fall = min(rest, max(1, round(config.cooldown * steps)))
    after = {
        "constant": lambda: optax.constant_schedule(1.0),
        "cosine": lambda: optax.cosine_decay_schedule(1.0, rest, config.final),
        "linear": lambda: optax.linear_schedule(1.0, config.final, rest),
        "wsd": lambda: optax.linear_schedule(1.0, config.final, fall, transition_begin=rest - fall),
    }[config.schedule]()
    # Starts above zero, so that the first step is not lost.
    return (
        optax.join_schedules([optax.linear_schedule(1.0 / (rise + 1), 1.0, rise), after], [rise])
        if rise
        else after
    )
