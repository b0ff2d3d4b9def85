"""The pipeline's schedule: the order of computation, and which meshes are refused.

test_meshes.py tests that a pipeline does not change the loss and the gradients.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_corpus import Ids, config, numbers

from lm.core.plugins import UserError
from lm.nn.layers import DropoutKeys
from lm.parallel import mesh as meshes
from lm.parallel import pipeline
from lm.training.program import Program


@pytest.mark.parametrize(
    ("stages", "microbatches", "repeats", "expected"),
    [(4, 4, 1, 3 / 7), (4, 16, 1, 3 / 19), (4, 8, 2, 3 / 19), (1, 8, 1, 0)],
)
def test_bubble(stages, microbatches, repeats, expected):
    """GPipe: (S - 1) / (M + S - 1). Narayanan et al. 2021: (S - 1) / (R M) of the work."""
    bubble = pipeline.bubble(stages, microbatches, repeats)
    assert bubble == pytest.approx(expected)
    assert bubble / (1 - bubble) == pytest.approx((stages - 1) / (repeats * microbatches))


@pytest.mark.parametrize(
    ("stages", "microbatches", "repeats"),
    [(2, 2, 1), (2, 4, 1), (4, 2, 1), (2, 2, 2), (2, 3, 3), (4, 4, 2)],
)
def test_each_row_passes_every_layer_once_and_in_order(stages, microbatches, repeats):
    """Layer l maps x to 3 x + l + (the row's number): another order or number of layers differs."""
    layers, rows = stages * repeats * 2, microbatches * 2
    shape = {
        "data": 1,
        "stage": stages,
        "pipeline_microbatches": microbatches,
        "pipeline_repeats": repeats,
    }
    settings = meshes.MeshConfig(**shape)
    grid = meshes.make(settings, jax.devices()[:stages])
    x = np.random.default_rng(0).normal(size=(rows, 4, 2)).astype(np.float32)

    def group(blocks, x, numbers):
        for index in range(len(blocks)):
            x = 3 * x + blocks[index] + numbers[:, None, None]
        return x

    expected = x
    for layer in range(layers):
        expected = 3 * expected + layer + np.arange(rows)[:, None, None]
    with meshes.use(grid, settings):
        actual = jax.jit(lambda blocks, x, rows: pipeline.run(group, blocks, x, rows))(
            np.arange(layers, dtype=np.float32), x, np.arange(rows, dtype=np.float32)
        )
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def build(**mesh):
    training = {
        "batch_size": mesh.pop("batch_size", 8),
        "microbatches": mesh.pop("microbatches", 1),
    }
    section = config(
        "clm", mesh={"data": 1} | mesh, model={"layers": 4, "dropout": 0.1}, training=training
    )
    return Program(section, Ids(64), jax.devices()[: mesh.get("stage", 1) * mesh.get("data", 1)])


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        (
            {"stage": 3, "batch_size": 9},
            r"layers=4 is not a multiple of config\.mesh\.stage × pipeline_repeats = 3 × 1",
        ),
        (
            {"stage": 2, "pipeline_repeats": 4},
            r"layers=4 is not a multiple of config\.mesh\.stage × pipeline_repeats = 2 × 4",
        ),
        ({"stage": 4, "pipeline_microbatches": 3, "batch_size": 12, "pipeline_repeats": 1}, ""),
        (
            {"stage": 2, "pipeline_microbatches": 1, "pipeline_repeats": 2},
            r"would be back before its turn; raise it",
        ),
        (
            {"stage": 2, "pipeline_microbatches": 3},
            r"8 rows are not a multiple of config\.mesh\.pipeline_microbatches × .* = 3 × 1",
        ),
        (
            {"stage": 2, "data": 2, "microbatches": 2, "pipeline_microbatches": 4},
            r"4 rows are not a multiple of .* × .* = 4 × 2",
        ),
        (
            {"stage": 2, "data": 2, "microbatches": 4},
            r"\(data 2 × stage 2\) times config\.training\.microbatches=4; choose",
        ),
        (
            {"pipeline_microbatches": 4},
            r"_microbatches=4 and pipeline_repeats=1 are of a pipeline, but config\.mesh\.stage=1",
        ),
        ({"stage": 4, "pipeline_repeats": 0}, r"pipeline_repeats=0 at least 1"),
        (
            {"stage": 4, "data": 2, "batch_size": 12},
            r"batch_size=12 is not a multiple of the 8 parts .*\(data 2 × stage 4\)",
        ),
    ],
)
def test_impossible_pipelines_are_refused(mesh, message):
    if not message:
        build(**mesh)
        return
    with pytest.raises(UserError, match=message):
        build(**mesh)


@pytest.mark.parametrize(
    ("rows", "mesh", "expected"),
    [
        (64, {"stage": 2, "pipeline_microbatches": 16}, 16),
        (22, {"stage": 2, "pipeline_microbatches": 16}, 11),
        (3, {"stage": 2, "pipeline_microbatches": 4, "pipeline_repeats": 2}, 3),
        # One microbatch would be back before its turn.
        (1, {"stage": 2, "pipeline_microbatches": 4, "pipeline_repeats": 2}, 0),
        (12, {"data": 2, "stage": 2, "pipeline_microbatches": 4}, 3),
        (5, {"data": 2, "stage": 2}, 0),
        (8, {"data": 2}, 0),
    ],
)
def test_evaluation_uses_as_many_microbatches_as_divide_its_batch(rows, mesh, expected):
    settings = meshes.MeshConfig(**{"data": 1} | mesh)
    with meshes.use(
        meshes.make(settings, jax.devices()[: settings.data * settings.stage]), settings
    ):
        assert pipeline.num_microbatches(rows) == expected


@pytest.mark.parametrize("rows", [1, 3, 6])
def test_a_batch_that_fills_no_pipeline_is_computed_without_one(rows):
    tokens = jnp.asarray(np.random.default_rng(0).integers(7, 64, (rows, 32)), jnp.int32)
    results = []
    for mesh in ({}, {"stage": 2, "pipeline_microbatches": 4, "pipeline_repeats": 2}):
        program = build(**mesh)

        def hidden(params, program=program):
            positions = jnp.tile(jnp.arange(32), (rows, 1))
            return program.model(params).hidden(
                tokens, segments_BT=jnp.ones_like(tokens), positions_BT=positions
            )

        with meshes.use(program.mesh, program.mesh_config):
            results.append(
                np.asarray(
                    jax.jit(hidden)(
                        jax.device_put(
                            numbers(program.shapes["params"]), program.shardings["params"]
                        )
                    )
                )
            )
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5, atol=1e-5)


def test_dropout_differs_between_rows():
    program = build(stage=2)
    params = numbers(program.shapes["params"])
    tokens = jnp.tile(jnp.arange(7, 39, dtype=jnp.int32), (8, 1))  # all rows alike

    def hidden(params, dropout_keys):
        model = program.model(params)
        return model.hidden(
            tokens,
            segments_BT=jnp.ones_like(tokens),
            positions_BT=jnp.tile(jnp.arange(32), (8, 1)),
            dropout_keys=dropout_keys,
        )

    with meshes.use(program.mesh, program.mesh_config):
        plain, drawn = (
            jax.jit(hidden)(params, dropout_keys)
            for dropout_keys in (None, DropoutKeys(jax.random.key(0), jnp.arange(8)))
        )
    np.testing.assert_allclose(plain, np.broadcast_to(plain[:1], plain.shape), rtol=1e-5)
    assert np.abs(np.asarray(drawn)[0] - np.asarray(drawn)[1]).max() > 1e-3
