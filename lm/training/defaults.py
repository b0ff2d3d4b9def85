"""Defaults of a run's config: those of its sections and of the plug-ins that it names."""

from collections.abc import Mapping
from typing import Any

from lm.core import plugins
from lm.data.corpus import DataConfig
from lm.optimizers.config import OptimizerConfig
from lm.optimizers.schedules import ScheduleConfig
from lm.parallel.mesh import MeshConfig
from lm.tokenizers.config import TokenizerConfig
from lm.training.program import TrainingConfig

# The room of a section's plug-in, and the field that names it.
_PLUG_INS = {
    "model": ("models", "name"),
    "objective": ("objectives", "name"),
    "data": ("data.sources", "source"),
    "tokenizer": ("tokenizers", "kind"),
    "optimizer": ("optimizers", "name"),
}


def defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """The default of every option that a run's config can set.

    An option that is younger than a run's record has its default there.

    Args:
      config: of a run; its plug-ins are found by name.

    Returns:
      Values by flat name, as "model.width"; lists where dataclasses hold tuples.
    """
    classes: dict[str, list[type]] = {
        "data": [DataConfig],
        "tokenizer": [TokenizerConfig],
        "optimizer": [OptimizerConfig, ScheduleConfig],
        "training": [TrainingConfig],
        "mesh": [MeshConfig],
    }
    for section, (room, key) in _PLUG_INS.items():
        if name := config.get(section, {}).get(key):
            module = plugins.find(room, name)
            options = module.Model.Config if room == "models" else module.Config
            classes.setdefault(section, []).append(options)
    return {
        f"{section}.{name}": list(value) if isinstance(value, tuple) else value
        for section, of_section in classes.items()
        for cls in of_section
        for name, value in plugins.defaults(cls).items()
    }
