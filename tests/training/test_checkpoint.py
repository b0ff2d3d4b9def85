"""Checkpoints: which are kept, how damaged or foreign ones are handled, restoring on any mesh."""

import errno
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import runs
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding
from runs import home  # noqa: F401

from lm.core.plugins import UserError
from lm.inference.load import load_run
from lm.training import checksums, loop
from lm.training.checkpoint import Checkpoints, flatten

# A failing read closes orbax's event loop while other reads are still pending; those then warn.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def tiny(value: float) -> dict:
    """A state of two arrays."""
    return {
        "params": {"layer": {"kernel": jnp.full((3, 4), value)}},
        "step": jnp.asarray(7, jnp.int32),
    }


def restore(checkpoints: Checkpoints, step: int, like: dict):
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), like)
    return checkpoints.restore(
        step, shapes, jax.tree.map(lambda _: SingleDeviceSharding(jax.devices()[0]), like)
    )


@pytest.fixture
def saved(tmp_path):
    """Steps 1 and 2 of a tiny state."""
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(
            step, tiny(step), {"seconds": 0.1 + 0.2, "sums": {"loss": (1.0, 2.0)}}, loss=1.0 / step
        )
    checkpoints.close()
    return tmp_path


def test_a_state_is_restored_exactly(saved):
    state, counters = restore(Checkpoints(saved, read_only=True), 1, tiny(0.0))
    assert jax.tree.map(lambda leaf: leaf.tolist(), state) == jax.tree.map(
        lambda leaf: leaf.tolist(), tiny(1.0)
    )
    assert counters == {"seconds": 0.1 + 0.2, "sums": {"loss": [1.0, 2.0]}}
    assert state["step"].dtype == jnp.int32


def test_counters_that_change_during_a_save_are_saved_as_they_were(tmp_path, monkeypatch):
    """The training loop updates its counters while orbax writes them in the background."""
    write, added = ocp.JsonCheckpointHandler._save_fn, threading.Event()

    async def late(self, *arguments):
        assert added.wait(30)
        await write(self, *arguments)

    monkeypatch.setattr(ocp.JsonCheckpointHandler, "_save_fn", late)
    counters = {"loss_tokens": 8.0, "sums": {"clm": (1.0, 2.0)}}
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, tiny(1.0), counters)
    counters["loss_tokens"] = 16.0
    counters["sums"]["clm"] = (3.0, 4.0)
    added.set()
    checkpoints.close()
    assert restore(Checkpoints(tmp_path, read_only=True), 1, tiny(0.0))[1] == {
        "loss_tokens": 8.0,
        "sums": {"clm": [1.0, 2.0]},
    }


def test_paths_name_the_leaves():
    assert list(flatten(tiny(0.0))) == ["params/layer/kernel", "step"]


def test_the_latest_and_the_best_are_kept_across_restarts(tmp_path):
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
    # A checkpoint without a validation loss cannot be the best.
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "5", "6"]
    assert (second.steps(), second.latest(), second.best()) == ([2, 5, 6], 6, 2)
    second.close()


def test_without_a_validation_loss_the_latest_is_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert (checkpoints.latest(), checkpoints.best(), checkpoints.steps()) == (None, None, [])
    checkpoints.save(1, tiny(1), {})
    checkpoints.wait()
    assert (checkpoints.latest(), checkpoints.best()) == (1, 1)
    checkpoints.save(1, tiny(2), {})  # an existing step is not overwritten
    checkpoints.close()
    assert (
        restore(Checkpoints(tmp_path, read_only=True), 1, tiny(0))[0]["params"]["layer"]["kernel"][
            0, 0
        ]
        == 1
    )


def test_incomplete_checkpoints_are_skipped_and_removed(saved):
    folder = saved / "checkpoints"
    shutil.copytree(folder / "2", folder / "3.orbax-checkpoint-tmp")
    reader = Checkpoints(saved, read_only=True)
    assert reader.steps() == [1, 2]
    assert (folder / "3.orbax-checkpoint-tmp").exists()  # a reader deletes nothing
    writer = Checkpoints(saved)
    assert writer.latest() == 2
    writer.save(3, tiny(3), {})
    writer.close()
    assert sorted(path.name for path in folder.iterdir()) == [
        "2",
        "3",
    ]  # the latest two; 2 is the best


def test_a_workdir_without_checkpoints(tmp_path):
    with pytest.raises(
        UserError, match="has no checkpoints; give the workdir of a finished or running lm.train"
    ):
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
    "bit": lambda step: flip_a_bit(max(step.rglob("d/*"), key=lambda path: path.stat().st_size)),
    "other counters": lambda step: (step / "counters" / "metadata").write_text(
        '{"seconds": 0.0, "sums": {}}'
    ),
    "metrics": lambda step: (step / "metrics" / "metrics").write_text(""),
    "checksums empty": lambda step: (step / "checksums.json").write_text(""),
    "checksums": lambda step: flip_a_bit(step / "checksums.json"),
}


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_quarantined(saved, damage, capsys):
    """Training resumes from the one before and can save the step again; readers only report it."""
    folder = saved.resolve() / "checkpoints"
    DAMAGES[damage](folder / "2")
    before = runs.files(saved)
    with pytest.raises(UserError) as raised:
        restore(Checkpoints(saved, read_only=True), 2, tiny(0.0))
    if damage != "metrics":  # readers need those of all steps, to select the best
        assert str(raised.value).startswith(
            f"the checkpoint of step 2 in {folder} cannot be read: "
        )
        assert str(raised.value).endswith(
            "; --step=1 names another (lm.train falls back to the newest intact one)"
        )
        assert (
            restore(Checkpoints(saved, read_only=True), 1, tiny(0.0))[0]["params"]["layer"][
                "kernel"
            ][0, 0]
            == 1
        )
    assert "\n" not in str(raised.value) and runs.files(saved) == before

    writer = Checkpoints(saved)
    printed = capsys.readouterr().err
    assert (
        f"the checkpoint of step 2 in {folder} is damaged: " in printed
        and "; moved to damaged-2\n" in printed
    )
    assert printed.endswith(
        "training continues from the checkpoint of step 1; 1 step computed again\n"
    )
    assert (writer.steps(), writer.latest(), writer.best()) == ([1], 1, 1)
    assert restore(writer, 1, tiny(0.0))[1] == {"seconds": 0.1 + 0.2, "sums": {"loss": [1.0, 2.0]}}
    after = {name.replace("damaged-2", "2"): kept for name, kept in runs.files(saved).items()}
    assert after == before  # nothing is lost
    writer.save(2, tiny(5), {}, loss=0.5)
    writer.close()
    DAMAGES[damage](folder / "2") if damage != "metrics" else damage_arrays(folder / "2")
    Checkpoints(saved).close()
    assert sorted(path.name for path in folder.iterdir()) == ["1", "damaged-2", "damaged-2-2"]


def test_without_an_intact_checkpoint_nothing_restarts(saved):
    damage_arrays(saved / "checkpoints" / "1")
    (saved / "checkpoints" / "2" / "state" / "_METADATA").unlink()
    before = runs.files(saved)
    for _ in range(2):  # the same command fails the same way
        with pytest.raises(
            UserError,
            match="no checkpoint in .* is intact: step 2: state/_METADATA is missing;"
            " step 1: state/.* does not",
        ):
            Checkpoints(saved)
    assert runs.files(saved) == before
    (saved / "checkpoints" / "1").rename(saved / "checkpoints" / "damaged-1")
    shutil.rmtree(saved / "checkpoints" / "2")
    with pytest.raises(
        UserError,
        match=r"is intact: damaged-1\. Nothing was changed\. Restore a copy of one, or restart from"
        r" step 0 in",
    ):
        Checkpoints(saved)


def test_the_only_checkpoint_damaged(saved):
    shutil.rmtree(saved / "checkpoints" / "1")
    damage_arrays(saved / "checkpoints" / "2")
    with pytest.raises(
        UserError, match="there is no other; restore a copy of it, or start a new workdir"
    ):
        restore(Checkpoints(saved, read_only=True), 2, tiny(0.0))


def test_a_damaged_loss_of_an_older_checkpoint(saved, capsys):
    """Orbax reads the losses of all checkpoints, to select the best."""
    (saved / "checkpoints" / "1" / "metrics" / "metrics").write_text('{"loss": 0.0}')
    with Checkpoints(saved).manager as manager:
        assert manager.all_steps() == [2]
    printed = capsys.readouterr().err
    assert "step 1 in " in printed and "moved to damaged-1\n" in printed
    assert "computed again" not in printed


def test_a_checkpoint_without_checksums_is_used_with_a_note(saved, capsys):
    """Older versions wrote none."""
    (saved / "checkpoints" / "2" / "checksums.json").unlink()
    writer = Checkpoints(saved)
    printed = capsys.readouterr().err
    assert "the checkpoint of step 2 in " in printed
    assert "has no checksums.json and is used unverified" in printed
    assert restore(writer, 2, tiny(0.0))[0]["params"]["layer"]["kernel"][0, 0] == 2
    damage_arrays(saved / "checkpoints" / "2")
    with pytest.raises(
        UserError,
        match=r"the checkpoint of step 2 in .* cannot be read: .*;"
        r" move .*/2 away to resume from step 1",
    ):
        restore(Checkpoints(saved), 2, tiny(0.0))


def test_a_save_without_checksums_is_not_committed(saved, monkeypatch):
    def full(folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = Checkpoints(saved)
    monkeypatch.setattr(checksums, "write_checksums", full)
    writer.save(3, tiny(3), {})
    with pytest.raises(
        UserError,
        match=r"No space left on device; the last good checkpoint is that of step 2\."
        r" Free some space",
    ):
        writer.wait()
    writer.close()
    monkeypatch.undo()
    again = Checkpoints(saved)
    assert again.steps() == [1, 2]
    again.save(3, tiny(3), {})
    again.close()
    assert Checkpoints(saved, read_only=True).latest() == 3


def test_hosts_with_different_folders_are_refused(saved, monkeypatch):
    monkeypatch.setattr(Checkpoints, "_newest_intact", lambda self: 7)
    with pytest.raises(
        UserError,
        match="finds the checkpoint of step 2 in .*, process 0 that of step 7 .*"
        "a folder that all hosts share",
    ):
        Checkpoints(saved)


def test_a_checkpoint_is_restored_on_other_devices(tmp_path):
    """Saved sharded over eight devices, TPUs by its metadata; restored on one and on eight."""
    mesh = jax.make_mesh((4, 2), ("fsdp", "tensor"), axis_types=(AxisType.Auto,) * 2)
    values = jnp.asarray(np.random.default_rng(0).normal(size=(8, 6)), jnp.float32)
    state = {
        "kernel": jax.device_put(values, NamedSharding(mesh, PartitionSpec("fsdp", "tensor"))),
        "step": jnp.asarray(3, jnp.int32),
    }
    writer = Checkpoints(tmp_path)
    writer.save(3, state, {})
    writer.close()
    folder = tmp_path / "checkpoints" / "3"
    saved = (folder / "state" / "_sharding").read_text()
    assert "cpu" in saved.lower()
    (folder / "state" / "_sharding").write_text(
        saved.replace("cpu:", "tpu:").replace("CPU_", "TPU_")
    )
    checksums.write_checksums(folder)
    assert np.array_equal(restore(Checkpoints(tmp_path), 3, state)[0]["kernel"], values)
    assert np.array_equal(Checkpoints(tmp_path, read_only=True).arrays(3)["kernel"], values)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)
    other = {
        "kernel": NamedSharding(mesh, PartitionSpec("tensor")),
        "step": NamedSharding(mesh, PartitionSpec()),
    }
    restored = Checkpoints(tmp_path).restore(3, shapes, other)[0]["kernel"]
    assert restored.sharding == other["kernel"] and np.array_equal(restored, values)


def test_a_checkpoint_of_another_model_shows_the_differences(saved):
    other = {
        "params": {"layer": {"kernel": jnp.zeros((3, 5))}, "head": {"bias": jnp.zeros(2)}},
        "step": jnp.zeros((), jnp.int32),
    }
    with pytest.raises(UserError, match="belongs to another model:") as raised:
        restore(Checkpoints(saved, read_only=True), 2, other)
    assert "params/layer/kernel: checkpoint (3, 4), config (3, 5)" in str(raised.value)
    assert "params/head/bias: checkpoint has none, config (2,)" in str(raised.value)


def test_a_run_with_a_damaged_last_checkpoint_resumes_from_the_one_before(home, tmp_path, capsys):
    """Its last step is computed again, to the same bits, though the run was done."""
    workdir = tmp_path / "run"
    shutil.copytree(home.finished("clm"), workdir)
    damage_arrays(workdir / "checkpoints" / "10")
    with pytest.raises(
        UserError, match=r"the checkpoint of step 10 in .* cannot be read: .*--step=9 names another"
    ):
        load_run(workdir, progress=False)
    loop.train(home.config("clm"), workdir, quiet=True)
    assert (
        "training continues from the checkpoint of step 9; 1 step computed again"
        in capsys.readouterr().err
    )
    assert (workdir / "checkpoints" / "damaged-10").is_dir()
    runs.assert_same_run(home.finished("clm"), workdir)


def test_a_run_continues_on_another_mesh(home, tmp_path, monkeypatch):
    """Saved on one device, resumed on 2 × 2 × 2: the same curve but for rounding."""
    workdir = tmp_path / "run"
    with monkeypatch.context() as patch:
        runs.at_step(patch, 7, runs.kill)
        with pytest.raises(runs.Killed):
            loop.train(home.config("clm"), workdir, quiet=True)
    spread = home.config("clm", mesh={"data": 2, "fsdp": 2, "tensor": 2})
    record = loop.train(spread, workdir, quiet=True)
    assert {axis: size for axis, size in record["mesh"].items() if size > 1} == {
        "data": 2,
        "fsdp": 2,
        "tensor": 2,
    }
    alone = runs.metrics(home.finished("clm"))
    for line, other in zip(alone, runs.metrics(workdir), strict=True):
        assert other.pop("split") == line.pop("split")
        assert other == pytest.approx(line, rel=1e-4), line["step"]
    # Adam divides by the root of the second moment. Where gradients are tiny, this magnifies
    # rounding errors.
    ends = runs.state(home.finished("clm")), runs.state(workdir)
    for name in ends[0]:
        np.testing.assert_allclose(ends[1][name], ends[0][name], rtol=1e-3, atol=1e-4, err_msg=name)
