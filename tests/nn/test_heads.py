"""Prediction heads: BERT's two by hand, poolings, and weighted sums."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.models import encoder
from lm.nn import heads
from lm.nn.config import TransformerConfig
from lm.nn.layers import Scope

D, V, B, T = 8, 11, 3, 6
CONFIG = TransformerConfig(
    width=D, heads=2, layers=1, vocab_size=V, max_length=T, norm_epsilon=1e-12
)
SEGMENTS = np.asarray([[1, 1, 1, 1, 1, 0], [1] * 6, [1, 1, 0, 0, 0, 0]], np.int32)
TYPES = np.asarray([[0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 1, 1], [0, 1, 0, 0, 0, 0]], np.int32)


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def filled(build):
    """The module with random numbers in every parameter, and these by path."""
    module = nnx.eval_shape(build)
    for seed, (_, variable) in enumerate(nnx.to_flat_state(nnx.state(module))):
        variable.set_value(jnp.asarray(draw(*variable.shape, seed=seed)))
    weights = {
        "/".join(path): np.asarray(variable[...], np.float64)
        for path, variable in nnx.to_flat_state(nnx.state(module))
    }
    return module, weights


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_masked_head(dtype):
    model, w = filled(lambda: encoder.Model(CONFIG, Scope(jax.random.key(0))))
    head, u = filled(lambda: heads.MaskedHead(CONFIG, Scope(jax.random.key(0))))
    h = draw(B, 2, D)
    x = h @ u["kernel"] + u["bias"]
    x = np.vectorize(lambda value: value * 0.5 * (1 + math.erf(value / math.sqrt(2))))(x)
    x = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True) * u["norm/scale"] + u[
        "norm/bias"
    ]
    expected = x @ w["embedding/tokens"].T + u["output_bias"]
    actual = head(model, jnp.asarray(h, dtype))
    assert actual.dtype == dtype
    np.testing.assert_allclose(
        actual.astype(jnp.float32), expected, rtol=0, atol=1e-5 if dtype == "float32" else 0.3
    )


def test_masked_head_of_a_gated_model_has_the_gates_activation():
    config = TransformerConfig(width=D, heads=2, vocab_size=V, max_length=T, activation="swiglu")
    head, _ = filled(lambda: heads.MaskedHead(config, Scope(jax.random.key(0))))
    assert head.activation == "silu"


def means(h, keep):
    """Mean of the kept rows of each example, by loops."""
    return np.stack(
        [
            h[row][keep[row]].mean(0) if keep[row].any() else np.zeros(h.shape[-1])
            for row in range(len(h))
        ]
    )


@pytest.mark.parametrize("pooling", heads.POOLINGS)
def test_pair_head(pooling):
    head, u = filled(lambda: heads.PairHead(CONFIG, Scope(jax.random.key(0)), pooling))
    h = draw(B, T, D).astype(np.float64)
    if pooling == "segments":
        first, second = (means(h, (SEGMENTS > 0) & (TYPES == part)) for part in (0, 1))
        first, second = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (first, second))
        features = math.sqrt(D) * np.concatenate(
            [first, second, abs(first - second), math.sqrt(D) * first * second], 1
        )
    else:
        pooled = h[:, 0] if pooling == "first" else means(h, SEGMENTS > 0)
        features = np.tanh(pooled @ u["kernel"] + u["bias"])
    expected = features @ u["output"] + u["output_bias"]
    actual = head(jnp.asarray(h, jnp.float32), jnp.asarray(SEGMENTS), jnp.asarray(TYPES))
    assert actual.shape == (B, 1, 2)
    np.testing.assert_allclose(actual[:, 0], expected, rtol=0, atol=3e-5)
    low = head(jnp.asarray(h, jnp.bfloat16), jnp.asarray(SEGMENTS), jnp.asarray(TYPES))
    assert low.dtype == jnp.float32


@pytest.mark.parametrize("pooling", heads.POOLINGS)
def test_pairs_of_one_row_are_scored_as_if_alone(pooling):
    head, _ = filled(lambda: heads.PairHead(CONFIG, Scope(jax.random.key(0)), pooling))
    h, types = (
        jnp.asarray(draw(1, 2 * T, D)),
        jnp.asarray(np.tile([[0, 0, 1, 1, 1, 0]], 2), jnp.int32),
    )
    one = jnp.asarray([[1, 1, 1, 1, 1, 0]], jnp.int32)
    both = head(h, jnp.concatenate([one, 2 * one], 1), types, 3)
    assert both.shape == (1, 3, 2) and np.isfinite(both).all()
    for slot, part in enumerate((slice(0, T), slice(T, 2 * T))):
        np.testing.assert_allclose(
            both[:, slot], head(h[:, part], one, types[:, part])[:, 0], rtol=0, atol=1e-5
        )
    assert np.abs(both[0, 0] - both[0, 1]).max() > 1e-3


@pytest.mark.parametrize("pooling", heads.POOLINGS)
def test_padding_is_not_pooled(pooling):
    head, _ = filled(lambda: heads.PairHead(CONFIG, Scope(jax.random.key(0)), pooling))

    def total(h):
        return head(h, jnp.asarray(SEGMENTS), jnp.asarray(TYPES)).sum()

    reached = np.abs(jax.grad(total)(jnp.asarray(draw(B, T, D)))).max(-1) > 0
    expected = np.broadcast_to(np.arange(T) == 0, (B, T)) if pooling == "first" else SEGMENTS > 0
    np.testing.assert_array_equal(reached, expected)


def test_pair_head_by_segments_starts_at_zero_and_has_gradients_for_an_empty_segment():
    head = heads.PairHead(CONFIG, Scope(jax.random.key(0)), "segments")
    h, segments, types = (
        jnp.asarray(draw(B, T, D)),
        jnp.asarray(SEGMENTS),
        jnp.zeros((B, T), jnp.int32),
    )
    np.testing.assert_array_equal(head(h, segments, types), 0)
    head.output.set_value(jnp.asarray(draw(4 * D, 2)))
    gradient = jax.grad(lambda h: head(h, segments, types).sum())(h)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_mean():
    h, keep = draw(B, T, D), np.asarray(SEGMENTS > 0)
    keep[1] = False
    np.testing.assert_allclose(
        heads.mean(jnp.asarray(h), jnp.asarray(keep)), means(h, keep), atol=1e-6
    )


def test_classify():
    logits, targets = 3 * draw(B, T, V), np.random.default_rng(0).integers(0, V, (B, T))
    logits[0, 0, targets[0, 0]] = 20.0
    weights = np.where(SEGMENTS > 0, 1.5, 0.0).astype(np.float32)
    exact = logits.astype(np.float64)
    nll = np.log(np.exp(exact).sum(-1)) - np.take_along_axis(exact, targets[..., None], -1)[..., 0]
    hits = exact.argmax(-1) == targets
    (loss, weight), (hits_sum, hits_weight) = heads.classify(
        jnp.asarray(logits), jnp.asarray(targets), jnp.asarray(weights)
    )
    np.testing.assert_allclose(
        [loss, weight, hits_sum, hits_weight],
        [(nll * weights).sum(), 19.5, (hits * weights).sum(), 19.5],
        rtol=1e-5,
    )
    assert hits_sum > 0
    # Sums add up over any split; means do not.
    parts = [
        heads.classify(*(jnp.asarray(x[row]) for x in (logits, targets, weights)))
        for row in range(B)
    ]
    np.testing.assert_allclose(
        sum(part[0][0] for part in parts) / sum(part[0][1] for part in parts),
        loss / weight,
        rtol=1e-6,
    )


def test_classify_is_float32_whatever_the_scores_are():
    sums = heads.classify(
        jnp.zeros((4, 1000), jnp.bfloat16), jnp.zeros(4, jnp.int32), jnp.ones(4, jnp.bfloat16)
    )
    assert {x.dtype for x in jax.tree.leaves(sums)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(sums[0][0], 4 * math.log(1000), rtol=1e-6)
