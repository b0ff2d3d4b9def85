"""Positions: rotary, sinusoidal, and T5's relative buckets."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.nn import tpu_layouts
from lm.nn.config import TransformerConfig
from lm.nn.embedding import RelativeBias
from lm.nn.layers import Scope
from lm.nn.positions import rotate, sinusoids


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def test_rotary_against_complex_numbers():
    """Dimensions i and i + H/2 are a complex number, turned by position · base^(-2i/H)."""
    x, positions = draw(2, 5, 3, 8), np.asarray([[0, 1, 2, 3, 4], [7, 0, 100, 1000, 5]])
    turn = np.exp(1j * positions[:, :, None, None] * 50.0 ** (-2 * np.arange(4) / 8))
    turned = (x[..., :4] + 1j * x[..., 4:]) * turn
    actual = rotate(jnp.asarray(x), jnp.asarray(positions, jnp.int32), 50.0)
    np.testing.assert_allclose(actual, np.concatenate([turned.real, turned.imag], -1), atol=2e-4)
    np.testing.assert_array_equal(actual[0, 0], x[0, 0])  # the identity at position 0
    np.testing.assert_allclose(
        np.linalg.norm(actual, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-5
    )


def test_rotary_scores_depend_on_the_distance_only():
    q, k = (
        jnp.broadcast_to(jnp.asarray(draw(1, 1, 2, 8, seed=seed)), (1, 40, 2, 8)) for seed in (1, 2)
    )
    positions = jnp.arange(40)[None]
    scores = jnp.einsum(
        "BTNH,BSNH->BNTS",
        rotate(q, positions, 10000.0),
        rotate(k, positions, 10000.0),
    )
    for offset in range(-39, 40):
        diagonal = np.diagonal(scores[0], offset, axis1=1, axis2=2)
        np.testing.assert_allclose(
            diagonal, np.broadcast_to(diagonal[:, :1], diagonal.shape), atol=1e-5
        )
    assert np.abs(np.diff(scores[0, 0, 0])).min() > 1e-4  # the scores of different distances differ


@pytest.mark.parametrize("width", [8, tpu_layouts.LANES])
def test_rotation_in_bfloat16_is_the_rounded_one_of_float32(width):
    """Values and gradients are equal bit for bit, also where heads fill a register."""
    x, direction = (jnp.asarray(draw(2, 16, 3, width, seed=seed), jnp.bfloat16) for seed in (1, 2))
    positions = jnp.broadcast_to(3 * jnp.arange(16)[None], (2, 16))
    low, low_back = jax.vjp(lambda x: rotate(x, positions, 10000.0), x)
    full, full_back = jax.vjp(lambda x: rotate(x, positions, 10000.0), x.astype(jnp.float32))
    assert low.dtype == jnp.bfloat16 and full.dtype == jnp.float32
    np.testing.assert_array_equal(low, full.astype(jnp.bfloat16))
    np.testing.assert_array_equal(
        low_back(direction)[0], full_back(direction.astype(jnp.float32))[0].astype(jnp.bfloat16)
    )


def bucket_by_hand(offset: int, bidirectional: bool, count: int, distance: int) -> int:
    """T5's rule without logarithms.

    Bucket exact + j starts where (n / exact)^steps reaches (distance / exact)^j.
    """
    side = count // 2 if bidirectional else count
    n = abs(offset) if bidirectional else max(-offset, 0)
    exact = side // 2
    bucket = n
    if n >= exact:
        steps = side - exact
        # In integers: n^steps · exact^j ≥ distance^j · exact^steps.
        reached = [j for j in range(steps) if n**steps * exact**j >= distance**j * exact**steps]
        bucket = exact + max(reached)
    return bucket + (side if bidirectional and offset > 0 else 0)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("count", "distance"), [(32, 128), (8, 20), (16, 100), (4, 9)])
def test_relative_buckets(count, distance, bidirectional):
    config = TransformerConfig(
        heads=2, positions="relative", relative_buckets=count, relative_distance=distance
    )
    scope = Scope(jax.random.key(0))
    bias = nnx.eval_shape(lambda: RelativeBias(config, scope, bidirectional=bidirectional))
    bias.table.set_value(jnp.arange(2.0 * count).reshape(count, 2))
    out = np.asarray(bias(150, 140))
    assert out.shape == (1, 2, 150, 140)
    rule = {
        offset: bucket_by_hand(offset, bidirectional, count, distance)
        for offset in range(-149, 140)
    }
    expected = np.asarray([[rule[s - t] for s in range(140)] for t in range(150)])
    np.testing.assert_array_equal(out[0], [2 * expected, 2 * expected + 1])


@pytest.mark.parametrize("width", [8, 7])
def test_sinusoids(width):
    table = sinusoids(50, width)
    half = (width + 1) // 2
    for position in (0, 1, 49):
        angles = [position / 10000 ** (i / half) for i in range(half)]
        expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        np.testing.assert_allclose(table[position], expected[:width], atol=1e-6)
