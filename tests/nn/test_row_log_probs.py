"""Log-probabilities by row against the plain formula: values, gradients of each row, and memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import jaxprs_in_params
from jax.sharding import NamedSharding
from small_corpus import quick_compilation

from lm.models import encoder
from lm.nn import cross_entropy, heads, token_loss
from lm.nn.config import TransformerConfig
from lm.nn.layers import Scope
from lm.parallel import mesh, sharding

B, T, D, V = 4, 12, 8, 40
quick = pytest.fixture(quick_compilation, scope="module", autouse=True)


def draw(biased: bool, dtype=jnp.float32):
    """(hidden states, table, bias or None), targets, weights; a third of the weights is 0."""
    rng = np.random.default_rng(0)
    h, table, bias = rng.normal(size=(B, T, D)), rng.normal(size=(V, D)), rng.normal(size=V)
    weights = np.where(rng.random((B, T)) < 0.33, 0.0, 0.5 + rng.random((B, T)))
    inputs = (
        jnp.asarray(h, dtype),
        jnp.asarray(table, dtype),
        jnp.asarray(bias, jnp.float32) if biased else None,
    )
    targets = jnp.asarray(rng.integers(0, V, (B, T)), jnp.int32)
    return inputs, targets, jnp.asarray(weights, jnp.float32)


def chunked(chunks: int):
    def function(inputs, targets, weights):
        h, table, bias = inputs
        return cross_entropy.row_log_probs(h, table, targets, weights, chunks, bias)

    return function


def plain(inputs, targets, weights):
    """The definition, by automatic differentiation of the scores of all positions."""
    h, table, bias = inputs
    logits = jnp.einsum("BTD,VD->BTV", h, table, preferred_element_type=jnp.float32)
    if bias is not None:
        logits += bias[None, None]
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
    return (log_p * weights).sum(1)


def with_gradients(function, inputs, targets, weights):
    """The rows, and gradients for random cotangents of the rows."""
    cotangents_B = jnp.asarray(np.random.default_rng(1).normal(size=B), jnp.float32)

    def run(inputs, targets, weights):
        rows_B, pull = jax.vjp(lambda inputs: function(inputs, targets, weights), inputs)
        return rows_B, pull(cotangents_B)[0]

    return jax.jit(run)(inputs, targets, weights)


def assert_same(actual, expected, tolerance=1e-5):
    """Rows relative to each, gradients relative to the largest element of each array."""
    np.testing.assert_allclose(actual[0], expected[0], rtol=tolerance)
    for one, other in zip(jax.tree.leaves(actual[1]), jax.tree.leaves(expected[1]), strict=True):
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        assert np.abs(other).max() > 0.1
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("chunks", [1, 3, 5])  # T is not a multiple of 5
def test_values_and_gradients_equal_the_plain_ones(chunks, biased):
    args = draw(biased)
    actual = with_gradients(chunked(chunks), *args)
    assert actual[0].shape == (B,)
    assert_same(actual, with_gradients(plain, *args))
    (h, table, bias), targets, weights = args
    sums = cross_entropy.cross_entropy(h, table, targets, weights, chunks, bias)
    np.testing.assert_allclose(actual[0], -sums.nll, rtol=1e-5)


def test_each_row_has_a_gradient_of_its_own():
    """The Jacobian of the rows: no row's value depends on another row's hidden states."""
    inputs, targets, weights = draw(True)
    rows = jax.jacrev(lambda h: chunked(2)((h, *inputs[1:]), targets, weights))
    jacobian = jax.jit(rows)(inputs[0])
    assert jacobian.shape == (B, B, T, D)
    depends = np.abs(jacobian).max((2, 3)) > 0
    np.testing.assert_array_equal(depends, np.eye(B, dtype=bool))


def test_bfloat16_is_close_and_keeps_its_dtype():
    args = draw(True, jnp.bfloat16)
    rows, gradients = with_gradients(chunked(3), *args)
    assert rows.dtype == jnp.float32
    assert [x.dtype for x in gradients] == [jnp.bfloat16, jnp.bfloat16, jnp.float32]
    inputs = tuple(x.astype(jnp.float32) for x in args[0])
    assert_same((rows, gradients), with_gradients(plain, inputs, *args[1:]), 0.02)


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ({"data": 2, "tensor": 4}, 3),
        ({"data": 4, "tensor": 2}, 1),
        ({"fsdp": 2, "context": 2, "tensor": 2}, 3),
    ],
)
def test_eight_devices(shape, chunks):
    """Rows over the batch axes, the vocabulary over tensor and the width over fsdp."""
    inputs, targets, weights = draw(True)
    expected = with_gradients(plain, inputs, targets, weights)
    grid = mesh.make(mesh.MeshConfig(**{"data": 1} | shape))

    def place(x, *names):
        return jax.device_put(x, NamedSharding(grid, sharding.spec(names)))

    h, table, bias = inputs
    split = (
        place(h, "batch", "length"),
        place(table, "vocabulary", "width"),
        place(bias, "vocabulary"),
    )
    assert split[1].addressable_shards[0].data.shape[0] == V // shape["tensor"]
    with jax.set_mesh(grid):
        actual = with_gradients(
            chunked(chunks), split, place(targets, "batch"), place(weights, "batch")
        )
    assert_same(actual, expected)


def shapes_in(jaxpr) -> set[tuple[int, ...]]:
    """Shapes of all values of a jaxpr and of those inside it."""
    shapes = set()
    for equation in jaxpr.eqns:
        shapes |= {tuple(getattr(variable.aval, "shape", ())) for variable in equation.outvars}
        for inner in jaxprs_in_params(equation.params):
            shapes |= shapes_in(inner)
    return shapes


@pytest.mark.parametrize("chunks", [1, 3])
def test_scores_of_one_chunk_at_a_time(chunks):
    """In both passes: no value has B · T · V elements unless there is one chunk."""
    inputs, targets, weights = draw(True)

    def run(inputs, cotangents_B):
        rows_B, pull = jax.vjp(lambda inputs: chunked(chunks)(inputs, targets, weights), inputs)
        return rows_B, pull(cotangents_B)

    sizes = {
        int(np.prod(shape)) for shape in shapes_in(jax.make_jaxpr(run)(inputs, jnp.ones(B)).jaxpr)
    }
    assert max(sizes) == B * T * V // chunks


@pytest.mark.parametrize("with_head", [False, True])
def test_a_batch_through_a_model(with_head):
    """token_loss.row_log_probs is `by_row` negated, and parameters get gradients through it."""
    config = TransformerConfig(
        vocab_size=V, width=D, heads=2, layers=1, max_length=T, head_chunks=3, tied=False
    )

    @jax.jit
    def build(key):
        model = encoder.Model(config, Scope(key))
        model.heads = nnx.Dict(masked=heads.MaskedHead(config, Scope(key) / "masked"))
        return nnx.split(model)

    graphdef, params = build(jax.random.key(0))
    rng = np.random.default_rng(2)
    batch = {
        "tokens": jnp.asarray(rng.integers(0, V, (B, T)), jnp.int32),
        "segments": jnp.ones((B, T), jnp.int32),
        "positions": jnp.broadcast_to(jnp.arange(T)[None], (B, T)),
        "target_positions": jnp.asarray(rng.integers(0, T, (B, 5)), jnp.int32),
        "targets": jnp.asarray(rng.integers(0, V, (B, 5)), jnp.int32),
        "weights": jnp.asarray(rng.random((B, 5)), jnp.float32),
    }

    def preference(params):
        """A loss that is not a sum over rows: each even row should be more likely than the next."""
        model = nnx.merge(graphdef, params)
        head = model.heads["masked"] if with_head else None
        rows_B = token_loss.row_log_probs(model, batch, head)
        expected = token_loss.by_row("x", model, batch, head)["x"][0]
        return -jax.nn.log_sigmoid(rows_B[::2] - rows_B[1::2]).sum(), (rows_B, expected)

    gradients, (rows_B, expected) = jax.jit(jax.grad(preference, has_aux=True))(params)
    np.testing.assert_allclose(rows_B, -expected, rtol=1e-5)
    flat = {"/".join(path): leaf[...] for path, leaf in nnx.to_flat_state(gradients)}
    for path in ("embedding/unembed", "stack/blocks/attention/value", "embedding/tokens"):
        assert np.abs(flat[path]).max() > 0, path
    assert (np.abs(flat["heads/masked/output_bias"]).max() > 0) == with_head
