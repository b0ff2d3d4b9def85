"""The `optimizer` section of a config: a plug-in, its options, a schedule and clipping."""

import dataclasses
import math
from collections.abc import Container, Mapping
from typing import Any

import optax

from lm.core import plugins
from lm.optimizers import schedules


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Options of the section that are neither the schedule's nor the plug-in's.

    Attributes:
      name: name of a plug-in of lm/optimizers.
      clip: maximum global norm of the gradients; 0 for no clipping.
    """

    name: str = "adamw"
    clip: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.clip < math.inf:
            raise ValueError(f"clip={self.clip} must be finite and not negative (0: no clipping)")


_WHERE = "config.optimizer"
_SHARED = {field.name for field in dataclasses.fields(OptimizerConfig)}
_SCHEDULE = {field.name for field in dataclasses.fields(schedules.ScheduleConfig)}


def make(section: Mapping[str, Any], steps: int) -> optax.GradientTransformation:
    """Makes the optimizer of a config section.

    Args:
      section: the `optimizer` section: the optimizer's name, under "name", and the options of the
        optimizer and of the schedule.
      steps: number of steps of the run, for the schedule.

    Returns:
      A transformation that clips gradients, then applies the plug-in with the schedule.

    Raises:
      UserError: the plug-in or an option is unknown, or a value is invalid.
    """
    shared = plugins.configure(OptimizerConfig, _part(section, _SHARED), _WHERE)
    schedule = plugins.configure(schedules.ScheduleConfig, _part(section, _SCHEDULE), _WHERE)
    module = plugins.find("optimizers", shared.name)
    config = plugins.configure(module.Config, section, _WHERE, skip=_SHARED | _SCHEDULE)
    optimizer = module.make(config, schedule.learning_rate, schedules.make(schedule, steps))
    if not shared.clip:
        return optimizer
    return optax.chain(optax.clip_by_global_norm(shared.clip), optimizer)


def _part(section: Mapping[str, Any], names: Container[str]) -> dict[str, Any]:
    return {name: value for name, value in section.items() if name in names}
