import concurrent.futures
import time
import types

import jax
import numpy as np
import pytest
from small_corpus import Ids, compatible_pairs, random_store

from lm.core import compatibility
from lm.core.plugins import UserError
from lm.data import loader, packing
from lm.data.loader import Loader
from lm.objectives import clm
from lm.parallel import mesh as meshes
from lm.parallel import sharding

LENGTH, BATCH, STEPS = 32, 8, 14
TOKENIZER = Ids(96, 20)
TEXT = 73  # ids below are ordinary or special: no sentinels, no mode tokens


@pytest.fixture(scope="module")
def store():
    return random_store(TEXT, 40)


@pytest.fixture(scope="module")
def mesh():
    return meshes.make(meshes.MeshConfig())


def dataset(store, name: str = "mlm", model: str = "encoder", seed: int = 0, steps: int = STEPS):
    """The endless examples of a run of so many steps; one epoch for 0."""
    objective = compatibility.make({"name": name}, TOKENIZER, LENGTH, model)
    return loader.examples(
        objective, store, objective.plan(store), seed, BATCH if steps else 0, steps
    )


def epoch_of(store, name: str = "mlm", model: str = "encoder", seed: int = 0):
    return dataset(store, name, model, seed, steps=0)


def same(one: dict, two: dict) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(("name", "model"), compatible_pairs())
def test_an_example_is_a_pure_function_of_seed_epoch_and_index(store, name, model):
    first = dataset(store, name, model)
    epoch = len(epoch_of(store, name, model))
    drawn = np.random.default_rng(0).permutation(3 * epoch)[:60]
    expected = {int(index): first[int(index)] for index in drawn}
    # Again, in another order, twice, and by threads at once, from a dataset made anew.
    again = dataset(store, name, model)
    for index in sorted(expected):
        assert same(again[index], expected[index]) and same(again[index], expected[index])
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for index, example in zip(expected, pool.map(again.__getitem__, expected), strict=True):
            assert same(example, expected[index])


@pytest.mark.parametrize(("name", "model"), compatible_pairs())
def test_epochs_and_seeds_differ(store, name, model):
    epoch = len(epoch_of(store, name, model))
    examples = epoch_of(store, name, model).repeat(
        None
    )  # always at the end of the run, so that the epoch alone makes the difference
    assert not all(same(examples[index], examples[index + epoch]) for index in range(epoch))
    other = epoch_of(store, name, model, seed=1)
    assert not all(same(examples[index], other[index]) for index in range(epoch))


def batches(store, count: int, mesh, start: int = 0, **options) -> list[dict[str, np.ndarray]]:
    source = Loader(dataset(store, **options), BATCH, mesh, start)
    return [jax.device_get(next(source)) for _ in range(count)]


def test_a_batch_is_a_function_of_seed_and_step(store, mesh):
    run = batches(store, STEPS, mesh)
    assert STEPS * BATCH > len(epoch_of(store)), "the run must pass the end of an epoch"
    for start in (0, 5, 11):
        assert all(map(same, run[start:], batches(store, STEPS - start, mesh, start)))
    examples = dataset(store)
    assert same(
        run[3],
        {
            name: np.stack([examples[3 * BATCH + row][name] for row in range(BATCH)])
            for name in run[3]
        },
    )
    assert not any(map(same, run, batches(store, STEPS, mesh, seed=1)))
    far = batches(store, 1, mesh, start=10**9)[0]
    assert far["tokens"].shape == (BATCH, LENGTH)


def test_read_ahead_and_threads_change_nothing(store, mesh):
    source = Loader(dataset(store), BATCH, mesh, threads=4, ahead=16)
    assert all(same(jax.device_get(next(source)), batch) for batch in batches(store, 10, mesh))


class OneProcess(jax.sharding.NamedSharding):
    """A sharding as a process sees it that has only these devices."""

    def __init__(self, sharding, devices):
        super().__init__(sharding.mesh, sharding.spec)
        self.devices = devices

    def addressable_devices_indices_map(self, shape):
        return {
            device: index
            for device, index in self.devices_indices_map(shape).items()
            if device in self.devices
        }


@pytest.mark.parametrize(
    "shape", [{"data": 8}, {"data": 2, "fsdp": 2, "tensor": 2}, {"data": 2, "tensor": 4}]
)
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_together_hold_the_global_batch(store, processes, shape):
    mesh = meshes.make(meshes.MeshConfig(**shape))
    of_batch = jax.sharding.NamedSharding(mesh, sharding.spec(("batch",)))
    devices = np.split(np.array(mesh.devices.ravel()), processes)
    rows = [sharding.local_rows(OneProcess(of_batch, part.tolist()), BATCH) for part in devices]
    assert set(np.concatenate(rows).tolist()) == set(range(BATCH))
    examples = dataset(store)
    parts = [loader.local_batches(examples, part, BATCH) for part in rows]
    full = loader.local_batches(examples, np.arange(BATCH), BATCH)
    for step in (0, 6):
        for part, held in zip(parts, rows, strict=True):
            assert same(part[step], {name: values[held] for name, values in full[step].items()})


@pytest.mark.parametrize(
    "shape",
    [
        {"data": 8},
        {"fsdp": 8, "data": 1},
        {"tensor": 8, "data": 1},
        {"data": 2, "fsdp": 2, "tensor": 2},
    ],
)
def test_batches_are_on_the_mesh(store, mesh, shape):
    mesh = meshes.make(meshes.MeshConfig(**shape))
    source = Loader(dataset(store), BATCH, mesh)
    batch = next(source)
    assert same(jax.device_get(batch), batches(store, 1, mesh)[0])
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    for values in batch.values():
        assert {shard.data.shape[0] for shard in values.addressable_shards} == {BATCH // parts}


def test_an_epoch_holds_each_row_once(store):
    examples = epoch_of(store, "clm", "decoder")
    rows = {
        example["tokens"].tobytes()
        for example in (examples[index] for index in range(len(examples)))
    }
    assert len(rows) == len(examples)
    for repeated in (examples.repeat(None), dataset(store, "clm", "decoder")):
        for epoch in (0, 1, 2):
            assert rows == {
                repeated[index]["tokens"].tobytes()
                for index in range(epoch * len(examples), (epoch + 1) * len(examples))
            }


class Given(clm.Objective):
    """An objective whose examples are given, one per row."""

    def __init__(self, *examples: dict):
        super().__init__(clm.Config(), TOKENIZER, LENGTH)
        self.examples = examples

    def example(self, store, plan, row, rng, progress):
        return self.examples[row]


class Recording(Given):
    """An objective whose examples are the arguments of `example`."""

    def example(self, store, plan, row, rng, progress):
        return {"row": np.array(row), "draw": rng.random(), "progress": progress}


def rows_of(count: int) -> packing.Plan:
    return packing.plan([[(0, 0, 1)]] * count)


def test_all_rows_of_a_batch_have_the_same_progress(store):
    plan, steps = rows_of(11), 5
    rows = loader.examples(Recording(), store, plan, 0, BATCH, steps)
    for step in range(8):
        assert {rows[step * BATCH + row]["progress"] for row in range(BATCH)} == {
            min(1.0, step / steps)
        }
    one_epoch = loader.examples(Recording(), store, plan, 0)
    assert {one_epoch[index]["progress"] for index in range(len(plan))} == {1.0}, (
        "held-out text is read as at the end of a run"
    )
    for epoch in range(3):
        examples = [rows[epoch * len(plan) + index] for index in range(len(plan))]
        assert sorted(int(example["row"]) for example in examples) == list(range(len(plan)))
    assert len({rows[index]["draw"] for index in range(3 * len(plan))}) == 3 * len(plan)


def test_padding_is_counted_over_all_streams(store):
    segments = np.array([1, 1, 2, 0])
    one, two = (
        Given({"segments": segments}, {"segments": segments * 0}),
        Given({"segments": segments, "input_segments": np.ones(4, int)}),
    )
    assert loader.padding(one, store, rows_of(2)) == 5 / 8
    assert loader.padding(two, store, rows_of(1)) == 1 / 8
    # Of composed objectives: each member's, by its fraction of the run.
    both = types.SimpleNamespace(
        composed=True,
        fractions={"one": 0.25, "two": 0.75},
        members={"one": one, "two": two},
    )
    plans = types.SimpleNamespace(plans={"one": rows_of(2), "two": rows_of(1)})
    assert loader.padding(both, store, plans) == 0.25 * 5 / 8 + 0.75 / 8


def test_waiting_is_measured(store, mesh):
    def slow(example):
        time.sleep(0.01)
        return example

    source = Loader(dataset(store).map(slow), BATCH, mesh, threads=1, ahead=1)
    begin = time.perf_counter()
    for _ in range(3):
        next(source)
    assert 0.1 < source.waited <= time.perf_counter() - begin
    before = source.waited
    time.sleep(0.3)  # time outside the loader does not count, and reading ahead continues
    next(source)
    assert source.waited - before < 0.3


def test_an_empty_dataset_and_a_batch_that_does_not_fit(store, mesh):
    with pytest.raises(UserError, match="gives no example"):
        Loader(dataset(store).slice(slice(0, 0)), BATCH, mesh)
    with pytest.raises(
        UserError,
        match=r"training\.batch_size=12 is not a multiple of the 8 parts that the mesh splits it"
        r" into \(data 8\)",
    ):
        Loader(dataset(store), 12, mesh)
