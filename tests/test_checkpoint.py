"""Checkpoints: which are kept, what a damaged or foreign one says, and that any mesh reads them."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
from jax.sharding import SingleDeviceSharding
from runs import home  # noqa: F401

from lm import trainer
from lm.checkpoint import Checkpoints, flatten
from lm.lookup import UserError

# A read that fails ends orbax's event loop while other reads are on their way; these find it closed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def tiny(value: float) -> dict:
    """A state of two arrays."""
    return {"params": {"layer": {"kernel": jnp.full((3, 4), value)}}, "step": jnp.asarray(7, jnp.int32)}


def restore(checkpoints: Checkpoints, step: int, like: dict):
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), like)
    return checkpoints.restore(step, shapes, jax.tree.map(lambda _: SingleDeviceSharding(jax.devices()[0]), like))


@pytest.fixture
def saved(tmp_path):
    """Steps 1 and 2 of a tiny state."""
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, tiny(step), {"seconds": 0.1 + 0.2, "sums": {"loss": (1.0, 2.0)}}, loss=1.0 / step)
    checkpoints.close()
    return tmp_path


def test_a_state_comes_back_as_it_was(saved):
    state, counters = restore(Checkpoints(saved, read_only=True), 1, tiny(0.0))
    assert jax.tree.map(lambda leaf: leaf.tolist(), state) == jax.tree.map(lambda leaf: leaf.tolist(), tiny(1.0))
    assert counters == {"seconds": 0.1 + 0.2, "sums": {"loss": [1.0, 2.0]}}
    assert state["step"].dtype == jnp.int32


def test_paths_name_the_leaves():
    assert list(flatten(tiny(0.0))) == ["params/layer/kernel", "step"]


def test_the_latest_and_the_best_are_kept_over_sessions(tmp_path):
    losses = {1: 3.0, 2: 1.0, 3: None, 4: 2.0, 5: None, 6: 2.5}
    first = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        first.save(step, tiny(step), {}, losses[step])
    first.close()
    second = Checkpoints(tmp_path, keep=2)
    assert (second.latest(), second.best()) == (3, 2)
    for step in (4, 5, 6):
        second.save(step, tiny(step), {}, losses[step])
    second.wait()
    # A checkpoint without a validation loss is no candidate for the best.
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "5", "6"]
    assert (second.steps(), second.latest(), second.best()) == ([2, 5, 6], 6, 2)
    second.close()


def test_without_a_validation_loss_the_latest_is_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert (checkpoints.latest(), checkpoints.best(), checkpoints.steps()) == (None, None, [])
    checkpoints.save(1, tiny(1), {})
    checkpoints.wait()
    assert (checkpoints.latest(), checkpoints.best()) == (1, 1)
    checkpoints.save(1, tiny(2), {})  # already there: what is saved is not written over
    checkpoints.close()
    assert restore(Checkpoints(tmp_path, read_only=True), 1, tiny(0))[0]["params"]["layer"]["kernel"][0, 0] == 1


def test_unfinished_checkpoints_are_passed_over_and_cleared(saved):
    folder = saved / "checkpoints"
    shutil.copytree(folder / "2", folder / "3.orbax-checkpoint-tmp")
    reader = Checkpoints(saved, read_only=True)
    assert reader.steps() == [1, 2]
    assert (folder / "3.orbax-checkpoint-tmp").exists()  # a reader deletes nothing
    writer = Checkpoints(saved)
    assert writer.latest() == 2
    writer.save(3, tiny(3), {})
    writer.close()
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3"]  # the latest two; 2 is the best


def test_a_workdir_without_checkpoints(tmp_path):
    with pytest.raises(UserError, match="has no checkpoints; give the workdir of a finished or running lm.train"):
        Checkpoints(tmp_path, read_only=True)
    assert list(tmp_path.iterdir()) == []


def damage_arrays(step):
    for path in step.rglob("d/*"):
        path.write_bytes(b"\0" * path.stat().st_size)


def truncate_arrays(step):
    for path in step.rglob("d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "arrays": damage_arrays,
    "truncated": truncate_arrays,
    "arrays gone": lambda step: [path.unlink() for path in step.rglob("d/*")],
    "manifest": lambda step: (step / "state" / "manifest.ocdbt").write_bytes(b"nonsense"),
    "manifest gone": lambda step: (step / "state" / "manifest.ocdbt").unlink(),
    "metadata": lambda step: (step / "state" / "_METADATA").write_text("{"),
    "metadata gone": lambda step: (step / "state" / "_METADATA").unlink(),
    "counters": lambda step: (step / "counters" / "metadata").write_text("{"),
    "counters gone": lambda step: shutil.rmtree(step / "counters"),
    "state gone": lambda step: shutil.rmtree(step / "state"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_says_what_to_do(saved, damage):
    DAMAGES[damage](saved / "checkpoints" / "2")
    checkpoints = Checkpoints(saved, read_only=True)
    with pytest.raises(UserError) as raised:
        restore(checkpoints, 2, tiny(0.0))
    folder = saved.resolve() / "checkpoints"
    assert str(raised.value).startswith(f"the checkpoint of step 2 in {folder} cannot be read: ")
    assert str(raised.value).endswith(f"; delete {folder / '2'} to go on from step 1")
    assert "\n" not in str(raised.value)
    assert restore(checkpoints, 1, tiny(0.0))[0]["params"]["layer"]["kernel"][0, 0] == 1
    shutil.rmtree(folder / "1")
    with pytest.raises(UserError, match="there is no other; start a new workdir"):
        restore(Checkpoints(saved, read_only=True), 2, tiny(0.0))


def test_a_checkpoint_of_another_model_shows_the_differences(saved):
    other = {"params": {"layer": {"kernel": jnp.zeros((3, 5))}, "head": {"bias": jnp.zeros(2)}}, "step": jnp.zeros((), jnp.int32)}
    with pytest.raises(UserError, match="is one of another model:") as raised:
        restore(Checkpoints(saved, read_only=True), 2, other)
    assert "params/layer/kernel: checkpoint (3, 4), config (3, 5)" in str(raised.value)
    assert "params/head/bias: checkpoint has none, config (2,)" in str(raised.value)


def test_a_run_whose_last_checkpoint_is_damaged_writes_nothing(home, tmp_path):  # noqa: F811
    """The message says to delete it; then the run goes on from the one before and ends as ever."""
    workdir = tmp_path / "run"
    shutil.copytree(home.finished("clm"), workdir)
    record = runs.record(workdir)
    (workdir / "run.json").write_text(json.dumps(record | {"status": "running"}))
    damage_arrays(workdir / "checkpoints" / "10")
    before = runs.files(workdir)
    with pytest.raises(UserError, match="the checkpoint of step 10 in .* cannot be read") as raised:
        trainer.train(home.config("clm"), workdir, quiet=True)
    assert runs.files(workdir) == before
    told = re.search(r"delete (\S+) to go on from step (\d+)", str(raised.value))
    assert told[2] == "9"
    shutil.rmtree(told[1])
    trainer.train(home.config("clm"), workdir, quiet=True)
    runs.assert_same_run(home.finished("clm"), workdir)


def test_a_run_continues_on_another_mesh(home, tmp_path, monkeypatch):  # noqa: F811
    """Saved on one device, continued on 2 × 2 × 2: the same curve, but for the order of float additions."""
    workdir = tmp_path / "run"
    with monkeypatch.context() as patch:
        runs.at_step(patch, 7, runs.kill)
        with pytest.raises(runs.Killed):
            trainer.train(home.config("clm"), workdir, quiet=True)
    spread = home.config("clm", mesh={"data": 2, "fsdp": 2, "tensor": 2})
    record = trainer.train(spread, workdir, quiet=True)
    assert record["mesh"] == {"data": 2, "fsdp": 2, "tensor": 2}
    alone = runs.metrics(home.finished("clm"))
    for line, other in zip(alone, runs.metrics(workdir), strict=True):
        assert other.pop("split") == line.pop("split")
        assert other == pytest.approx(line, rel=1e-4), line["step"]
    # Adam divides by the root of tiny second moments, which magnifies rounding in entries that hardly have a gradient.
    ends = runs.state(home.finished("clm")), runs.state(workdir)
    for name in ends[0]:
        np.testing.assert_allclose(ends[1][name], ends[0][name], rtol=1e-3, atol=1e-4, err_msg=name)
