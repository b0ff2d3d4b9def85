"""Tiny models against Hugging Face `transformers`: same weights, same logits, same loss.

golden/make.py writes the files.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_models import load

from lm.nn import heads, layers
from lm.nn.config import TransformerConfig
from lm.nn.embedding import RelativeBias

# Unoptimized: what is tested is what is computed, and compiling takes a quarter of the time.
jit = functools.partial(
    jax.jit,
    compiler_options={"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False},
)
TOLERANCE = 1e-5
# Each choice once: models/test_models.py tests that scan and unrolled agree,
# attention/test_attention.py that the kinds do.
ways = pytest.mark.parametrize(
    ("scan", "kind"), [(True, "xla"), (False, "reference")], ids=["scan-xla", "unrolled-reference"]
)


def close(actual, expected) -> None:
    np.testing.assert_allclose(np.asarray(actual, np.float64), expected, rtol=0, atol=TOLERANCE)


def one_document(tokens):
    """Segments and positions of rows that are one document each."""
    return {"segments_BT": jnp.ones(tokens.shape, jnp.int32), "positions_BT": positions(tokens)}


def positions(tokens):
    return jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32)[None], tokens.shape)


@ways
def test_bert(scan, kind):
    model, given, expect = load("bert", scan=scan, attention=kind)
    segments = given["segments"]

    @jit
    def forward(model):
        h = model.hidden(
            given["tokens"],
            segments_BT=segments,
            positions_BT=positions(segments),
            types_BT=given["types"],
        )
        masked = model.heads["masked"](model, h)
        pair = model.heads["pair"](h, segments, given["types"])[:, 0]
        mlm = heads.classify(masked, given["targets"], given["weights"])[0]
        return masked, pair, mlm, heads.classify(pair, given["pair_targets"], jnp.ones(2))[0]

    masked, pair, (mlm, mlm_weight), (nsp, nsp_weight) = forward(model)
    used = np.asarray(segments) > 0
    assert not used.all()
    close(masked[used], expect["logits"][used])
    close(pair, expect["pair_logits"])
    close(mlm / mlm_weight + nsp / nsp_weight, expect["loss"])


@ways
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_decoder(name, scan, kind):
    model, given, expect = load(name, scan=scan, attention=kind)
    tokens = given["tokens"]

    @jit
    def forward(model):
        h = model.hidden(tokens, **one_document(tokens))
        targets = jnp.roll(tokens, -1, axis=1)
        weights = jnp.ones(tokens.shape).at[:, -1].set(0.0)
        logits = model.logits(h)
        return (
            logits,
            heads.classify(logits, targets, weights)[0],
            model.embedding.cross_entropy(h, targets, weights).loss,
        )

    logits, (nll, weight), chunked_nll = forward(model)
    close(logits, expect["logits"])
    close(nll / weight, expect["loss"])
    close(chunked_nll / weight, expect["loss"])


@ways
def test_t5(scan, kind):
    model, given, expect = load("t5", scan=scan, attention=kind)
    tokens, segments = given["tokens"], given["source_segments"]

    @jit
    def forward(model):
        memory = model.encode(
            given["sources"], segments_BS=segments, positions_BS=positions(segments)
        )
        h = model.hidden(
            tokens, **one_document(tokens), memory_BSD=memory, memory_segments_BS=segments
        )
        logits = model.logits(h)
        nll, weight = heads.classify(logits, given["targets"], jnp.ones(tokens.shape))[0]
        return (
            memory,
            logits,
            nll / weight,
            model.embedding.cross_entropy(h, given["targets"], jnp.ones(tokens.shape)).loss
            / weight,
        )

    memory, logits, loss, chunked_loss = forward(model)
    used = np.asarray(segments) > 0
    assert not used.all()
    close(memory[used], expect["memory"][used])
    close(logits, expect["logits"])
    close(loss, expect["loss"])
    close(chunked_loss, expect["loss"])


@pytest.mark.parametrize("name", ["both", "causal"])
def test_t5_buckets(name):
    """The bucket of each distance up to 300, for four sizes, is what transformers computes."""
    _, given, expect = load("t5")
    for (count, distance), buckets in zip(
        given["buckets"].tolist(), expect[f"buckets_{name}"], strict=True
    ):
        config = TransformerConfig(
            heads=1, positions="relative", relative_buckets=count, relative_distance=distance
        )
        scope = layers.Scope(jax.random.key(0))
        bias = nnx.eval_shape(
            lambda config=config, scope=scope: RelativeBias(
                config, scope, bidirectional=name == "both"
            )
        )
        bias.table.set_value(jnp.arange(count, dtype=jnp.float32)[:, None])
        values = np.asarray(bias(301, 301)[0, 0])
        ours = np.concatenate(
            [values[300], values[0, 1:]]
        )  # offsets -300 … 0 from the last query, 1 … 300 from the first
        np.testing.assert_array_equal(ours, buckets)
