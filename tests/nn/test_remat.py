"""Rematerialization changes memory and time, and nothing else."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.models import decoder
from lm.nn import layers, remat
from lm.nn.config import TransformerConfig

NAMES = TransformerConfig.CHOICES["remat"]
B, T = 2, 64


@functools.cache
def compiled(name: str):
    """The compiled loss and gradients of a decoder, and the parameters to call it with."""
    config = TransformerConfig(
        vocab_size=T,
        width=32,
        heads=4,
        layers=4,
        max_length=T,
        positions="rotary",
        norm="rms",
        activation="swiglu",
        bias=False,
        remat=name,
    )
    graphdef, params = nnx.split(decoder.Model(config, layers.Scope(jax.random.key(0))))
    tokens = jnp.broadcast_to(jnp.arange(T)[None], (B, T))

    def loss(params):
        hidden = nnx.merge(graphdef, params).hidden(
            tokens, segments_BT=jnp.ones_like(tokens), positions_BT=tokens
        )
        return (jnp.square(hidden) * jnp.arange(T)[None, :, None]).mean()

    return jax.jit(jax.value_and_grad(loss)).lower(params).compile(), params


def temporary_bytes(name: str) -> int:
    return compiled(name)[0].memory_analysis().temp_size_in_bytes


def test_every_choice_is_a_policy_or_applies_to_no_full_block():
    assert set(NAMES) == set(remat.POLICIES) | {"none", "attention"}


@pytest.mark.parametrize("name", NAMES[1:])
def test_losses_and_gradients_are_the_same(name):
    (value, gradients), (expected, others) = (
        function(params) for function, params in (compiled(name), compiled("none"))
    )
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(others), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6 * np.abs(other).max())


def test_policies_that_keep_less_take_less_memory():
    order = [temporary_bytes(name) for name in ("none", "attention", "minimal", "dots", "full")]
    assert order == sorted(order, reverse=True) and len(set(order)) == len(order), order
    # Scores are the largest arrays: 4 layers of B · heads · T · T, in float32.
    assert temporary_bytes("none") - temporary_bytes("attention") >= 4 * B * 4 * T * T * 4


def test_block_inputs_are_offloaded():
    """A CPU has one memory only, so the jaxpr must show it."""
    config = TransformerConfig(
        vocab_size=8, width=8, heads=2, layers=3, max_length=8, remat="offload"
    )
    graphdef, params = nnx.split(decoder.Model(config, layers.Scope(jax.random.key(0))))
    tokens = jnp.zeros((1, 8), jnp.int32)

    def loss(params):
        return (
            nnx.merge(graphdef, params)
            .hidden(tokens, segments_BT=tokens + 1, positions_BT=tokens)
            .sum()
        )

    text = str(jax.make_jaxpr(jax.grad(loss))(params))
    assert "pinned_host" in text or "<host>" in text.lower(), "nothing is offloaded"
