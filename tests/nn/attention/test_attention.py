"""Every attention kind against attention written out in numpy, and against each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core import plugins
from lm.nn.attention.mask import KINDS, Mask, allowed

# Without the fusion emitters of XLA's CPU backend compiling takes a quarter of the time.
jit = functools.partial(jax.jit, compiler_options={"xla_cpu_use_fusion_emitters": False})
KINDS_OF_ATTENTION = plugins.names("nn.attention")
B, T, H = 2, 9, 4
# Three documents in the first row; one and padding in the second.
SEGMENTS = np.asarray([[1, 1, 1, 1, 2, 2, 3, 3, 3], [1, 1, 1, 1, 1, 1, 0, 0, 0]], np.int32)
PREFIX = np.asarray([[1, 1, 0, 0, 1, 0, 1, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0, 0]], bool)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Cuts even the short rows of these tests into several blocks."""
    monkeypatch.setattr(plugins.find("nn.attention", "blocked"), "MIN_BLOCK", 3)


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def half(x):
    return x.astype(jnp.bfloat16)


def may_attend(kind: str, row: int, query: int, key: int) -> bool:
    """The rule: same document and, unless bidirectional, not later or in the prefix."""
    if SEGMENTS[row, query] != SEGMENTS[row, key]:
        return False
    return kind == "bidirectional" or key <= query or (kind == "prefix" and bool(PREFIX[row, key]))


def by_hand(q, k, v, kind, scale, bias):
    """float64, one query at a time."""
    out = np.zeros(q.shape)
    group = q.shape[2] // k.shape[2]
    for row in range(q.shape[0]):
        for t in range(q.shape[1]):
            keys = [s for s in range(k.shape[1]) if may_attend(kind, row, t, s)]
            for n in range(q.shape[2]):
                scores = np.asarray(
                    [q[row, t, n] @ k[row, s, n // group] * scale + bias[0, n, t, s] for s in keys]
                )
                weights = np.exp(scores - scores.max())
                out[row, t, n] = (weights / weights.sum()) @ v[row, keys, n // group]
    return out


def mask_of(kind: str) -> Mask:
    return Mask(
        jnp.asarray(SEGMENTS),
        jnp.asarray(SEGMENTS),
        jnp.asarray(PREFIX) if kind == "prefix" else None,
        kind=kind,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_mask(kind):
    expected = [
        [[may_attend(kind, row, t, s) for s in range(T)] for t in range(T)] for row in range(B)
    ]
    np.testing.assert_array_equal(allowed(mask_of(kind))[:, 0], expected)


def test_mask_between_two_sequences():
    mask = Mask(jnp.asarray([[1, 2, 0]]), jnp.asarray([[1, 1, 2, 0, 0]]))
    expected = [[1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 1]]
    np.testing.assert_array_equal(allowed(mask)[0, 0], np.asarray(expected, bool))


def test_mask_rejects_impossible_values():
    segments = jnp.asarray(SEGMENTS)
    with pytest.raises(ValueError, match="'sideways' is not one of bidirectional, causal, prefix"):
        Mask(segments, segments, kind="sideways")
    with pytest.raises(ValueError, match="needs the array `prefix`"):
        Mask(segments, segments, kind="prefix")


def test_a_mask_passes_through_jit():
    mask = mask_of("prefix")
    np.testing.assert_array_equal(jax.jit(allowed)(mask), allowed(mask))


CASES = [
    ("bidirectional", 4, False),
    ("causal", 2, True),
    ("prefix", 1, False),
    ("bidirectional", 2, True),
]


@pytest.mark.parametrize(
    ("kind", "kv_heads", "biased"), CASES, ids=["-".join(map(str, case)) for case in CASES]
)
@pytest.mark.parametrize("attention", KINDS_OF_ATTENTION)
def test_against_numpy(attention, kind, kv_heads, biased):
    attend = plugins.find("nn.attention", attention).attend
    q, k, v = draw(B, T, 4, H), draw(B, T, kv_heads, H, seed=1), draw(B, T, kv_heads, H, seed=2)
    bias = draw(1, 4, T, T) if biased else np.zeros((1, 4, T, T))
    scale = 0.7
    expected = by_hand(q, k, v, kind, scale, bias)
    q, k, v = (jnp.asarray(x, jnp.float32) for x in (q, k, v))
    given = jnp.asarray(bias, jnp.float32) if biased else None

    @jit
    def run(q, k, v, mask, bias):
        return attend(q, k, v, mask, scale=scale, bias=bias), attend(
            *map(half, (q, k, v)), mask, scale=scale, bias=bias
        )

    full, low = run(q, k, v, mask_of(kind), given)
    np.testing.assert_allclose(full, expected, rtol=0, atol=2e-6)
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(low.astype(jnp.float32), expected, rtol=0, atol=0.06)


@pytest.mark.parametrize("attention", [name for name in KINDS_OF_ATTENTION if name != "reference"])
def test_gradients_equal_those_of_the_reference(attention):
    reference = plugins.find("nn.attention", "reference").attend
    attend = plugins.find("nn.attention", attention).attend
    arrays = [
        jnp.asarray(draw(*shape), jnp.float32)
        for shape in ((B, T, 4, H), (B, T, 2, H), (B, T, 2, H), (1, 4, T, T))
    ]
    direction = jnp.asarray(draw(B, T, 4, H, seed=3), jnp.float32)

    def gradients(function):
        def loss(q, k, v, bias):
            return (function(q, k, v, mask_of("prefix"), scale=0.5, bias=bias) * direction).sum()

        return jit(jax.grad(loss, (0, 1, 2, 3)))

    for actual, expected in zip(
        gradients(attend)(*arrays), gradients(reference)(*arrays), strict=True
    ):
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(actual, expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("attention", KINDS_OF_ATTENTION)
def test_large_logits_and_queries_without_keys_are_finite(attention):
    attend = plugins.find("nn.attention", attention).attend
    q, k, v = (jnp.asarray(draw(B, T, 2, H, seed=seed) * 1e4, jnp.float32) for seed in range(3))
    lonely = Mask(jnp.full((B, T), 7), jnp.asarray(SEGMENTS))
    run = jit(jax.value_and_grad(lambda q, mask: attend(q, k, v, mask, scale=1.0).sum()))
    for mask in (mask_of("bidirectional"), lonely):
        value, gradient = run(q, mask)
        assert np.isfinite(value) and np.isfinite(gradient).all()


def test_blocks_skip_keys_after_the_queries():
    """Half of the products, and some for blocks on the diagonal; none of a bidirectional mask."""
    shape = jax.ShapeDtypeStruct((1, 64, 2, 8), jnp.float32)
    segments = jnp.ones((1, 64), jnp.int32)

    def flops(attention, kind):
        attend = plugins.find("nn.attention", attention).attend
        compiled = (
            jit(lambda q, k, v: attend(q, k, v, Mask(segments, segments, kind=kind), scale=1.0))
            .lower(shape, shape, shape)
            .compile()
        )
        return compiled.cost_analysis()["flops"]

    assert 0.9 < flops("blocked", "bidirectional") / flops("xla", "bidirectional") < 1.1
    assert 0.55 < flops("blocked", "causal") / flops("xla", "causal") < 0.7


def test_blocks_of_a_part_of_a_row_skip_nothing():
    """Where the part depends on the device, any key may be visible."""
    attend = plugins.find("nn.attention", "blocked").attend
    reference = plugins.find("nn.attention", "reference").attend
    q, k, v = (
        jnp.asarray(draw(B, rows, 2, H, seed=seed), jnp.float32)
        for seed, rows in enumerate((4, T, T))
    )
    segments = jnp.ones((B, T), jnp.int32)
    mask = Mask(segments[:, :4], segments, None, "causal", jnp.asarray(5))
    np.testing.assert_allclose(
        attend(q, k, v, mask, scale=1.0), reference(q, k, v, mask, scale=1.0), atol=2e-6
    )
