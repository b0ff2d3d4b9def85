"""Default values of the options in a run's config, from its sections and its plug-ins."""

from collections.abc import Mapping
from typing import Any

from lm.core import plugins
from lm.data.corpus import DataConfig
from lm.optimizers.config import OptimizerConfig
from lm.optimizers.schedules import ScheduleConfig
from lm.parallel.mesh import MeshConfig
from lm.tokenizers.config import TokenizerConfig
from lm.training.program import TrainingConfig

# By section: the package of its plug-in, and the field that names the plug-in.
_PLUG_INS = {
    "model": ("models", "name"),
    "objective": ("objectives", "name"),
    "data": ("data.sources", "source"),
    "tokenizer": ("tokenizers", "kind"),
    "optimizer": ("optimizers", "name"),
}


def defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """The default of every option that a run's config can set.

    An option that was added after a run was recorded takes its default in that run.

    Args:
      config: config of a run; its plug-ins are found by name.

    Returns:
      Default values by flat name, such as "model.width". Tuples of the dataclasses become lists.
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


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any]
) -> list[str]:
    """Names of the options that differ between two flat configs.

    An option that is absent, None or "" is not set, and takes its default.

    Args:
      before: recorded values of the options, by flat name.
      now: current values of the options, by flat name.
      defaults: default values of the options, by flat name.
    """

    def value(config: Mapping[str, Any], key: str) -> Any:
        return config[key] if config.get(key) not in (None, "") else defaults.get(key)

    return [
        key for key in sorted(before.keys() | now.keys()) if value(before, key) != value(now, key)
    ]
