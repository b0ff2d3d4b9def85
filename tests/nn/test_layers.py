"""Norms, dropout, feed-forward layers and embeddings against NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.nn import layers
from lm.nn.config import TransformerConfig
from lm.nn.embedding import Embedding
from lm.nn.layers import Scope
from lm.nn.positions import sinusoids

TINY = {"width": 16, "heads": 4, "vocab_size": 24, "max_length": 8}


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def scope(seed: int = 0) -> Scope:
    return Scope(jax.random.key(seed))


def filled(build):
    """The module that `build` makes, with random numbers in every parameter."""
    module = nnx.eval_shape(build)
    for seed, (_, variable) in enumerate(nnx.to_flat_state(nnx.state(module))):
        variable.set_value(jnp.asarray(draw(*variable.shape, seed=seed)))
    return module


def flat(model) -> dict[str, np.ndarray]:
    return {
        "/".join(map(str, path)): np.asarray(value[...])
        for path, value in nnx.to_flat_state(nnx.state(model))
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("kind", "bias"), [("layer", True), ("layer", False), ("rms", True)])
def test_norm(kind, bias, dtype):
    norm = filled(
        lambda: layers.Norm(
            TransformerConfig(**TINY, norm=kind, norm_bias=bias, norm_epsilon=0.1), scope()
        )
    )
    w = flat(norm)
    assert ("bias" in w) == (kind == "layer" and bias)
    x = jnp.asarray(3 + 2 * draw(2, 5, 16), dtype)
    y = np.asarray(x, np.float64)
    if kind == "layer":
        y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 0.1)
    else:
        y = y / np.sqrt((y**2).mean(-1, keepdims=True) + 0.1)
    y = y * w["scale"] + w.get("bias", 0)
    assert norm(x).dtype == dtype
    np.testing.assert_allclose(
        np.asarray(norm(x), np.float64), y, rtol=0, atol=2e-6 if dtype == "float32" else 0.02
    )


def test_layer_norm_of_a_large_mean_keeps_its_digits():
    """The variance is of centered values: E x² − (E x)² would lose it."""
    x = 1000 + draw(1, 1, 16).astype(np.float64)
    expected = (x - x.mean()) / np.sqrt(x.var() + 1e-6)
    norm = nnx.eval_shape(lambda: layers.Norm(TransformerConfig(**TINY), scope()))
    norm.scale.set_value(jnp.ones(16)), norm.bias.set_value(jnp.zeros(16))
    np.testing.assert_allclose(norm(jnp.asarray(x, jnp.float32)), expected, atol=5e-4)


def dropout_keys(seed, rows):
    return layers.DropoutKeys(jax.random.key(seed), jnp.arange(rows))


def test_dropout():
    x = jnp.asarray(1 + np.abs(draw(400, 250)))
    assert layers.dropout(x, 0.3, None) is x
    assert layers.dropout(x, 0.0, dropout_keys(0, len(x))) is x
    y = layers.dropout(x, 0.3, dropout_keys(0, len(x)))
    kept = np.asarray(y) != 0
    np.testing.assert_allclose(y[kept], x[kept] / 0.7, rtol=1e-6)
    assert abs(kept.mean() - 0.7) < 0.006  # four standard deviations
    assert abs(y.mean() / x.mean() - 1) < 0.01
    np.testing.assert_array_equal(y, layers.dropout(x, 0.3, dropout_keys(0, len(x))))
    assert (np.asarray(y) != layers.dropout(x, 0.3, dropout_keys(1, len(x)))).any()
    assert (
        layers.dropout(x.astype(jnp.bfloat16), 0.3, dropout_keys(0, len(x))).dtype == jnp.bfloat16
    )


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "silu", "swiglu", "geglu"])
@pytest.mark.parametrize("bias", [True, False])
def test_feed_forward(activation, bias):
    block = filled(
        lambda: layers.FeedForward(
            TransformerConfig(**TINY, feedforward=20, activation=activation, bias=bias), scope()
        )
    )
    assert ("up_bias" in flat(block)) == bias
    w = {name: value.astype(np.float64) for name, value in flat(block).items()}
    normal = np.vectorize(lambda x: 0.5 * (1 + math.erf(x / math.sqrt(2))))
    curve = {
        "gelu": lambda x: x * normal(x),
        "gelu_tanh": lambda x: (
            0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        ),
        "relu": lambda x: np.maximum(x, 0),
        "silu": lambda x: x / (1 + np.exp(-x)),
    }
    x = 0.3 * draw(2, 3, 16)
    up = x @ w["up"] + w.get("up_bias", 0)
    gate = {"swiglu": "silu", "geglu": "gelu_tanh"}.get(activation)
    hidden = up * curve[gate](x @ w["gate"]) if gate else curve[activation](up)
    np.testing.assert_allclose(
        block(jnp.asarray(x)), hidden @ w["down"] + w.get("down_bias", 0), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary"])
def test_embedding(positions):
    config = TransformerConfig(**TINY, positions=positions, types=2, embedding_scaled=True)
    embedding = filled(lambda: Embedding(config, scope()))
    w = flat(embedding)
    tokens, places, types = (
        jnp.asarray([[3, 23, 3]]),
        jnp.asarray([[0, 5, 2]]),
        jnp.asarray([[0, 1, 1]]),
    )
    table = {
        "learned": w.get("positions"),
        "sinusoidal": np.asarray(sinusoids(8, 16)),
        "rotary": np.zeros((8, 16)),
    }[positions]
    expected = 4 * w["tokens"][tokens] + table[places] + w["types"][types]
    np.testing.assert_allclose(embedding(tokens, places, types, None), expected, atol=3e-6)
    np.testing.assert_allclose(
        embedding(tokens, places, None, None),
        expected + w["types"][0] - w["types"][types],
        atol=3e-6,
    )
    assert ("positions" in w) == (positions == "learned")


@pytest.mark.parametrize("tied", [True, False])
def test_logits(tied):
    embedding = filled(
        lambda: Embedding(TransformerConfig(**TINY, tied=tied, logits_scaled=True), scope())
    )
    table = flat(embedding)["tokens" if tied else "unembed"]
    h = draw(2, 3, 16)
    np.testing.assert_allclose(embedding.logits(jnp.asarray(h)), h @ table.T / 4, atol=3e-6)
    np.testing.assert_allclose(embedding.logits(jnp.asarray(h[0])), h[0] @ table.T / 4, atol=3e-6)
