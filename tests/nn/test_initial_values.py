"""Initial values depend on the seed, the parameter's path and its shape alone."""

import functools

import jax
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding

from lm.models import decoder, encoder, encoder_decoder
from lm.nn import heads
from lm.nn.config import TransformerConfig
from lm.nn.layers import Scope
from lm.parallel import mesh, sharding

TINY = {"width": 16, "heads": 4, "vocab_size": 24, "max_length": 8}

# Unoptimized: compiling many random draws takes seconds otherwise.
jit = functools.partial(
    jax.jit,
    compiler_options={"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False},
)


def scope(seed: int = 0) -> Scope:
    return Scope(jax.random.key(seed))


def flat(model) -> dict[str, np.ndarray]:
    return {
        "/".join(map(str, path)): np.asarray(value[...])
        for path, value in nnx.to_flat_state(nnx.state(model))
    }


@functools.cache
def make(architecture, **options) -> dict[str, np.ndarray]:
    """Initial values by path."""
    config = TransformerConfig(**TINY | options)
    return flat(jit(lambda key: architecture.Model(config, Scope(key)))(jax.random.key(0)))


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
        lambda variable: NamedSharding(
            grid, sharding.spec(variable.get_metadata("axes"), len(variable.shape))
        ),
        shapes,
        is_leaf=lambda x: isinstance(x, nnx.Variable),
    )
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


def test_models_of_one_seed_have_the_same_initial_values():
    one, two, three = make(encoder), make(decoder), make(encoder_decoder)
    assert one.keys() == two.keys() <= three.keys()
    for path in one:
        np.testing.assert_array_equal(one[path], two[path], err_msg=path)
        np.testing.assert_array_equal(one[path], three[path], err_msg=path)
    differ = [path for path in one if path.startswith("stack/") and one[path].std() > 0]
    assert differ
    for path in differ:  # the two stacks of an encoder-decoder are not copies
        assert (three[path] != three[path.replace("stack", "encoder", 1)]).all(), path


def test_a_layer_does_not_depend_on_the_depth():
    shallow, deep = make(decoder, layers=2), make(decoder, layers=5)
    for path in shallow:
        same = deep[path][:2] if "/blocks/" in path else deep[path]
        np.testing.assert_array_equal(shallow[path], same, err_msg=path)
    query = deep["stack/blocks/attention/query"]
    assert len({layer.tobytes() for layer in query}) == 5


def test_seeds_and_paths_draw_different_values():
    # Shapes are equal: only path and seed differ.
    scopes = [scope(seed) / part for seed in (0, 1) for part in ("a", "b")]
    drawn = [
        np.asarray(inner.param(name, (3, 4), (None, None), 1.0)[...])
        for inner in scopes
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
        "embedding/tokens": 0.3,
        "embedding/positions": 0.3,
        "embedding/unembed": kernel(128),
    }
    inside = {
        "attention/query": kernel(128),
        "attention/key": kernel(128),
        "attention/value": kernel(128),
        "attention/out": kernel(64) / 2,
        "feedforward/up": kernel(128),
        "feedforward/gate": kernel(128),
        "feedforward/down": kernel(200) / 2,
    }
    expected |= {f"stack/blocks/{path}": std for path, std in inside.items()}
    for path, std in expected.items():
        assert abs(w[path].std() / std - 1) < 0.04, path
        assert abs(w[path].mean()) < 0.1 * std, path
    assert TransformerConfig(init_std=0.05).kernel_std(128) == 0.05
    assert abs(make(decoder)["stack/blocks/feedforward/up"].std() / 0.02 - 1) < 0.05  # the default
    for path in w.keys() - expected.keys():
        assert (w[path] == (1.0 if path.endswith("scale") else 0.0)).all(), path


def test_initial_queries_and_keys():
    plain, other = make(decoder), make(decoder, query_key_start="same", attention_scaled=False)
    query, key, value = (f"stack/blocks/attention/{name}" for name in ("query", "key", "value"))
    assert (plain[query] != plain[key]).all() and (plain[query] != plain[value]).all()
    # Not bit for bit: where one draw is used twice, the compiler multiplies constants in another
    # order.
    np.testing.assert_allclose(other[key], plain[query], rtol=1e-6)
    # 1/√H is not in the logits but here.
    np.testing.assert_allclose(other[query], plain[query] / 2, rtol=1e-6)
    np.testing.assert_array_equal(other[value], plain[value])


def test_heads_are_outside_the_model():
    """A model has the same values with and without heads."""
    config = TransformerConfig(**TINY)

    def build(key):
        model = encoder.Model(config, Scope(key))
        model.heads = nnx.Dict(masked=heads.MaskedHead(config, Scope(key) / "heads" / "masked"))
        return model

    without, both = make(encoder), flat(jit(build)(jax.random.key(0)))
    assert "heads/masked/kernel" in both
    for path, value in without.items():
        np.testing.assert_array_equal(value, both[path], err_msg=path)
