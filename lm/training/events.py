"""Live plots of a run's metrics: TensorBoard, and Weights & Biases as an extra."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lm.core.plugins import UserError
from lm.training.program import TrainingConfig


@dataclass(frozen=True)
class Group:
    """The experiment to which a run belongs as a trial.

    All trials of an experiment write their events to one directory.

    Attributes:
      directory: workdir of the experiment.
      experiment: name of the experiment.
      trial: name of the run.
    """

    directory: Path
    experiment: str
    trial: str


@runtime_checkable
class Events(Protocol):
    """Receives the metrics of a step."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes values by name."""
        ...

    def close(self) -> None:
        """Flushes and ends."""
        ...


class TensorBoard:
    """TensorBoard's files. Events that an earlier session wrote after step `start` are purged."""

    def __init__(self, directory: Path, start: int):
        import tensorboardX

        self.writer = tensorboardX.SummaryWriter(
            str(directory), purge_step=start + 1 if start else None
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes a scalar for each value."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes the files."""
        self.writer.close()


class WeightsAndBiases:
    """A Weights & Biases run, in the group of its experiment.

    WANDB_MODE=offline keeps it on this machine. A resumed run keeps its id.
    """

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
        """Logs all values at once."""
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        """Ends the session."""
        self.run.finish()


def check_installed(training: TrainingConfig) -> None:
    """Checks that the packages to which a run logs are installed.

    Raises:
      UserError: a package is not installed; the message names the package to install.
    """
    if training.wandb and importlib.util.find_spec("wandb") is None:
        raise UserError(
            "config.training.wandb needs Weights & Biases: pip install -e '.[wandb]'"
            " (WANDB_MODE=offline sends nothing)"
        )


def directory(workdir: Path, group: Group | None) -> Path:
    """Directory of a run's TensorBoard files.

    `tensorboard --logdir` of an experiment's workdir shows all its trials by name.

    Args:
      workdir: directory of the run.
      group: the experiment to which the run belongs as a trial; None without one.
    """
    return (
        group.directory / "tensorboard" / group.experiment.replace("/", "-") / group.trial
        if group
        else workdir / "tensorboard"
    )


def writers(
    training: TrainingConfig,
    workdir: Path,
    config: Mapping[str, Any],
    start: int,
    group: Group | None,
) -> list[Events]:
    """Opens the writers that the run's options name.

    Args:
      training: section `training` of the run's config.
      workdir: directory of the run.
      config: config of the run.
      start: step from which the run continues; 0 for a new run.
      group: the experiment to which the run belongs as a trial; None without one.
    """
    writers: list[Events] = []
    if training.tensorboard:
        writers.append(TensorBoard(directory(workdir, group), start))
    if training.wandb:
        writers.append(WeightsAndBiases(workdir, config, group))
    return writers
