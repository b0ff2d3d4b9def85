"""Norms, positions, embeddings, dropout and initial values: against numpy, and by the properties that define them."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding

from lm.models import decoder, encoder, encoder_decoder
from lm.nn import heads, layers, layouts
from lm.nn.config import TransformerConfig
from lm.nn.embedding import Embedding, RelativeBias
from lm.nn.layers import Scope
from lm.nn.positions import rotate, sinusoids
from lm.parallel import mesh

TINY = {"width": 16, "heads": 4, "vocab_size": 24, "max_length": 8}


# Unoptimised: compiling many random draws takes seconds otherwise.
jit = functools.partial(
    jax.jit,
    compiler_options={"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False},
)


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def scope(seed: int = 0) -> Scope:
    return Scope(jax.random.key(seed))


def filled(build):
    """The module that `build` makes, with random numbers in every parameter, norms and biases too."""
    module = nnx.eval_shape(build)
    for seed, (_, variable) in enumerate(nnx.to_flat_state(nnx.state(module))):
        variable.set_value(jnp.asarray(draw(*variable.shape, seed=seed)))
    return module


def flat(model) -> dict[str, np.ndarray]:
    return {
        "/".join(map(str, path)): np.asarray(value[...])
        for path, value in nnx.to_flat_state(nnx.state(model))
    }


@functools.cache
def make(architecture, **options) -> dict[str, np.ndarray]:
    """Initial values by path, of a jitted build."""
    config = TransformerConfig(**TINY | options)
    return flat(jit(lambda key: architecture.Model(config, Scope(key)))(jax.random.key(0)))


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
    """The variance is of centred values: E x² − (E x)² would lose it."""
    x = 1000 + draw(1, 1, 16).astype(np.float64)
    expected = (x - x.mean()) / np.sqrt(x.var() + 1e-6)
    norm = nnx.eval_shape(lambda: layers.Norm(TransformerConfig(**TINY), scope()))
    norm.scale.set_value(jnp.ones(16)), norm.bias.set_value(jnp.zeros(16))
    np.testing.assert_allclose(norm(jnp.asarray(x, jnp.float32)), expected, atol=5e-4)


def test_rotary_against_complex_numbers():
    """Dimensions i and i + H/2 are a complex number, turned by position · base^(-2i/H)."""
    x, positions = draw(2, 5, 3, 8), np.asarray([[0, 1, 2, 3, 4], [7, 0, 100, 1000, 5]])
    turn = np.exp(1j * positions[:, :, None, None] * 50.0 ** (-2 * np.arange(4) / 8))
    turned = (x[..., :4] + 1j * x[..., 4:]) * turn
    actual = rotate(jnp.asarray(x), jnp.asarray(positions, jnp.int32), 50.0)
    np.testing.assert_allclose(actual, np.concatenate([turned.real, turned.imag], -1), atol=2e-4)
    np.testing.assert_array_equal(actual[0, 0], x[0, 0])  # position 0 turns nothing
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
    assert np.abs(np.diff(scores[0, 0, 0])).min() > 1e-4  # and distances do differ


@pytest.mark.parametrize("width", [8, layouts.LANES])
def test_rotation_in_bfloat16_is_the_rounded_one_of_float32(width):
    """Wide heads by another route, and to the bit: values and gradients."""
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
    """T5's rule without logarithms: bucket exact + j begins where (n / exact)^(log buckets) reaches (distance / exact)^j."""
    side = count // 2 if bidirectional else count
    n = abs(offset) if bidirectional else max(-offset, 0)
    exact = side // 2
    bucket = n
    if n >= exact:
        steps = side - exact
        # In whole numbers: n^steps · exact^j ≥ distance^j · exact^steps.
        reached = [j for j in range(steps) if n**steps * exact**j >= distance**j * exact**steps]
        bucket = exact + max(reached)
    return bucket + (side if bidirectional and offset > 0 else 0)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("count", "distance"), [(32, 128), (8, 20), (16, 100), (4, 9)])
def test_relative_buckets(count, distance, bidirectional):
    config = TransformerConfig(
        heads=2, positions="relative", relative_buckets=count, relative_distance=distance
    )
    bias = nnx.eval_shape(lambda: RelativeBias(config, scope(), bidirectional=bidirectional))
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


# Initial values.


def test_initial_values_do_not_depend_on_the_mesh():
    config = TransformerConfig(
        **TINY, positions="rotary", kv_heads=2, types=2, tied=False, activation="swiglu"
    )

    def build(key):
        return nnx.split(encoder.Model(config, Scope(key)))[1]

    shapes = jax.eval_shape(build, jax.random.key(0))
    one = flat(jit(build)(jax.random.key(0)))
    grid = mesh.make(mesh.MeshConfig(data=2, fsdp=2, tensor=2))
    shardings = jax.tree.map(
        lambda variable: NamedSharding(grid, mesh.spec(variable.get_metadata("axes"), len(variable.shape))),
        shapes, is_leaf=lambda x: isinstance(x, nnx.Variable),
    )  # fmt: skip
    with jax.set_mesh(grid):
        state = jit(build, out_shardings=shardings)(jax.random.key(0))
    split = [
        path
        for path, value in nnx.to_flat_state(state)
        if len(value.get_value().addressable_shards[0].data.reshape(-1)) < value.size
    ]
    assert ("stack", "blocks", "attention", "query") in split and ("embedding", "tokens") in split
    eight = flat(state)
    assert one.keys() == eight.keys()
    for path, value in one.items():
        np.testing.assert_array_equal(value, eight[path], err_msg=path)


def test_initial_values_do_not_depend_on_other_parameters():
    plain = make(decoder)
    other = make(
        decoder, types=3, tied=False, bias=False, kv_heads=2, activation="geglu", max_length=5
    )
    same = [path for path in plain.keys() & other.keys() if plain[path].shape == other[path].shape]
    assert {
        "embedding/tokens",
        "stack/blocks/attention/query",
        "stack/blocks/attention/out",
        "stack/blocks/feedforward/up",
    } <= set(same)
    for path in same:
        np.testing.assert_array_equal(plain[path], other[path], err_msg=path)


def test_models_of_one_seed_start_alike():
    one, two, three = make(encoder), make(decoder), make(encoder_decoder)
    assert one.keys() == two.keys() <= three.keys()
    for path in one:
        np.testing.assert_array_equal(one[path], two[path], err_msg=path)
        np.testing.assert_array_equal(one[path], three[path], err_msg=path)
    differ = [path for path in one if path.startswith("stack/") and one[path].std() > 0]
    assert differ
    for path in differ:  # yet the two stacks of an encoder-decoder are not copies
        assert (three[path] != three[path.replace("stack", "encoder", 1)]).all(), path


def test_a_layer_does_not_depend_on_the_depth():
    shallow, deep = make(decoder, layers=2), make(decoder, layers=5)
    for path in shallow:
        same = deep[path][:2] if "/blocks/" in path else deep[path]
        np.testing.assert_array_equal(shallow[path], same, err_msg=path)
    query = deep["stack/blocks/attention/query"]
    assert len({layer.tobytes() for layer in query}) == 5


def test_seeds_and_paths_draw_different_values():
    # Shapes are equal, so only path and seed set these apart.
    values = [scope(seed) / place for seed in (0, 1) for place in ("a", "b")]
    drawn = [
        np.asarray(place.param(name, (3, 4), (None, None), 1.0)[...])
        for place in values
        for name in ("x", "y")
    ]
    assert len({value.tobytes() for value in drawn}) == 8
    first = scope().param("x", (200, 50), ("width", None), std=0.5, mean=2.0)
    assert abs(first[...].mean() - 2) < 0.02 and abs(first[...].std() - 0.5) < 0.015
    assert first.get_metadata("axes") == ("width", None)


def test_standard_deviations():
    big = {
        "width": 128,
        "heads": 4,
        "head_width": 16,
        "vocab_size": 300,
        "max_length": 40,
        "feedforward": 200,
        "layers": 2,
    }
    w = make(
        decoder,
        **big,
        init_std=0.0,
        embedding_std=0.3,
        residual_scaled=True,
        activation="geglu",
        tied=False,
    )
    kernel = lambda fan_in: fan_in**-0.5
    expected = {
        "embedding/tokens": 0.3, "embedding/positions": 0.3, "embedding/unembed": kernel(128),
    }  # fmt: skip
    inside = {
        "attention/query": kernel(128), "attention/key": kernel(128), "attention/value": kernel(128), "attention/out": kernel(64) / 2,
        "feedforward/up": kernel(128), "feedforward/gate": kernel(128), "feedforward/down": kernel(200) / 2,
    }  # fmt: skip
    expected |= {f"stack/blocks/{path}": std for path, std in inside.items()}
    for path, std in expected.items():
        assert abs(w[path].std() / std - 1) < 0.04, path
        assert abs(w[path].mean()) < 0.1 * std, path
    assert TransformerConfig(init_std=0.05).kernel_std(128) == 0.05
    assert abs(make(decoder)["stack/blocks/feedforward/up"].std() / 0.02 - 1) < 0.05  # the default
    for path in w.keys() - expected.keys():
        assert (w[path] == (1.0 if path.endswith("scale") else 0.0)).all(), path


def test_starts_of_queries_and_keys():
    plain, other = make(decoder), make(decoder, query_key_start="same", attention_scaled=False)
    query, key, value = (f"stack/blocks/attention/{name}" for name in ("query", "key", "value"))
    assert (plain[query] != plain[key]).all() and (plain[query] != plain[value]).all()
    # Not to the bit: the compiler multiplies constants in another order where one draw is used twice.
    np.testing.assert_allclose(other[key], plain[query], rtol=1e-6)
    np.testing.assert_allclose(
        other[query], plain[query] / 2, rtol=1e-6
    )  # 1/√H, not in the logits, is here
    np.testing.assert_array_equal(other[value], plain[value])


def test_heads_are_outside_the_model():
    """The heads' values come from their own paths: a model has the same values with and without them."""
    config = TransformerConfig(**TINY)

    def build(key):
        model = encoder.Model(config, Scope(key))
        model.heads = nnx.Dict(masked=heads.MaskedHead(config, Scope(key) / "heads" / "masked"))
        return model

    without, both = make(encoder), flat(jit(build)(jax.random.key(0)))
    assert "heads/masked/kernel" in both
    for path, value in without.items():
        np.testing.assert_array_equal(value, both[path], err_msg=path)
