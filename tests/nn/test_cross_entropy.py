"""The chunked cross-entropy is the plain one: value, hits and gradients; and takes less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from lm.nn import cross_entropy, heads
from lm.parallel import mesh, sharding

# Without the fusion emitters of XLA's CPU backend compiling takes a quarter of the time.
jit = functools.partial(jax.jit, compiler_options={"xla_cpu_use_fusion_emitters": False})
B, T, D, V = 4, 12, 8, 40


def draw(dtype=jnp.float32):
    """Hidden states, table, targets, weights; a third of the weights is 0, one is 2.5."""
    random = np.random.default_rng(0)
    h, table = random.normal(size=(B, T, D)), random.normal(size=(V, D))
    targets = random.integers(0, V, (B, T))
    weights = (random.random((B, T)) < 0.67).astype(np.float32)
    weights[0, 0], weights[0, 1] = 2.5, 0
    h[1, 2] = 3 * table[targets[1, 2]]  # certainly a hit
    return (
        jnp.asarray(h, dtype),
        jnp.asarray(table, dtype),
        jnp.asarray(targets, jnp.int32),
        jnp.asarray(weights),
    )


def plain(h, table, targets, weights):
    """heads.classify of the logits of all positions: the sum, and nll and hits of each row."""
    logits = jnp.einsum("BTD,VD->BTV", h, table, preferred_element_type=jnp.float32)
    rows = [heads.classify(logits[row], targets[row], weights[row]) for row in range(len(h))]
    nll, hits = (jnp.stack([row[part][0] for row in rows]) for part in (0, 1))
    return cross_entropy.Sums(heads.classify(logits, targets, weights)[0][0], nll, hits)


@functools.cache
def with_gradients(function):
    """3 · loss and (loss, nll, hits), and the gradients of 3 · loss to hidden states and table."""

    def loss(h, table, targets, weights):
        sums = function(h, table, targets, weights)
        return 3 * sums.loss, sums

    return jit(jax.value_and_grad(loss, (0, 1), has_aux=True))


@functools.cache
def chunked(chunks):
    return lambda *args: cross_entropy.cross_entropy(*args, chunks)


def assert_same(actual, expected, tolerance):
    """Relative to the largest element of each gradient."""
    (_, sums), gradients = actual
    (_, expected_sums), expected_gradients = expected
    assert sums.loss.shape == () and sums.nll.shape == sums.hits.shape == (B,)
    np.testing.assert_allclose(sums.loss, expected_sums.loss, rtol=tolerance)
    np.testing.assert_allclose(sums.nll, expected_sums.nll, rtol=tolerance)
    np.testing.assert_allclose(sums.hits, expected_sums.hits, rtol=1e-6)
    assert sums.hits.sum() > 0
    for one, other in zip(gradients, expected_gradients, strict=True):
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        assert np.abs(other).max() > 0
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


@pytest.mark.parametrize("chunks", [1, 2, 12])
def test_equals_the_plain_loss(chunks):
    args = draw()
    assert_same(with_gradients(chunked(chunks))(*args), with_gradients(plain)(*args), 2e-6)


def test_against_numpy():
    h, table, targets, weights = (np.asarray(x, np.float64) for x in draw())
    targets = targets.astype(int)
    logits = h @ table.T
    powers = np.exp(logits)
    softmax = powers / powers.sum(-1, keepdims=True)
    is_target = np.eye(V)[targets]
    nll = -(np.log((softmax * is_target).sum(-1)) * weights).sum(1)
    hits = ((logits.argmax(-1) == targets) * weights).sum(1)
    d_logits = (softmax - is_target) * weights[..., None] * 3
    sums = cross_entropy.Sums(nll.sum(), nll, hits)
    expected = ((3 * sums.loss, sums), (d_logits @ table, np.einsum("BTV,BTD->VD", d_logits, h)))
    assert_same(with_gradients(chunked(2))(*draw()), expected, 2e-6)


def test_bfloat16_is_close_and_keeps_its_dtype():
    low = with_gradients(chunked(2))(*draw(jnp.bfloat16))
    (_, sums), gradients = low
    assert {x.dtype for x in sums} == {jnp.dtype("float32")}
    assert [x.dtype for x in gradients] == [jnp.bfloat16, jnp.bfloat16]
    # Against float32 on the same rounded numbers.
    exact = with_gradients(plain)(
        *(x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x for x in draw(jnp.bfloat16))
    )
    np.testing.assert_allclose(
        sums.loss, exact[0][1].loss, rtol=1e-5
    )  # scores are summed in float32
    assert_same(low, exact, 0.02)


def test_only_the_loss_has_a_gradient():
    h, table, targets, weights = draw()
    for name in ("nll", "hits"):
        gradients = jax.grad(
            lambda h, table, name=name: getattr(chunked(2)(h, table, targets, weights), name).sum(),
            (0, 1),
        )(h, table)
        for gradient in gradients:
            np.testing.assert_array_equal(gradient, 0)


def test_weights_zero():
    h, table, targets, weights = draw()
    (_, sums), gradients = with_gradients(chunked(2))(h, table, targets, 0 * weights)
    assert sums.loss == 0 and not sums.nll.any() and not sums.hits.any()
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, 0)
    # A position of weight 0 gets no gradient, and its contents do not matter.
    _, (d_h, d_table) = with_gradients(chunked(2))(h, table, targets, weights)
    np.testing.assert_array_equal(d_h[0, 1], 0)
    assert (np.asarray(d_h[0, 0]) != 0).all()
    _, (_, again) = with_gradients(chunked(2))(
        h.at[0, 1].set(9.0), table, targets.at[0, 1].set(0), weights
    )
    np.testing.assert_allclose(again, d_table, atol=1e-6)


def test_large_scores_are_finite():
    h, table, targets, weights = draw()
    (_, sums), gradients = with_gradients(chunked(2))(1e4 * h, table, targets, weights)
    assert (
        np.isfinite(sums.loss)
        and np.isfinite(sums.nll).all()
        and all(np.isfinite(gradient).all() for gradient in gradients)
    )


@pytest.mark.parametrize("chunks", [1, 3])
def test_sharded_over_eight_devices(chunks):
    """As in training: rows over data and fsdp, the vocabulary over tensor, the width over fsdp."""
    grid = mesh.make(mesh.MeshConfig(data=2, fsdp=2, tensor=2))
    args = draw()
    rows, tables = sharding.spec(("batch", None)), sharding.spec(("vocabulary", "width"))
    split = [
        jax.device_put(x, NamedSharding(grid, spec))
        for x, spec in zip(args, (rows, tables, rows, rows), strict=True)
    ]
    assert split[1].addressable_shards[0].data.shape == (V // 2, D // 2)
    out = (
        NamedSharding(grid, PartitionSpec()),
        (NamedSharding(grid, rows), NamedSharding(grid, tables)),
    )
    with jax.set_mesh(grid):
        actual = jit(with_gradients(chunked(chunks)).__wrapped__, out_shardings=out)(*split)
    assert actual[1][1].addressable_shards[0].data.shape == (V // 2, D // 2)
    assert_same(actual, with_gradients(plain)(*args), 2e-6)


def test_gradients_cross_devices_once_however_many_chunks():
    """They are no wider than the table: devices are summed after the last chunk."""
    grid = mesh.make(mesh.MeshConfig(data=4, tensor=2))
    rows, tables = (
        NamedSharding(grid, sharding.spec(names))
        for names in (("batch", None), ("vocabulary", "width"))
    )
    for dtype in (jnp.float32, jnp.bfloat16):
        split = [
            jax.device_put(x, spec)
            for x, spec in zip(draw(dtype), (rows, tables, rows, rows), strict=True)
        ]
        with jax.set_mesh(grid):
            out = NamedSharding(grid, PartitionSpec()), (rows, tables)
            lowered = jax.jit(with_gradients(chunked(3)).__wrapped__, out_shardings=out).lower(
                *split
            )
        text = lowered.compile().as_text()
        sums = [
            line
            for line in text.splitlines()
            if " all-reduce(" in line and f"[{V // 2},{D}]" in line
        ]
        assert len(sums) == 1 and "while/body" not in sums[0], sums


def test_more_chunks_take_less_memory():
    shapes = [
        jax.ShapeDtypeStruct(shape, dtype)
        for shape, dtype in (((4, 64, 8), "float32"), ((1000, 8), "float32"))
    ]
    shapes += [jax.ShapeDtypeStruct((4, 64), dtype) for dtype in ("int32", "float32")]

    def peak(function):
        return (
            with_gradients(function).lower(*shapes).compile().memory_analysis().temp_size_in_bytes
        )

    scores = 4 * 64 * 1000 * 4  # bytes of all scores at once
    one, four, sixteen = peak(chunked(1)), peak(chunked(4)), peak(chunked(16))
    assert one >= scores
    assert four < 0.5 * one and sixteen < 0.5 * four
    assert sixteen < 0.5 * scores


def test_without_gradient_no_gradient_is_computed():
    """Evaluation computes the scores alone, one product instead of three."""
    args = draw()
    for chunks in (1, 2):
        texts = [
            function.lower(*args).compile().as_text()
            for function in (jax.jit(chunked(chunks)), with_gradients(chunked(chunks)))
        ]
        assert [text.count(" dot(") for text in texts] == [1, 3], chunks
