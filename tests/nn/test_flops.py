"""FLOPs by formula against the compiler's count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lm.core import plugins
from lm.nn import flops
from lm.nn.config import TransformerConfig
from lm.nn.heads import MaskedHead
from lm.nn.layers import Scope

LENGTH, BATCH = 128, 2
SHAPE = {
    "vocab_size": 1000,
    "width": 256,
    "layers": 2,
    "heads": 4,
    "max_length": LENGTH,
    "scan": False,
}


@pytest.mark.parametrize(
    ("name", "positions", "transform", "options"),
    [
        (
            "decoder",
            LENGTH,
            False,
            {
                "kv_heads": 2,
                "activation": "swiglu",
                "feedforward": 640,
                "head_width": 48,
                "bias": False,
            },
        ),
        ("encoder", 20, True, {"activation": "relu"}),
    ],
)
def test_the_formula_is_what_the_compiler_counts(name, positions, transform, options):
    config = TransformerConfig(**SHAPE | options)
    module = plugins.find("models", name)

    def build():
        model = module.Model(config, Scope(jax.random.key(0)))
        model.heads = nnx.Dict(
            {"masked": MaskedHead(config, Scope(jax.random.key(0)) / "heads")} if transform else {}
        )
        return model

    graph, params = nnx.split(nnx.eval_shape(build))

    def forward(params, tokens):
        model = nnx.merge(graph, params)
        places = jnp.broadcast_to(jnp.arange(LENGTH)[None], tokens.shape)
        hidden = model.hidden(tokens, segments_BT=jnp.ones_like(tokens), positions_BT=places)[
            :, :positions
        ]
        return model.heads["masked"](model, hidden) if transform else model.logits(hidden)

    compiled = (
        jax.jit(forward).lower(params, jax.ShapeDtypeStruct((BATCH, LENGTH), np.int32)).compile()
    )
    counted = compiled.cost_analysis()["flops"] / BATCH
    formula = flops.stack(config, LENGTH) + flops.head(config, positions, transform)
    assert formula == pytest.approx(counted, rel=0.03)
    assert flops.training(formula) == 3 * formula


def test_bert_base_by_hand():
    """12 layers of 12·D² weights and two products of T·T·D; two operations per weight and token."""
    config = TransformerConfig(
        vocab_size=30522, width=768, layers=12, heads=12, feedforward=3072, max_length=512
    )
    D, T, P = 768, 512, 77
    layers = 12 * (2 * 12 * D * D * T + 2 * 2 * T * T * D)
    assert flops.stack(config, T) == layers
    assert flops.head(config, P, True) == 2 * D * 30522 * P + 2 * D * D * P
    assert flops.head(config, P) == 2 * D * 30522 * P
