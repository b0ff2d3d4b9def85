import copy
import dataclasses
import types

import jax
import numpy as np
import pytest
from scipy.special import log_softmax
from small_corpus import Ids, config, numbers, quick_compilation

from lm.core.plugins import UserError, configure
from lm.finetuning import tuner
from lm.finetuning.tuner import Recipe, Tuner
from lm.optimizers import groups
from lm.tasks import _labelled
from lm.training.program import Program

VOCABULARY, T = 64, 8
quick = pytest.fixture(quick_compilation, scope="module", autouse=True)


def build(devices: int = 1, **sections) -> Program:
    section = config("clm", model={"layers": 1, "width": 16, "feedforward": 32}, **sections)
    return Program(section, Ids(VOCABULARY), jax.devices()[:devices])


@pytest.fixture(scope="module")
def program():
    return build()


@pytest.fixture(scope="module")
def params(program):
    return jax.device_put(numbers(program.shapes["params"]), program.shardings["params"])


def rows(count: int, seed: int) -> tuner.Rows:
    """Rows of few words; the three at one place determine one of three labels."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(20, 24, (count, T)).astype(np.int32)
    targets = rng.integers(0, 3, (count, 1)).astype(np.int32)
    tokens[:, 2:5] = 10 + targets
    ones = np.ones_like(tokens)
    positions = np.broadcast_to(np.arange(T, dtype=np.int32), tokens.shape)
    return {
        "tokens": tokens,
        "segments": ones,
        "positions": positions,
        "targets": targets,
        "weights": np.ones((count, 1), np.float32),
    }


TRAIN, DEV = rows(100, 0), rows(45, 1)


def hits(logits: np.ndarray) -> float:
    return float((logits.argmax(-1) == DEV["targets"]).mean())


RECIPE = Recipe(batch_size=16, rates=(0.003, 0.02), epochs=6)


def changed(tuner: Tuner, **recipe) -> Tuner:
    """The same compiled step under another recipe."""
    other = copy.copy(tuner)
    other.recipe = dataclasses.replace(tuner.recipe, **recipe)
    return other


@pytest.fixture(scope="module")
def tuned(program, params):
    before = jax.device_get(params)
    tuner = Tuner(program, _labelled.text_mean, 3, RECIPE)
    features = tuner.frozen(params, DEV)
    result = tuner.run(params, TRAIN, DEV, hits)
    for one, two in zip(
        jax.tree.leaves(before), jax.tree.leaves(jax.device_get(params)), strict=True
    ):
        np.testing.assert_array_equal(one, two, err_msg="the given parameters changed")
    return types.SimpleNamespace(
        tuner=tuner,
        result=result,
        features=features,
        logits=tuner.logits(result.params, result.head, DEV),
    )


def test_labels_that_the_words_determine_are_learned(tuned):
    held_out = rows(200, 2)
    logits = tuned.tuner.logits(tuned.result.params, tuned.result.head, held_out)
    assert logits.shape == (200, 1, 3) and logits.dtype == np.float32
    assert (logits.argmax(-1) == held_out["targets"]).all()


def test_the_best_epoch_of_the_best_rate_is_kept(tuned):
    best = tuned.result
    assert [trial.rate for trial in best.trials] == [0.003, 0.02] and all(
        len(trial.epochs) == 6 for trial in best.trials
    )
    values = [
        (value, -loss, -trial.rate, -epoch)
        for trial in best.trials
        for epoch, (value, loss) in enumerate(trial.epochs)
    ]
    value, loss, rate, epoch = max(values)
    assert (best.rate, best.epoch) == (-rate, -epoch)
    # The parameters that were kept are those that were measured.
    assert hits(tuned.logits) == value and tuner.cross_entropy(tuned.logits, DEV) == pytest.approx(
        -loss, abs=1e-12
    )


def test_the_same_twice(params, tuned):
    again = tuned.tuner.run(params, TRAIN, DEV, hits)
    assert again.trials == tuned.result.trials
    for one, two in zip(
        jax.tree.leaves(again.params), jax.tree.leaves(tuned.result.params), strict=True
    ):
        np.testing.assert_array_equal(one, two)


def test_two_devices_compute_what_one_does(tuned, params):
    split = build(2, mesh={"data": 1, "fsdp": 2})
    placed = jax.device_put(jax.device_get(params), split.shardings["params"])
    alone = changed(tuned.tuner, rates=(0.02,), epochs=1)
    other = Tuner(split, _labelled.text_mean, 3, alone.recipe)
    best, expected = other.run(placed, TRAIN, DEV, hits), alone.run(params, TRAIN, DEV, hits)
    assert [leaf.sharding.spec for leaf in jax.tree.leaves(best.params)] == [
        leaf.sharding.spec for leaf in jax.tree.leaves(placed)
    ]
    np.testing.assert_allclose(
        other.logits(best.params, best.head, DEV),
        alone.logits(expected.params, expected.head, DEV),
        rtol=1e-3,
        atol=1e-3,
    )


def test_the_first_step_by_hand(params, tuned):
    """No gradient passes a head of zeros, so the model only decays; the head's step is Adam's."""
    few = {name: values[:12] for name, values in TRAIN.items()}
    first = changed(tuned.tuner, rates=(0.01,), epochs=1)
    best = first.run(params, few, DEV, hits)
    features = first.frozen(params, few)[:, 0].astype(np.float64)
    error = (1 / 3 - np.eye(3)[few["targets"][:, 0]]) / 12
    gradients = {"kernel": features.T @ error, "bias": error.sum(0)}
    rate = 0.01 * 64 / 16
    norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
    for name, gradient in gradients.items():
        gradient = gradient / max(1.0, norm)
        np.testing.assert_allclose(
            best.head[name], -rate * gradient / (np.abs(gradient) + 1e-8), rtol=1e-3, atol=1e-6
        )
    kept = jax.tree_util.tree_map_with_path(
        lambda path, _: 1.0 if groups.is_vector(path) else 1.0 - rate * RECIPE.weight_decay, params
    )
    for one, two, factor in zip(*map(jax.tree.leaves, (best.params, params, kept)), strict=True):
        np.testing.assert_allclose(one, np.asarray(two) * factor, rtol=1e-6, atol=0)


def test_rows_are_independent(params, tuned):
    some = {name: values[5:12] for name, values in DEV.items()}
    np.testing.assert_allclose(
        tuned.tuner.frozen(params, some), tuned.features[5:12], rtol=1e-5, atol=1e-6
    )
    assert tuned.features.std() > 0


def test_cross_entropy_is_scipys():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 30, (6, 4, 5)).astype(np.float32)
    rows = {
        "targets": rng.integers(0, 5, (6, 4)).astype(np.int32),
        "weights": (rng.random((6, 4)) < 0.7).astype(np.float32),
    }
    expected = -np.take_along_axis(
        log_softmax(logits.astype(np.float64), -1), rows["targets"][..., None].astype(int), -1
    )[..., 0]
    assert tuner.cross_entropy(logits, rows) == pytest.approx(
        np.average(expected, weights=rows["weights"])
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rates": ()}, "one or more"),
        ({"rates": (0.0,)}, "above 0"),
        ({"epochs": 0}, "at least 1"),
        ({"warmup": 1.0}, "a fraction below 1"),
    ],
)
def test_impossible_recipes(options, message):
    with pytest.raises(UserError, match=message):
        configure(Recipe, options, "tasks.it")
