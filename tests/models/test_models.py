"""What a model may see, and that no option of execution changes its results."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.models import decoder, encoder, encoder_decoder
from lm.nn import layers
from lm.nn.config import TransformerConfig
from lm.nn.layers import DropoutKeys

# Unoptimized: what is tested is what is computed, and compiling takes a fraction of the time.
jit = functools.partial(
    jax.jit,
    compiler_options={"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False},
)

T = 10
# Two documents and padding in one row; and the positions that packing gives.
SEGMENTS = np.asarray([[1, 1, 1, 1, 2, 2, 2, 2, 0, 0]], np.int32)
POSITIONS = np.asarray([[0, 1, 2, 3, 0, 1, 2, 3, 0, 0]], np.int32)
# A document of four tokens with nothing but padding after it.
ALONE = np.asarray([[1, 1, 1, 1, 0, 0, 0, 0, 0, 0]], np.int32)
# Each option of the Transformer occurs.
OPTIONS = {
    "bert": {"norm_place": "post", "embedding_norm": True, "types": 2},
    "sinusoidal": {"positions": "sinusoidal", "embedding_scaled": True, "activation": "relu"},
    "llama": {
        "positions": "rotary",
        "kv_heads": 2,
        "norm": "rms",
        "activation": "swiglu",
        "bias": False,
        "tied": False,
    },
    "t5": {
        "positions": "relative",
        "relative_buckets": 4,
        "relative_distance": 8,
        "norm": "rms",
        "bias": False,
        "attention_scaled": False,
    },
}


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def make(architecture, **options) -> nnx.Module:
    """The model, with random numbers in every parameter: norms and biases too."""
    config = TransformerConfig(
        **{
            "width": 16,
            "heads": 4,
            "layers": 2,
            "vocab_size": 2 * T,
            "max_length": T,
            "feedforward": 24,
        }
        | options
    )
    model = nnx.eval_shape(lambda: architecture.Model(config, layers.Scope(jax.random.key(0))))
    for seed, (path, variable) in enumerate(nnx.to_flat_state(nnx.state(model))):
        variable.set_value(
            jnp.asarray((path[-1] == "scale") + 0.3 * draw(*variable.shape, seed=seed))
        )
    return model


def params_of(model):
    graphdef, state = nnx.split(model)
    return graphdef, nnx.to_pure_dict(state)


def row():
    """Distinct tokens: each row of the embedding is the input at one position."""
    return jnp.arange(T, dtype=jnp.int32)[None]


def reach(model, hidden) -> np.ndarray:
    """[T, V]: largest absolute derivative of the hidden state at t to the embedding of token v."""
    direction = jnp.asarray(draw(1, 1, 16))

    def readings(table):
        graphdef, params = params_of(model)
        params["embedding"]["tokens"] = table
        return (hidden(nnx.merge(graphdef, params)) * direction).sum((0, 2))

    return np.abs(jit(jax.jacrev(readings))(model.embedding.tokens[...])).max(-1)


same_document = SEGMENTS[0][:, None] == SEGMENTS[0][None, :]
past = np.tri(T, dtype=bool)


@pytest.mark.parametrize(
    ("architecture", "options", "kind", "allowed"),
    [
        (encoder, "bert", "xla", same_document),
        (decoder, "llama", "xla", same_document & past),
        (decoder, "t5", "reference", same_document & past),
    ],
    ids=["encoder", "decoder-rotary", "decoder-relative"],
)
def test_no_leak(architecture, options, kind, allowed):
    """The gradient is zero exactly at other documents, padding and, for decoders, the future."""
    model = make(architecture, attention=kind, **OPTIONS[options])
    gradients = reach(
        model,
        lambda model: model.hidden(
            row(), segments_BT=jnp.asarray(SEGMENTS), positions_BT=jnp.asarray(POSITIONS)
        ),
    )
    assert np.isfinite(gradients).all()
    np.testing.assert_array_equal(gradients[:, :T] > 0, allowed)
    np.testing.assert_array_equal(gradients[:, T:], 0)


def test_no_leak_through_cross_attention():
    """A target sees all of its own example's input and its own past, never another example's."""
    model = make(encoder_decoder, **OPTIONS["t5"])
    source_segments = np.asarray([[1, 1, 2, 2, 2, 2, 2, 0, 0, 0]], np.int32)

    def hidden(model):
        memory = model.encode(
            row() + T, segments_BS=jnp.asarray(source_segments), positions_BS=jnp.asarray(POSITIONS)
        )
        return model.hidden(
            row(),
            segments_BT=jnp.asarray(SEGMENTS),
            positions_BT=jnp.asarray(POSITIONS),
            memory_BSD=memory,
            memory_segments_BS=jnp.asarray(source_segments),
        )

    gradients = reach(model, hidden)
    np.testing.assert_array_equal(gradients[:, :T] > 0, same_document & past)
    np.testing.assert_array_equal(
        gradients[:, T:] > 0, SEGMENTS[0][:, None] == source_segments[0][None, :]
    )


@pytest.mark.parametrize(
    ("architecture", "options"),
    [(encoder, "bert"), (encoder, "t5"), (decoder, "sinusoidal"), (decoder, "llama")],
    ids=lambda value: value if isinstance(value, str) else value.__name__.rsplit(".", 1)[-1],
)
def test_packed_documents_are_as_if_alone(architecture, options):
    model = make(architecture, **OPTIONS[options])
    run = jit(
        lambda tokens, segments, positions: model.hidden(
            tokens, segments_BT=segments, positions_BT=positions
        )
    )
    packed = run(row(), jnp.asarray(SEGMENTS), jnp.asarray(POSITIONS))
    for start in (0, 4):
        alone = run(jnp.roll(row(), -start, axis=1), jnp.asarray(ALONE), row())
        np.testing.assert_allclose(packed[:, start : start + 4], alone[:, :4], rtol=0, atol=5e-6)
    # The test can fail: the tokens of a document do change its states.
    other = run(row().at[0, 4].set(15), jnp.asarray(SEGMENTS), jnp.asarray(POSITIONS))
    np.testing.assert_array_equal(packed[:, :4], other[:, :4])
    assert np.abs(packed[:, 4:8] - other[:, 4:8]).max() > 1e-3


def test_packed_examples_of_an_encoder_decoder_are_as_if_alone():
    model = make(encoder_decoder, **OPTIONS["t5"])

    @jit
    def run(sources, tokens, segments, positions):
        memory = model.encode(sources, segments_BS=segments, positions_BS=positions)
        return model.hidden(
            tokens,
            segments_BT=segments,
            positions_BT=positions,
            memory_BSD=memory,
            memory_segments_BS=segments,
        )

    packed = run(row() + 5, row(), jnp.asarray(SEGMENTS), jnp.asarray(POSITIONS))
    for start in (0, 4):
        tokens = jnp.roll(row(), -start, axis=1)
        alone = run(tokens + 5, tokens, jnp.asarray(ALONE), row())
        np.testing.assert_allclose(packed[:, start : start + 4], alone[:, :4], rtol=0, atol=5e-6)


def dropout_keys(seed):
    return DropoutKeys(jax.random.key(seed), jnp.arange(1))


def loss_and_gradients(architecture, dropout_keys=None, **options):
    model = make(architecture, **options)
    graphdef, params = params_of(model)
    direction = jnp.asarray(draw(1, T, 2 * T))

    def loss(params):
        model, given = (
            nnx.merge(graphdef, params),
            {"positions_BT": jnp.asarray(POSITIONS), "dropout_keys": dropout_keys},
        )
        if architecture is encoder_decoder:
            given["memory_BSD"] = model.encode(
                row() + T,
                segments_BS=jnp.asarray(SEGMENTS),
                positions_BS=jnp.asarray(POSITIONS),
                dropout_keys=dropout_keys,
            )
            given["memory_segments_BS"] = jnp.asarray(SEGMENTS)
        return (
            model.logits(model.hidden(row(), segments_BT=jnp.asarray(SEGMENTS), **given))
            * direction
        ).sum()

    return jit(jax.value_and_grad(loss))(params)


def assert_same(one, other):
    np.testing.assert_allclose(one[0], other[0], rtol=1e-5)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(one[1]), jax.tree.leaves(other[1]), strict=True
    ):
        np.testing.assert_allclose(
            a, b, rtol=0, atol=1e-5 * max(1.0, float(np.abs(b).max())), err_msg=str(path)
        )


CASES = {
    "decoder": (decoder, OPTIONS["llama"]),
    "encoder": (encoder, OPTIONS["bert"] | {"dropout": 0.3}),
    "both": (encoder_decoder, OPTIONS["t5"]),
}


@functools.cache
def expected(case):
    architecture, options = CASES[case]
    return loss_and_gradients(
        architecture, dropout_keys(3) if "dropout" in options else None, **options, scan=True
    )


@pytest.mark.parametrize(
    ("case", "ways"),
    [
        ("decoder", {"scan": False, "remat": "full"}),
        ("decoder", {"scan": True, "remat": "dots"}),
        ("encoder", {"scan": False}),
        ("both", {"scan": False}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_scan_and_remat_change_nothing(case, ways):
    """Loss and all gradients; the encoder has dropout, whose masks must be the same too."""
    architecture, options = CASES[case]
    for path, gradient in jax.tree_util.tree_leaves_with_path(expected(case)[1]):
        # Softmax is invariant to a bias on all keys: its gradient is rounding.
        assert np.abs(gradient).max() > 1e-2 or path[-1].key == "key_bias", path
    assert_same(
        loss_and_gradients(
            architecture, dropout_keys(3) if "dropout" in options else None, **options, **ways
        ),
        expected(case),
    )


def test_remat_recomputes_products():
    """The option has an effect."""

    def products(remat):
        graphdef, params = params_of(make(decoder, layers=1, scan=False, remat=remat))

        def loss(params):
            model = nnx.merge(graphdef, params)
            return model.hidden(
                row(), segments_BT=jnp.asarray(SEGMENTS), positions_BT=jnp.asarray(POSITIONS)
            ).sum()

        return str(jax.make_jaxpr(jax.grad(loss))(params)).count("dot_general[")

    none, dots, full = map(products, ("none", "dots", "full"))
    assert none < dots < full


def test_dropout_needs_a_key_and_follows_it():
    model = make(decoder, dropout=0.5)

    @jit
    def run(dropout_keys):
        return model.hidden(
            row(),
            segments_BT=jnp.asarray(SEGMENTS),
            positions_BT=jnp.asarray(POSITIONS),
            dropout_keys=dropout_keys,
        )

    np.testing.assert_array_equal(run(None), run(None))
    np.testing.assert_array_equal(run(dropout_keys(0)), run(dropout_keys(0)))
    assert (run(dropout_keys(0)) != run(dropout_keys(1))).any()
    assert (run(dropout_keys(0)) != run(None)).any()


def test_bfloat16_is_close_and_parameters_stay_float32():
    def run(dtype):
        model = make(decoder, dtype=dtype, **OPTIONS["llama"])
        assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype("float32")}
        return jit(
            lambda: model.logits(
                model.hidden(
                    row(), segments_BT=jnp.asarray(SEGMENTS), positions_BT=jnp.asarray(POSITIONS)
                )
            )
        )()

    low, full = run("bfloat16"), run("float32")
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        low.astype(jnp.float32), full, rtol=0, atol=0.06 * float(np.abs(full).max())
    )
