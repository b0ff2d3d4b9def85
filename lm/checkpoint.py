"""Saving and restoring the train state. The only file that imports orbax.

A checkpoint holds the state as a flat mapping from path to array, so it can be read without the optimiser's types. Saves are
asynchronous and atomic: a step's folder is renamed into place when complete, and an unfinished one is never restored.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint.checkpoint_managers import preservation_policy as keeping

from lm.lookup import UserError


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _loss(metrics: Mapping[str, float]) -> float:
    return metrics["loss"]


def flatten(state: Any) -> dict[str, Any]:
    """The state's leaves by path: "params/stack/blocks/attention/query"."""
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


class Checkpoints:
    """The checkpoints of one workdir.

    Args:
      workdir: checkpoints lie in its folder `checkpoints`.
      keep: how many of the latest are kept, beside the best one.
      read_only: never writes or deletes.
    """

    def __init__(self, workdir: Path, keep: int = 2, read_only: bool = False):
        self.directory = Path(workdir).resolve() / "checkpoints"
        logging.set_verbosity(logging.FATAL)  # orbax warns of what is meant here, and prints errors that are raised as well
        if read_only and not self.directory.is_dir():
            raise UserError(f"{workdir} has no checkpoints; give the workdir of a finished or running lm.train")
        best = keeping.BestN(get_metric_fn=_loss, reverse=True, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            # Without best_fn no metrics are written, and the best one is forgotten when the run continues.
            preservation_policy=keeping.AnyPreservationPolicy([keeping.LatestN(keep), best]), best_fn=_loss, best_mode="min",
            create=not read_only, read_only=read_only, cleanup_tmp_directories=not read_only, enable_async_checkpointing=not read_only,
        )  # fmt: skip
        # Named here, so that a checkpoint's contents can be listed before anything is restored.
        handlers = {"state": ocp.StandardCheckpointHandler(), "counters": ocp.JsonCheckpointHandler()}
        try:
            self.manager = ocp.CheckpointManager(self.directory, options=options, item_handlers=handlers)
        except OSError as error:
            raise UserError(f"{self.directory} cannot be opened: {error}") from error
        self.failed = False

    def latest(self) -> int | None:
        """The newest complete step."""
        return self.manager.latest_step()

    def best(self) -> int | None:
        """The step with the lowest validation loss among those kept; the newest where none has one."""
        best = self.manager.best_step()
        return self.latest() if best is None else best

    def steps(self) -> list[int]:
        """All complete steps, ascending."""
        return sorted(self.manager.all_steps())

    def save(self, step: int, state: Any, counters: Mapping[str, float], loss: float | None = None) -> None:
        """Starts saving; returns once the arrays are copied.

        Args:
          step: the step just done. state: the train state. counters: small numbers of the host that continue with it.
          loss: the validation loss, by which the best is kept.
        """
        if step in self.manager.all_steps():
            return
        metrics = None if loss is None else {"loss": loss}
        items = ocp.args.Composite(state=ocp.args.StandardSave(flatten(state)), counters=ocp.args.JsonSave(dict(counters)))
        with self._writing():
            self.manager.save(step, args=items, metrics=metrics, force=True)

    def restore(self, step: int, shapes: Any, shardings: Any) -> tuple[Any, dict[str, float]]:
        """The state of a step, laid out by `shardings`, and its counters.

        Raises:
          UserError: the checkpoint is damaged, or is one of another model.
        """
        abstract = jax.tree.map(lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes, shardings)
        flat = flatten(abstract)
        self._compare(step, flat)
        try:
            items = ocp.args.Composite(state=ocp.args.StandardRestore(flat), counters=ocp.args.JsonRestore())
            restored = self.manager.restore(step, args=items)
        except (ValueError, KeyError, OSError) as error:
            raise UserError(self._damaged(step, error)) from error
        state = jax.tree.unflatten(jax.tree.structure(abstract), [restored["state"][name] for name in flat])
        return state, dict(restored["counters"])

    def wait(self) -> None:
        """Blocks until the saves in flight are on disk."""
        with self._writing():
            self.manager.wait_until_finished()

    def close(self) -> None:
        """Finishes saves and frees resources; tells of a save that failed, once."""
        try:
            if not self.failed:
                self.wait()
        finally:
            with contextlib.suppress(OSError, ValueError):  # the failed save again
                self.manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """What fails inside, or failed in the background since, is told with the last good checkpoint."""
        try:
            yield
        except (OSError, ValueError) as error:  # tensorstore raises ValueError when the disk is full
            self.failed = True
            complete = [int(path.name) for path in self.directory.iterdir() if path.name.isdigit()]
            last = f"the last good checkpoint is that of step {max(complete)}" if complete else "there is no checkpoint yet"
            raise UserError(
                f"a checkpoint could not be saved in {self.directory}: {_first_line(error)}; {last}. Free some space or mend the disk;"
                f" the same command then {'continues from there' if complete else 'starts again'}"
            ) from error

    def _compare(self, step: int, expected: Mapping[str, jax.ShapeDtypeStruct]) -> None:
        try:
            metadata = self.manager.item_metadata(step)["state"]
            if not metadata:
                raise ValueError("its state or the description of it is missing")
            found = {name: tuple(leaf.shape) for name, leaf in flatten(metadata).items()}
        except Exception as error:  # orbax raises many kinds for unreadable metadata; each means the same to the user
            raise UserError(self._damaged(step, error)) from error
        wanted = {name: tuple(leaf.shape) for name, leaf in expected.items()}
        differing = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
        if differing:
            lines = [f"  {name}: checkpoint {found.get(name, 'has none')}, config {wanted.get(name, 'has none')}" for name in differing[:5]]
            raise UserError(f"the checkpoint of step {step} in {self.directory} is one of another model:\n" + "\n".join(lines))

    def _damaged(self, step: int, error: Exception) -> str:
        others = [other for other in self.steps() if other != step]
        rest = (
            f"delete {self.directory / str(step)} to go on from step {others[-1]}" if others else "there is no other; start a new workdir"
        )
        return f"the checkpoint of step {step} in {self.directory} cannot be read: {_first_line(error)}; {rest}"
