"""Label smoothing, z-loss and the bias of the vocabulary head.

Values against NumPy, gradients against automatic differentiation of the plain formula.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_corpus import quick_compilation

from lm.nn import cross_entropy
from lm.nn.cross_entropy import LossOptions

B, T, D, V = 3, 7, 6, 11
quick = pytest.fixture(quick_compilation, scope="module", autouse=True)


def draw():
    rng = np.random.default_rng(0)
    weights = np.where(rng.random((B, T)) < 0.3, 0.0, rng.random((B, T)))
    return (
        rng.normal(size=(B, T, D)),
        rng.normal(size=(V, D)),
        rng.normal(size=V),
        rng.integers(0, V, (B, T)),
        weights,
    )


def plain(h, table, bias, targets, weights, options):
    """The definition, by automatic differentiation of the scores of all positions."""
    logits = jnp.einsum("BTD,VD->BTV", h, table) + bias[None, None]
    log_p = jax.nn.log_softmax(logits)
    nll = -jnp.take_along_axis(log_p, targets[..., None], -1)[..., 0]
    smooth = (1 - options.label_smoothing) * nll - options.label_smoothing * log_p.mean(-1)
    return ((smooth + options.z_loss * jax.nn.logsumexp(logits, -1) ** 2) * weights).sum(), (
        nll * weights
    ).sum(1)


@pytest.mark.parametrize("chunks", [1, 3])
@pytest.mark.parametrize(
    "options",
    [LossOptions(), LossOptions(0.1), LossOptions(0.0, 1e-2), LossOptions(0.2, 1e-2)],
    ids=str,
)
def test_against_the_definition(options, chunks):
    h, table, bias, targets, weights = (
        jnp.asarray(x, jnp.int32 if x.dtype == int else jnp.float32) for x in draw()
    )

    def ours(h, table, bias):
        sums = cross_entropy.cross_entropy(h, table, targets, weights, chunks, bias, options)
        return sums.loss, sums.nll

    (loss, nll), gradients = jax.value_and_grad(ours, (0, 1, 2), has_aux=True)(h, table, bias)
    (expected, expected_nll), expected_gradients = jax.value_and_grad(
        lambda *args: plain(*args, targets, weights, options), (0, 1, 2), has_aux=True
    )(h, table, bias)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(nll, expected_nll, rtol=1e-5)
    for one, other in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6 * float(jnp.abs(other).max()) * 5)


def test_by_numpy_in_float64():
    h, table, bias, targets, weights = draw()
    options = LossOptions(0.1, 1e-3)
    logits = h @ table.T + bias
    log_z = np.log(np.exp(logits).sum(-1))
    nll = log_z - np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    expected = ((0.9 * nll + 0.1 * (log_z - logits.mean(-1)) + 1e-3 * log_z**2) * weights).sum()
    given = (jnp.asarray(x, jnp.float32) for x in (h, table))
    sums = cross_entropy.cross_entropy(
        *given,
        jnp.asarray(targets),
        jnp.asarray(weights, jnp.float32),
        2,
        jnp.asarray(bias, jnp.float32),
        options,
    )
    assert float(sums.loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "fields", [{"label_smoothing": 1.0}, {"label_smoothing": -0.1}, {"z_loss": -1.0}]
)
def test_impossible_values_are_refused(fields):
    with pytest.raises(ValueError, match=str(next(iter(fields.values())))):
        LossOptions(**fields)
