"""Attention over rows in parts equals attention over full rows, gradients included."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core import plugins
from lm.nn.attention import context_parallel, reference
from lm.nn.attention import mask as mask_module
from lm.nn.attention.mask import Mask
from lm.parallel import mesh as meshes

B, N, K, H = 2, 4, 2, 8


def problem(kind: str, T: int, S: int, seed: int = 0):
    """Queries, keys, values, bias and a mask of two segments and padding, at random."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    segments = [
        np.repeat([1, 2, 0], [length // 2, length - length // 2 - length // 5, length // 5])[
            None
        ].repeat(B, 0)
        for length in (T, S)
    ]
    prefix = jnp.asarray(rng.random((B, S)) < 0.4) if kind == "prefix" else None
    mask = Mask(*(jnp.asarray(part) for part in segments), prefix, kind)
    return (
        (draw(B, T, N, H), draw(B, S, K, H), draw(B, S, K, H), draw(1, N, T, S)),
        mask,
        draw(B, T, N, H),
    )


@pytest.mark.parametrize("way", meshes.CONTEXT_ATTENTION)
@pytest.mark.parametrize(
    ("kind", "T", "S", "shape"),
    [
        ("causal", 16, 16, {"context": 4}),
        ("prefix", 16, 16, {"data": 2, "context": 2, "tensor": 2}),
        ("bidirectional", 16, 16, {"context": 8}),
        ("bidirectional", 12, 24, {"context": 4}),  # as across an encoder and a decoder
        ("causal", 15, 15, {"context": 4}),  # 4 does not divide the row
        ("bidirectional", 7, 13, {"context": 4}),
    ],
)
def test_parts_of_rows_give_the_results_of_full_rows(way, kind, T, S, shape):
    inputs, mask, weight = problem(kind, T, S)
    settings = meshes.MeshConfig(**{"data": 1} | shape, context_attention=way)
    grid = meshes.make(settings, jax.devices()[: int(np.prod(list(shape.values())))])
    # Nothing reads the result at padding.
    real = jnp.asarray(mask.query_segments > 0, jnp.float32)[..., None, None]

    def loss(attend, q, k, v, bias):
        o = attend(q, k, v, mask, scale=0.3, bias=bias) * real
        return (o * weight).sum(), o

    expected = jax.grad(loss, argnums=(1, 2, 3, 4), has_aux=True)(reference.attend, *inputs)
    # A ring has its own formula, whatever the kind.
    every = way == "gather" and shape == {"context": 8}
    for name in plugins.names("nn.attention") if every else ["reference"]:
        attend = plugins.find("nn.attention", name).attend
        with meshes.use(grid, settings):
            split = context_parallel.split(attend)
            assert split is not attend
            actual = jax.jit(
                jax.grad(functools.partial(loss, split), argnums=(0, 1, 2, 3), has_aux=True)
            )(*inputs)
        for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-6, err_msg=name)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Windowed(Mask):
    """A mask with a field that context parallelism does not know."""

    window: int = dataclasses.field(default=0, metadata={"static": True})


@pytest.mark.parametrize("method", meshes.CONTEXT_ATTENTION)
def test_further_fields_of_a_mask_reach_the_kind(method, monkeypatch):
    """The mask that each device sees keeps its class and its fields."""
    inputs, mask, _ = problem("prefix", 16, 16)
    fields = {field.name: getattr(mask, field.name) for field in dataclasses.fields(mask)}
    seen = []

    def allowed(mask, *ranges):
        seen.append(mask)
        return mask_module.allowed(mask, *ranges)

    monkeypatch.setattr(context_parallel, "allowed", allowed)  # of the ring
    monkeypatch.setattr(reference, "allowed", allowed)
    settings = meshes.MeshConfig(data=2, context=4, context_attention=method)
    with meshes.use(meshes.make(settings), settings):
        attend = context_parallel.split(reference.attend)
        jax.eval_shape(
            functools.partial(attend, scale=0.3), *inputs[:3], Windowed(**fields, window=5)
        )
    assert seen
    for mask in seen:
        assert isinstance(mask, Windowed) and mask.window == 5 and mask.kind == "prefix"


def test_context_parallelism_handles_every_array_of_a_mask():
    """A new array must be padded, split, and passed on with the keys if it is one of theirs."""
    arrays = {field.name for field in dataclasses.fields(Mask) if not field.metadata.get("static")}
    assert arrays == {"query_segments", "key_segments", "prefix", "query_start", "key_start"}, (
        "extend lm/nn/attention/context_parallel.py, then this test"
    )


def test_full_rows_use_the_kind_itself():
    settings = meshes.MeshConfig(data=8)
    with meshes.use(meshes.make(settings), settings):
        assert context_parallel.split(reference.attend) is reference.attend
    assert context_parallel.split(reference.attend) is reference.attend
