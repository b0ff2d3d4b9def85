"""Optimizers against their papers, on a small tree of parameters with the models' names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.core import plugins
from lm.optimizers import adamw, groups, muon

RATE = 0.1
SHAPES = {
    "embedding": {"tokens": (12, 8), "unembed": (12, 8)},
    "stack": {
        "blocks": {
            "attention": {"query": (2, 8, 2, 4), "out": (2, 2, 4, 8), "query_bias": (2, 2, 4)},
            "attention_norm": {"scale": (2, 8)},
            "feedforward": {"up": (2, 8, 16), "down": (2, 16, 8)},
        },
        "relative": {"table": (4, 2)},
    },
    "heads": {"pair": {"kernel": (8, 8), "output_bias": (2,)}},
}
VECTORS = {"query_bias", "scale", "table", "output_bias"}


def constant(step):
    return 1.0


def tree(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(0.0, 1.0, shape), jnp.float32),
        SHAPES,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def flat(params: dict) -> dict[str, np.ndarray]:
    return {
        path[-1].key: np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def updates(transformation, params: dict, gradients: list[dict]) -> list[dict[str, np.ndarray]]:
    """The updates of steps 1, 2 … at unchanged parameters."""
    state, steps, update = transformation.init(params), [], jax.jit(transformation.update)
    for gradient in gradients:
        step, state = update(gradient, state, params)
        steps.append(flat(step))
    return steps


def test_groups():
    decayed, embeddings = flat(groups.decayed(tree(0))), flat(groups.embeddings(tree(0)))
    assert {name for name, value in decayed.items() if not value} == VECTORS
    assert {name for name, value in embeddings.items() if value} == {"tokens"}


def test_adamw_agrees_with_its_paper():
    """Algorithm 2 of Loshchilov and Hutter 2019 over three steps; no decay on vectors."""
    config = adamw.Config(b1=0.8, b2=0.95, epsilon=1e-6, weight_decay=0.3, embedding_rate=5.0)
    params, gradients = tree(0), [tree(seed) for seed in (1, 2, 3)]

    def schedule(step):
        return 1.0 / (step + 1.0)

    steps = updates(adamw.make(config, RATE, schedule), params, gradients)
    for name, value in flat(params).items():
        m = v = 0.0
        for step in range(3):
            g = flat(gradients[step])[name].astype(np.float64)
            m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
            direction = (m / (1 - 0.8 ** (step + 1))) / (
                np.sqrt(v / (1 - 0.95 ** (step + 1))) + 1e-6
            )
            direction += 0.0 if name in VECTORS else 0.3 * value
            expected = -RATE / (step + 1) * direction * (5.0 if name == "tokens" else 1.0)
            np.testing.assert_allclose(
                steps[step][name], expected, rtol=1e-4, atol=1e-6, err_msg=name
            )


def test_muon_makes_each_layers_matrix_orthogonal():
    first_step = updates(muon.make(muon.Config(), RATE, constant), tree(0), [tree(1)])[0]
    # Heads belong together: a query is 8 × (2·4), an output (2·4) × 8.
    for name, shape in {"query": (8, 8), "out": (8, 8), "up": (8, 16), "down": (16, 8)}.items():
        for layer in range(2):
            singular = (
                np.linalg.svd(first_step[name][layer].reshape(shape), compute_uv=False) / RATE
            )
            # Five steps of the iteration leave singular values near 1. optax scales tall and wide
            # matrices by the root of their ratio.
            singular /= max(1.0, shape[1] / shape[0]) ** 0.5
            assert singular.min() > 0.5 and singular.max() < 1.4, (name, singular)
    raw = flat(tree(1))
    assert np.linalg.cond(raw["query"][0].reshape(8, 8)) > 3, (
        "the gradient itself is far from orthogonal"
    )
    # The scale of a gradient has no influence.
    scaled = updates(
        muon.make(muon.Config(), RATE, constant),
        tree(0),
        [jax.tree.map(lambda g: g * 7.0, tree(1))],
    )[0]
    np.testing.assert_allclose(scaled["query"], first_step["query"], atol=2e-3)


def test_adam_updates_the_other_parameters():
    config = muon.Config(adam_rate=0.25, embedding_rate=3.0)
    gradients = flat(tree(1))
    first_step = updates(muon.make(config, RATE, constant), tree(0), [tree(1)])[0]
    for name in ("tokens", "unembed", "kernel", *sorted(VECTORS)):
        # Adam's first step is the gradient's sign; Nesterov momentum looks one step ahead (Dozat
        # 2016, with b1 = 0.9).
        ahead = 1.0 + 0.9 * (1 - 0.9) / (1 - 0.9**2)
        expected = (
            -np.sign(gradients[name]) * ahead * RATE * 0.25 * (3.0 if name == "tokens" else 1.0)
        )
        np.testing.assert_allclose(first_step[name], expected, rtol=1e-3, err_msg=name)


def test_muon_decays_matrices_only():
    plain, decayed = (
        updates(muon.make(muon.Config(weight_decay=w), RATE, constant), tree(0), [tree(1)])[0]
        for w in (0.0, 0.5)
    )
    for name, value in flat(tree(0)).items():
        expected = -RATE * 0.5 * value if name in ("query", "out", "up", "down") else 0.0 * value
        np.testing.assert_allclose(decayed[name] - plain[name], expected, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", plugins.names("optimizers"))
def test_the_schedule_takes_effect(name):
    module = plugins.find("optimizers", name)
    steps = updates(
        module.make(module.Config(), RATE, lambda step: jnp.where(step < 1, 0.0, 1.0)),
        tree(0),
        [tree(1), tree(2)],
    )
    assert not any(value.any() for value in steps[0].values())
    assert all(value.any() for value in steps[1].values())


@pytest.mark.parametrize(
    ("module", "options"),
    [
        *(
            (adamw, option)
            for option in (
                {"b1": 1.0},
                {"b2": -0.1},
                {"epsilon": 0.0},
                {"weight_decay": -1.0},
                {"embedding_rate": 0.0},
            )
        ),
        *(
            (muon, option)
            for option in (
                {"beta": 1.0},
                {"adam_b2": 1.0},
                {"adam_rate": 0.0},
                {"weight_decay": -1.0},
            )
        ),
    ],
)
def test_impossible_options_are_refused(module, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        module.Config(**options)
