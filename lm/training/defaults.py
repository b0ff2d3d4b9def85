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


def defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """The default of every option that a run's config can set.

    An option that is younger than a run's record has its default there.

    Args:
      config: of a run; its plug-ins are found by name.

    Returns:
      Values by flat name, as "model.width"; lists where dataclasses hold tuples.
    """
    sections: dict[str, list[type]] = {
        "model": [plugins.find("models", config["model"]["name"]).Model.Config],
        "objective": [plugins.find("objectives", config["objective"]["name"]).Config],
        "data": [DataConfig, plugins.find("data.sources", config["data"]["source"]).Config],
        "tokenizer": [
            TokenizerConfig,
            plugins.find("tokenizers", config["tokenizer"]["kind"]).Config,
        ],
        "optimizer": [
            OptimizerConfig,
            ScheduleConfig,
            plugins.find("optimizers", config["optimizer"]["name"]).Config,
        ],
        "training": [TrainingConfig],
        "mesh": [MeshConfig],
    }
    return {
        f"{section}.{name}": list(value) if isinstance(value, tuple) else value
        for section, classes in sections.items()
        for cls in classes
        for name, value in plugins.defaults(cls).items()
    }
