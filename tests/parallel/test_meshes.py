"""Losses and gradients on eight devices equal those of one on every mesh, with dropout too."""

import functools

import jax
import numpy as np
import pytest
from small_corpus import Ids, config, numbers, quick_compilation, random_store

from lm.data import loader
from lm.parallel import mesh as meshes
from lm.training.program import Program, divide_sums
from lm.training.validation import Validation

VOCABULARY = 64
KINDS = {
    "data": {"data": 8},
    "fsdp": {"fsdp": 8},
    "slices": {"slice": 2, "fsdp": 4},
    "tensor": {"data": 2, "tensor": 4},
    "gather": {"data": 2, "context": 4},
    "ring": {"data": 2, "context": 4, "context_attention": "ring"},
    "pipeline": {"data": 2, "stage": 4},
    "circular": {"data": 4, "stage": 2, "pipeline_microbatches": 4, "pipeline_repeats": 2},
}
PRODUCTS = {
    "fsdp × tensor": {"data": 2, "fsdp": 2, "tensor": 2},
    "fsdp × context × tensor": {"fsdp": 2, "context": 2, "tensor": 2},
    "stage × ring": {"data": 2, "stage": 2, "context": 2, "context_attention": "ring"},
    "slices × stage × tensor": {"slice": 2, "stage": 2, "tensor": 2},
}
PAIRS = {
    "encoder mlm": ("encoder", "mlm", {"positions": "learned", "types": 2, "dropout": 0.1}),
    "decoder clm": (
        "decoder",
        "clm",
        {"positions": "rotary", "kv_heads": 4, "heads": 8, "head_width": 8, "dropout": 0.1},
    ),
    "decoder mlm": ("decoder", "mlm", {"positions": "learned"}),
    "decoder span_corruption": ("decoder", "span_corruption", {"positions": "rotary"}),
    "encoder_decoder span_corruption": (
        "encoder_decoder",
        "span_corruption",
        {"positions": "relative"},
    ),
}
# Every kind with every pair; products with the pairs that compile quickly, and the product of most
# axes with the largest model.
CASES = [
    *((pair, mesh) for pair in PAIRS for mesh in KINDS),
    *((pair, mesh) for pair in ("encoder mlm", "decoder clm") for mesh in PRODUCTS),
    ("encoder_decoder span_corruption", "slices × stage × tensor"),
]
MESHES = KINDS | PRODUCTS
quick = pytest.fixture(quick_compilation, scope="module", autouse=True)


def build(pair: str, mesh: dict, devices: int) -> Program:
    name, objective, fields = PAIRS[pair]
    model = {
        "name": name,
        "layers": 4,
        "heads": 4,
        "width": 32,
        "query_key_start": "independent",
        "scan": True,
        "head_chunks": 3,
    } | fields
    section = config(objective, model=model, mesh={"data": 1} | mesh, training={"batch_size": 16})
    return Program(section, Ids(VOCABULARY, 20), jax.devices()[:devices])


@functools.cache
def store():
    return random_store(VOCABULARY, 60)


def gradients(program: Program) -> tuple:
    """(gradients, sums) of the first batch, at parameters none of which is zero."""
    rows = loader.examples(program.objective, store(), program.objective.plan(store()), 0).repeat(
        None
    )
    batch = next(loader.Loader(rows, program.training.batch_size, program.mesh))
    params = jax.device_put(numbers(program.shapes["params"]), program.shardings["params"])
    return jax.device_get(program.gradients(params, batch, step=3))


@functools.cache
def one_device(pair: str) -> tuple:
    return gradients(build(pair, {}, 1))


@pytest.mark.parametrize(("pair", "mesh"), CASES)
def test_eight_devices_compute_what_one_does(pair, mesh):
    actual, sums = gradients(build(pair, MESHES[mesh], 8))
    expected, expected_sums = one_device(pair)
    for name, expected_sum in expected_sums.items():
        np.testing.assert_allclose(sums[name], expected_sum, rtol=1e-5, err_msg=name)
    for path, leaf in jax.tree_util.tree_leaves_with_path(expected):
        other = functools.reduce(lambda tree, key: tree[key.key], path, actual)
        assert np.linalg.norm(leaf) > 0, path
        assert np.linalg.norm(leaf - other) <= 1e-5 * np.linalg.norm(leaf), path


def test_initial_values_do_not_depend_on_the_mesh():
    """They are equal to the last bit on a mesh that splits layers, matrices and rows."""
    programs = [
        build("decoder clm", mesh, devices)
        for mesh, devices in (({}, 1), ({"fsdp": 2, "stage": 2, "tensor": 2}, 8))
    ]
    one, eight = (jax.device_get(program.init()) for program in programs)
    jax.tree.map(np.testing.assert_array_equal, one, eight)
    assert any(np.std(leaf) > 0 for leaf in jax.tree.leaves(one["params"]))


def test_validation_takes_batches_that_the_mesh_divides():
    program = build("decoder clm", {"data": 8}, 8)
    small = Validation(program, program.objective, store(), "validation", 4096, 3)
    assert small.size == 8
    means = divide_sums(
        small.sums(jax.device_put(numbers(program.shapes["params"]), program.shardings["params"]))
    )
    assert np.isfinite(means["clm"])


@pytest.mark.parametrize(
    "sizes", [{"data": 1, "fsdp": 16}, {"fsdp": 16}, {"data": 1, "fsdp": 4}, {"fsdp": 3}]
)
def test_sizes_that_do_not_fit_the_devices_have_their_own_error(sizes):
    with pytest.raises(meshes.DeviceMismatch, match="the product must be 8"):
        meshes.make(meshes.MeshConfig(**sizes))


def initialized(monkeypatch, on_tpu: bool, fails: bool = False, **environment: str) -> int:
    """The number of times that JAX looks for peers."""
    calls: list[dict] = []

    def initialize(**options):
        calls.append(options)
        if fails:
            raise RuntimeError("no cloud")

    for name in (
        "LM_COORDINATOR",
        "TPU_WORKER_HOSTNAMES",
        "TPU_PROCESS_ADDRESSES",
        "MEGASCALE_NUM_SLICES",
    ):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(meshes, "_has_chips", lambda: on_tpu)
    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    meshes.initialize()
    return len(calls)


def test_tpu_hosts_look_for_their_peers(monkeypatch):
    # On Compute Engine nothing in the environment names a host's peers.
    assert initialized(monkeypatch, on_tpu=True) == 1
    assert initialized(monkeypatch, on_tpu=False) == 0
    assert initialized(monkeypatch, on_tpu=False, TPU_WORKER_HOSTNAMES="a,b") == 1
    assert (
        initialized(monkeypatch, on_tpu=False, TPU_WORKER_HOSTNAMES="a", MEGASCALE_NUM_SLICES="2")
        == 1
    )
    assert initialized(monkeypatch, on_tpu=True, fails=True) == 1  # a single host without a cloud
    with pytest.raises(RuntimeError):
        initialized(monkeypatch, on_tpu=True, fails=True, TPU_WORKER_HOSTNAMES="a,b")
