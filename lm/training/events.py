"""Where a run's numbers are drawn as they come: TensorBoard, and Weights & Biases as an extra."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lm.core.plugins import UserError


@dataclass(frozen=True)
class Group:
    """What a run belongs to: events of all trials of an experiment lie below one directory, under its name and theirs."""

    directory: Path
    experiment: str
    trial: str


class Events(Protocol):
    """Takes numbers by name, with the step that they are of."""

    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files; what an earlier session wrote after step `start` is hidden."""

    def __init__(self, directory: Path, start: int):
        import tensorboardX

        self.writer = tensorboardX.SummaryWriter(
            str(directory), purge_step=start + 1 if start else None
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """A scalar each."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes what is left."""
        self.writer.close()


class WeightsAndBiases:
    """A run there, in the group of its experiment; WANDB_MODE=offline keeps it here. A continued run goes on under its identity."""

    def __init__(self, workdir: Path, config: Mapping[str, Any], group: Group | None):
        import wandb

        from lm.stats.scores import identity

        self.run = wandb.init(
            project="lm",
            dir=str(workdir),
            config=dict(config),
            group=group.experiment if group else None,
            name=group.trial if group else workdir.name,
            id=identity(str(workdir.resolve())),
            resume="allow",
            reinit=True,
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """All of them at once."""
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        """Ends the session."""
        self.run.finish()


def check_installed(training: Any) -> None:
    """Refuses to start where what the run should write to is not installed; `training`: a TrainingConfig.

    Raises:
      UserError: it says what to install.
    """
    if training.wandb and importlib.util.find_spec("wandb") is None:
        raise UserError(
            "config.training.wandb needs Weights & Biases: pip install 'lm[wandb]' (WANDB_MODE=offline sends nothing)"
        )


def directory(workdir: Path, group: Group | None) -> Path:
    """Where TensorBoard's files of a run go: `tensorboard --logdir` of the experiment's workdir shows all trials by name."""
    return (
        group.directory / "tensorboard" / group.experiment.replace("/", "-") / group.trial
        if group
        else workdir / "tensorboard"
    )


def writers(
    training: Any, workdir: Path, config: Mapping[str, Any], start: int, group: Group | None
) -> list[Events]:
    """What the run's options ask for. start: the step that it continues from."""
    found: list[Events] = (
        [TensorBoard(directory(workdir, group), start)] if training.tensorboard else []
    )
    return found + ([WeightsAndBiases(workdir, config, group)] if training.wandb else [])
