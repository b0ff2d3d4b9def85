"""Saves and restores the train state. This is the only file that imports orbax.

A checkpoint holds the state as a flat mapping from path to array, so it can be read without the
optimizer's types. Saves are asynchronous and atomic. A step's folder is filled under a temporary
name; process 0 adds checksums in the background (lm/training/checksums.py); then the folder is
renamed. If the process is killed, only the save in flight is lost, and every folder with a step's
name was complete when it was renamed.

A checkpoint may be damaged later: by a power failure, a faulty disk or an incomplete copy. When
lm.train opens the folder `checkpoints`, process 0 therefore compares the newest checkpoint with its
checksums and falls back to the newest intact one. Newer, damaged checkpoints are quarantined as
`damaged-<step>`, never deleted, so that their steps can be saved again; a message on stderr reports
it. If no checkpoint is intact, nothing is moved and the run does not restart from step 0: the user
must decide. Readers (lm.evaluate) also compare, but move
nothing, and raise UserError for a damaged checkpoint, because the score of another step would
mislead.
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
from lm.training import checksums

_TEMPORARY = ".orbax-checkpoint-tmp"
_METRICS = "metrics"  # name of orbax's folder for the validation loss, and of the file in it
_TIMEOUT = 2 * 3600 * 1000  # milliseconds to wait for process 0 to read a checkpoint
_barriers = itertools.count()  # names of barriers, the same in all processes
_MESSAGE = 4096  # bytes of a message that process 0 sends to the others


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
        """Returns False: only the training loop may call JAX's preemption sync point.

        JAX counts the calls and their steps to find a step at which all processes can stop.
        """
        return False


class Checkpoints:
    """The checkpoints of one workdir, in its folder `checkpoints`."""

    def __init__(self, workdir: Path, keep: int = 2, read_only: bool = False):
        """Opens the folder `checkpoints` of the workdir.

        Args:
          workdir: directory of the run.
          keep: number of latest checkpoints to keep, in addition to the best one.
          read_only: whether nothing in the folder may be written, moved or deleted.

        Raises:
          UserError: there is no checkpoint to read, or no intact checkpoint to continue from.
        """
        self.directory = Path(workdir).resolve() / "checkpoints"
        self.read_only = read_only
        # Orbax warns about behavior that is intended here, and prints errors that it also raises.
        logging.set_verbosity(logging.FATAL)
        if read_only and not self.directory.is_dir():
            raise UserError(
                f"{workdir} has no checkpoints; give the workdir of a finished or running lm.train"
            )
        best = keeping.BestN(
            get_metric_fn=_loss, reverse=True, n=1, keep_checkpoints_without_metrics=False
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=keeping.AnyPreservationPolicy([keeping.LatestN(keep), best]),
            # Without best_fn no metrics are written, and a resumed run forgets the best checkpoint.
            best_fn=_loss,
            best_mode="min",
            create=not read_only,
            read_only=read_only,
            cleanup_tmp_directories=not read_only,
            enable_async_checkpointing=not read_only,
            async_options=None
            if read_only
            else ocp.AsyncOptions(post_finalization_callback=self._write_checksums),
        )
        # Items are named here, so that the contents of a checkpoint can be listed before it is
        # restored.
        handlers = {
            "state": ocp.StandardCheckpointHandler(),
            "counters": ocp.JsonCheckpointHandler(),
        }
        self.failed = False
        self._saving = self._verified = 0
        if not read_only:
            self._verified = self._newest_intact()
        try:
            self.manager = _Manager(self.directory, options=options, item_handlers=handlers)
        except (OSError, ValueError) as error:  # ValueError: a validation loss cannot be read
            raise UserError(
                f"{self.directory} cannot be opened: {_first_line(error)}; lm.train quarantines"
                " damaged checkpoints"
            ) from error
        if not read_only and (self.latest() or 0) != self._verified:
            raise UserError(
                f"process {jax.process_index()} finds the checkpoint of step {self.latest()} in"
                f" {self.directory}, process 0 that of step {self._verified} (0: none); --workdir"
                " must be a folder that all hosts share"
            )

    def latest(self) -> int | None:
        """The newest complete step."""
        return self.manager.latest_step()

    def best(self) -> int | None:
        """The kept step with the lowest validation loss; the newest step if no step has a loss."""
        best = self.manager.best_step()
        return self.latest() if best is None else best

    def steps(self) -> list[int]:
        """All complete steps, ascending."""
        return sorted(self.manager.all_steps())

    def save(
        self, step: int, state: Any, counters: Mapping[str, float], loss: float | None = None
    ) -> None:
        """Starts saving, and returns once arrays and counters are copied.

        Args:
          step: number of the last completed step.
          state: the train state.
          counters: counters of the host that a resumed run needs, by name.
          loss: validation loss of the step, which selects the best checkpoint; None without one.

        Raises:
          UserError: this save or an earlier one failed.
        """
        if step in self.manager.all_steps():
            return
        metrics = None if loss is None else {"loss": loss}
        # A deep copy: orbax writes the counters in the background, while later steps add to them.
        kept = copy.deepcopy(dict(counters))
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(flatten(state)), counters=ocp.args.JsonSave(kept)
        )
        with self._writing():
            # Orbax waits as well, but not for the checksums of the previous save.
            self.manager.wait_until_finished()
            self._saving = step
            self.manager.save(step, args=items, metrics=metrics, force=True)

    def restore(self, step: int, shapes: Any, shardings: Any) -> tuple[Any, dict[str, float]]:
        """Restores a step.

        Args:
          step: number of a complete step.
          shapes: shapes and dtypes of the arrays in the train state.
          shardings: shardings of the arrays in the train state.

        Returns:
          The state, and the counters saved with it.

        Raises:
          UserError: the checkpoint is damaged, or belongs to another model.
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
        """All arrays of a step by path, read into this process's memory; needs no model."""
        self._verify(step)
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        saved = self.manager.item_metadata(step)["state"]
        abstract = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)
            for name, leaf in saved.items()
        }
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        restored = self.manager.restore(step, args=items)["state"]
        return {name: np.asarray(value) for name, value in restored.items()}

    def wait(self) -> None:
        """Blocks until the saves in flight are on disk."""
        with self._writing():
            self.manager.wait_until_finished()

    def close(self) -> None:
        """Finishes saves and frees resources.

        Raises:
          UserError: a save failed, and the failure was not raised before.
        """
        try:
            if not self.failed:
                self.wait()
        finally:
            with contextlib.suppress(OSError, ValueError):  # the failed save raises again
                self.manager.close()

    def _write_checksums(self) -> None:
        """Called by orbax on process 0 in the background, just before the folder is renamed."""
        (folder,) = self.directory.glob(f"{self._saving}{_TEMPORARY}*")
        checksums.write_checksums(folder)

    def _newest_intact(self) -> int:
        """The newest intact step, or 0; newer, damaged ones are quarantined."""
        return _from_process_0(self._find_newest_intact)

    def _find_newest_intact(self) -> int:
        steps = sorted(
            (
                int(path.name)
                for path in self.directory.glob("*")
                if path.name.isdigit() and path.is_dir()
            ),
            reverse=True,
        )
        quarantined = sorted(path.name for path in self.directory.glob("damaged-*"))
        damages = {}
        for step in steps:
            try:
                if not checksums.verify(self.directory / str(step)):
                    _print(
                        f"note: the checkpoint of step {step} in {self.directory} has no"
                        f" {checksums.NAME} and is used unverified"
                    )
                break
            except checksums.Damaged as error:
                damages[step] = str(error)
        else:
            if damages or quarantined:
                faults = [f"step {step}: {fault}" for step, fault in damages.items()]
                faults += quarantined
                raise UserError(
                    f"no checkpoint in {self.directory} is intact: {'; '.join(faults)}. Nothing was"
                    " changed. Restore a copy of one, or restart from step 0 in a new --workdir"
                )
            return 0
        newer = list(damages)
        for older in steps[steps.index(step) + 1 :]:
            try:
                _check_metrics(self.directory / str(older))
            except checksums.Damaged as error:
                damages[older] = str(error)
        for damaged, fault in damages.items():
            target = self._quarantine(damaged)
            (self.directory / str(damaged)).rename(target)
            _print(
                f"the checkpoint of step {damaged} in {self.directory} is damaged: {fault};"
                f" moved to {target.name}"
            )
        if newer:
            again = max(newer) - step
            _print(
                f"training continues from the checkpoint of step {step};"
                f" {again} step{'s' * (again > 1)} computed again"
            )
        return step

    def _quarantine(self, step: int) -> Path:
        """A free name for a damaged checkpoint."""
        names = [f"damaged-{step}", *(f"damaged-{step}-{number}" for number in range(2, 1000))]
        return next(path for name in names if not (path := self.directory / name).exists())

    def _verify(self, step: int) -> None:
        """Raises UserError if a checkpoint differs from its checksums."""

        def check() -> int:
            try:
                checksums.verify(self.directory / str(step))
            except checksums.Damaged as error:
                raise UserError(self._damaged(step, error)) from error
            return 0

        _from_process_0(check)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Re-raises save errors, of this save or one in the background, with the last good step."""
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: tensorstore, on a full disk
            self.failed = True
            complete = [int(path.name) for path in self.directory.iterdir() if path.name.isdigit()]
            last = (
                f"the last good checkpoint is that of step {max(complete)}"
                if complete
                else "there is no checkpoint yet"
            )
            raise UserError(
                f"a checkpoint could not be saved in {self.directory}: {_first_line(error)};"
                f" {last}."
                " Free some space or repair the disk; the same command then"
                f" {'continues from there' if complete else 'starts again'}"
            ) from error

    def _compare(self, step: int, expected: Mapping[str, jax.ShapeDtypeStruct]) -> None:
        try:
            metadata = self.manager.item_metadata(step)["state"]
            if not metadata:
                raise ValueError("its state or the description of it is missing")
            saved = {name: tuple(leaf.shape) for name, leaf in flatten(metadata).items()}
        except Exception as error:  # orbax raises many kinds for unreadable metadata
            raise UserError(self._damaged(step, error)) from error
        wanted = {name: tuple(leaf.shape) for name, leaf in expected.items()}
        differing = sorted(
            name for name in saved.keys() | wanted.keys() if saved.get(name) != wanted.get(name)
        )
        if differing:
            lines = [
                f"  {name}: checkpoint {saved.get(name, 'has none')},"
                f" config {wanted.get(name, 'has none')}"
                for name in differing[:5]
            ]
            raise UserError(
                f"the checkpoint of step {step} in {self.directory} belongs to another model:\n"
                + "\n".join(lines)
            )

    def _damaged(self, step: int, error: Exception) -> str:
        others = [other for other in self.steps() if other != step]
        if not others:
            remedy = "there is no other; restore a copy of it, or start a new workdir"
        elif self.read_only:
            remedy = (
                f"--step={others[-1]} names another (lm.train falls back to the newest intact one)"
            )
        else:
            remedy = f"move {self.directory / str(step)} away to resume from step {others[-1]}"
        return (
            f"the checkpoint of step {step} in {self.directory} cannot be read:"
            f" {_first_line(error)}; {remedy}"
        )


def _from_process_0(function: Callable[[], int]) -> int:
    """Calls a function on process 0, and returns its result or raises its UserError on all.

    Processes must not act on what each of them sees in the folder.
    """
    result, error = 0, ""
    if jax.process_index() == 0:
        try:
            result = function()
        except UserError as problem:
            error = str(problem)
        except Exception as problem:  # of any kind: the other processes wait for an answer
            error = f"the checkpoints cannot be read or moved: {type(problem).__name__}: {problem}"
    if jax.process_count() > 1:
        # Reading a large checkpoint may take longer than a collective waits.
        ocp.multihost.get_barrier_sync_fn()(
            key=f"lm_checkpoints_{next(_barriers)}", timeout_ms=_TIMEOUT
        )
        message = error.encode()[:_MESSAGE].ljust(_MESSAGE)
        number, text = multihost_utils.broadcast_one_to_all(
            (np.int32(result), np.frombuffer(message, np.uint8))
        )
        result, error = (
            int(number),
            np.asarray(text, np.uint8).tobytes().decode(errors="ignore").strip(),
        )
    if error:
        raise UserError(error)
    return result


def _check_metrics(folder: Path) -> None:
    """Raises Damaged where a checkpoint's validation loss is damaged: orbax reads all losses.

    A checkpoint without a loss passes: a process may have been killed while it deleted the
    checkpoint, and the next save completes the deletion.
    """
    path = folder / _METRICS / _METRICS
    if path.exists():
        checksums.verify(folder, within=_METRICS)
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise checksums.Damaged(f"{_METRICS}/{_METRICS} cannot be read: {error}") from error


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
