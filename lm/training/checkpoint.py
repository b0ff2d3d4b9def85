"""Saving and restoring the train state. The only file that imports orbax.

A checkpoint holds the state as a flat mapping from path to array, so it can be read without the optimiser's types. Saves are
asynchronous and atomic: a step's folder is filled under a temporary name, sealed with checksums (lm/training/integrity.py) by process 0 in the
background, and renamed into place. So whatever kills a save loses that save alone, and what has a step's name is whole when written.

It may be damaged afterwards: a lost page of a machine that lost power, a disk, a copy that was cut off. Whoever opens the folder to write
(lm.train) therefore has process 0 compare the newest checkpoint with its checksums, and go back to the newest whole one. Newer ones are
moved aside to `damaged-<step>`, never deleted, so that their steps can be saved again; stderr says all of it. Where none is whole, nothing
is moved and nothing starts from step 0: that is for the user to decide. Readers (lm.evaluate) compare too, move nothing, and refuse a
damaged checkpoint: a score of another step than asked for would mislead.
"""

import contextlib
import copy
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import preservation_policy as keeping

from lm.core.plugins import UserError
from lm.training import integrity

_TEMPORARY = ".orbax-checkpoint-tmp"
_METRICS = "metrics"  # orbax's folder of the validation loss, and the file in it
_PATIENCE = 2 * 3600 * 1000  # milliseconds that processes wait for process 0 to read a checkpoint
_questions = (
    itertools.count()
)  # to process 0; each has a name of its own, the same in all processes
_TOLD = 4096  # bytes of a message that process 0 sends to the others


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _loss(metrics: Mapping[str, float]) -> float:
    return metrics["loss"]


def flatten(state: Any) -> dict[str, Any]:
    """The state's leaves by path: "params/stack/blocks/attention/query"."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


class _Manager(ocp.CheckpointManager):
    def reached_preemption(self, step: int) -> bool:
        """No. JAX counts who asks, and with which step, to find one at which all processes can stop; only the training loop may ask."""
        return False


class Checkpoints:
    """The checkpoints of one workdir.

    Args:
      workdir: checkpoints lie in its folder `checkpoints`.
      keep: how many of the latest are kept, beside the best one.
      read_only: never writes, moves or deletes.

    Raises:
      UserError: there is no checkpoint to read, or none is whole that could be continued from.
    """

    def __init__(self, workdir: Path, keep: int = 2, read_only: bool = False):
        self.directory = Path(workdir).resolve() / "checkpoints"
        self.read_only = read_only
        logging.set_verbosity(
            logging.FATAL
        )  # orbax warns of what is meant here, and prints errors that are raised as well
        if read_only and not self.directory.is_dir():
            raise UserError(
                f"{workdir} has no checkpoints; give the workdir of a finished or running lm.train"
            )
        best = keeping.BestN(
            get_metric_fn=_loss, reverse=True, n=1, keep_checkpoints_without_metrics=False
        )
        options = ocp.CheckpointManagerOptions(
            # Without best_fn no metrics are written, and the best one is forgotten when the run continues.
            preservation_policy=keeping.AnyPreservationPolicy([keeping.LatestN(keep), best]), best_fn=_loss, best_mode="min",
            create=not read_only, read_only=read_only, cleanup_tmp_directories=not read_only, enable_async_checkpointing=not read_only,
            async_options=None if read_only else ocp.AsyncOptions(post_finalization_callback=self._seal),
        )  # fmt: skip
        # Named here, so that a checkpoint's contents can be listed before anything is restored.
        handlers = {
            "state": ocp.StandardCheckpointHandler(),
            "counters": ocp.JsonCheckpointHandler(),
        }
        self.failed = False
        self._saving = self._verified = 0
        if not read_only:
            self._verified = self._newest_whole()
        try:
            self.manager = _Manager(self.directory, options=options, item_handlers=handlers)
        except (
            OSError,
            ValueError,
        ) as error:  # ValueError: a validation loss, in a folder that nothing else has looked into
            raise UserError(
                f"{self.directory} cannot be opened: {_first_line(error)}; lm.train moves damaged checkpoints aside"
            ) from error
        if not read_only and (self.latest() or 0) != self._verified:
            raise UserError(
                f"process {jax.process_index()} finds the checkpoint of step {self.latest()} in {self.directory}, process 0 that of step"
                f" {self._verified} (0: none); --workdir must be a folder that all hosts share"
            )

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

    def save(
        self, step: int, state: Any, counters: Mapping[str, float], loss: float | None = None
    ) -> None:
        """Starts saving; returns once the arrays and counters are copied.

        Args:
          step: the step just done. state: the train state. counters: small numbers of the host that continue with it.
          loss: the validation loss, by which the best is kept.
        """
        if step in self.manager.all_steps():
            return
        metrics = None if loss is None else {"loss": loss}
        kept = copy.deepcopy(
            dict(counters)
        )  # orbax writes them in the background, while the next steps add to them
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(flatten(state)), counters=ocp.args.JsonSave(kept)
        )
        with self._writing():
            self.manager.wait_until_finished()  # orbax waits as well; but the save before is still being sealed
            self._saving = step
            self.manager.save(step, args=items, metrics=metrics, force=True)

    def restore(self, step: int, shapes: Any, shardings: Any) -> tuple[Any, dict[str, float]]:
        """The state of a step, laid out by `shardings`, and its counters.

        Raises:
          UserError: the checkpoint is damaged, or is one of another model.
        """
        abstract = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes,
            shardings,
        )
        flat = flatten(abstract)
        if step != self._verified:
            self._verify(step)
        self._compare(step, flat)
        try:
            items = ocp.args.Composite(
                state=ocp.args.StandardRestore(flat), counters=ocp.args.JsonRestore()
            )
            restored = self.manager.restore(step, args=items)
        except (ValueError, KeyError, OSError) as error:
            raise UserError(self._damaged(step, error)) from error
        state = jax.tree.unflatten(
            jax.tree.structure(abstract), [restored["state"][name] for name in flat]
        )
        return state, dict(restored["counters"])

    def arrays(self, step: int) -> dict[str, np.ndarray]:
        """All arrays of a step by path, whatever model it is of, in the memory of this process."""
        self._verify(step)
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        saved = self.manager.item_metadata(step)["state"]
        wanted = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)
            for name, leaf in saved.items()
        }
        found = self.manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(wanted))
        )["state"]
        return {name: np.asarray(value) for name, value in found.items()}

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

    def _seal(self) -> None:
        """Called by orbax on process 0, in the background, when all files are written and the folder is about to be renamed."""
        (folder,) = self.directory.glob(f"{self._saving}{_TEMPORARY}*")
        integrity.seal(folder)

    def _newest_whole(self) -> int:
        """The newest step that is as it was written, 0 without any; damaged ones that are newer are moved aside."""
        return _from_process_0(self._look_for_newest_whole)

    def _look_for_newest_whole(self) -> int:
        steps = sorted(
            (
                int(path.name)
                for path in self.directory.glob("*")
                if path.name.isdigit() and path.is_dir()
            ),
            reverse=True,
        )
        aside = sorted(path.name for path in self.directory.glob("damaged-*"))
        damages = {}
        for step in steps:
            try:
                if not integrity.verify(self.directory / str(step)):
                    _tell(
                        f"note: the checkpoint of step {step} in {self.directory} has no {integrity.NAME} and is used unverified"
                    )
                break
            except integrity.Damaged as error:
                damages[step] = str(error)
        else:
            if damages or aside:
                found = [f"step {step}: {how}" for step, how in damages.items()] + aside
                raise UserError(
                    f"no checkpoint in {self.directory} is whole: {'; '.join(found)}. Nothing was changed. Put a copy of one back, or start"
                    " again from step 0 in a new --workdir"
                )
            return 0
        newer = list(damages)
        for older in steps[steps.index(step) + 1 :]:
            try:
                _check_metrics(self.directory / str(older))
            except integrity.Damaged as error:
                damages[older] = str(error)
        for damaged, how in damages.items():
            to = self._aside(damaged)
            (self.directory / str(damaged)).rename(to)
            _tell(
                f"the checkpoint of step {damaged} in {self.directory} is damaged: {how}; moved to {to.name}"
            )
        if newer:
            again = max(newer) - step
            _tell(
                f"training continues from the checkpoint of step {step}; {again} step{'s' * (again > 1)} computed again"
            )
        return step

    def _aside(self, step: int) -> Path:
        names = [f"damaged-{step}", *(f"damaged-{step}-{number}" for number in range(2, 1000))]
        return next(path for name in names if not (path := self.directory / name).exists())

    def _verify(self, step: int) -> None:
        """Refuses a checkpoint that is not as it was written."""

        def look() -> int:
            try:
                integrity.verify(self.directory / str(step))
            except integrity.Damaged as error:
                raise UserError(self._damaged(step, error)) from error
            return 0

        _from_process_0(look)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """What fails inside, or failed in the background since, is told with the last good checkpoint."""
        try:
            yield
        except (
            OSError,
            ValueError,
        ) as error:  # tensorstore raises ValueError when the disk is full
            self.failed = True
            complete = [int(path.name) for path in self.directory.iterdir() if path.name.isdigit()]
            last = (
                f"the last good checkpoint is that of step {max(complete)}"
                if complete
                else "there is no checkpoint yet"
            )
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
        differing = sorted(
            name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)
        )
        if differing:
            lines = [
                f"  {name}: checkpoint {found.get(name, 'has none')}, config {wanted.get(name, 'has none')}"
                for name in differing[:5]
            ]
            raise UserError(
                f"the checkpoint of step {step} in {self.directory} is one of another model:\n"
                + "\n".join(lines)
            )

    def _damaged(self, step: int, error: Exception) -> str:
        others = [other for other in self.steps() if other != step]
        if not others:
            rest = "there is no other; put a copy of it back, or start a new workdir"
        elif self.read_only:
            rest = f"--step={others[-1]} names another (lm.train goes back to the newest whole one by itself)"
        else:
            rest = f"move {self.directory / str(step)} elsewhere to go on from step {others[-1]}"
        return f"the checkpoint of step {step} in {self.directory} cannot be read: {_first_line(error)}; {rest}"


def _from_process_0(look: Callable[[], int]) -> int:
    """What process 0 finds, a number or a UserError, in all processes: they must not act on what each of them sees."""
    found, error = 0, ""
    if jax.process_index() == 0:
        try:
            found = look()
        except UserError as problem:
            error = str(problem)
        except Exception as problem:  # whatever it is, the other processes wait for an answer
            error = f"the checkpoints cannot be read or moved: {type(problem).__name__}: {problem}"
    if jax.process_count() > 1:
        # To read a large checkpoint takes longer than a collective waits on some machines.
        ocp.multihost.get_barrier_sync_fn()(
            key=f"lm_checkpoints_{next(_questions)}", timeout_ms=_PATIENCE
        )
        told = error.encode()[:_TOLD].ljust(_TOLD)
        number, text = multihost_utils.broadcast_one_to_all(
            (np.int32(found), np.frombuffer(told, np.uint8))
        )
        found, error = (
            int(number),
            np.asarray(text, np.uint8).tobytes().decode(errors="ignore").strip(),
        )
    if error:
        raise UserError(error)
    return found


def _check_metrics(folder: Path) -> None:
    """Refuses a checkpoint whose validation loss is damaged: orbax reads those of all, to know the best.

    One without it passes: a kill may have come while it was deleted, which the next save finishes.
    """
    path = folder / _METRICS / _METRICS
    if path.exists():
        integrity.verify(folder, within=_METRICS)
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise integrity.Damaged(f"{_METRICS}/{_METRICS} cannot be read: {error}") from error


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
