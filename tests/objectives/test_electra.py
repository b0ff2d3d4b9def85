"""Replaced-token detection: the generator's samples, what is classified, terms and FLOPs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from small_corpus import Ids, config, numbers, quick_compilation, random_store

from lm.core import compatibility
from lm.data import loader
from lm.objectives import rtd
from lm.training.program import Program

VOCABULARY, ROWS = 64, 6
quick = pytest.fixture(quick_compilation, scope="module", autouse=True)


def build(**options) -> Program:
    return Program(
        config("rtd", options=options, model={"layers": 1}), Ids(VOCABULARY), jax.devices()[:1]
    )


def batch_of(objective, rows: int = ROWS) -> dict[str, np.ndarray]:
    text = random_store(VOCABULARY, 60)
    examples = loader.examples(objective, text, objective.plan(text), 0)
    return {key: np.stack([examples[row][key] for row in range(rows)]) for key in examples[0]}


@pytest.fixture(scope="module")
def program():
    return build()


@pytest.fixture(scope="module")
def batch(program):
    return batch_of(program.objective)


@pytest.fixture(scope="module")
def params(program):
    return numbers(program.shapes["params"])


@pytest.fixture(scope="module")
def run(program, params):
    """Terms, metrics, the tokens that the discriminator reads, and its logits.

    The samples are `batch["samples"]` if there are any, otherwise those of the generator.
    """
    read = []
    cls = program.architecture
    states = cls.states

    def watched(model, batch, dropout_keys=None):
        read.append(batch["tokens"])
        return states(model, batch, dropout_keys)

    def compute(model, batch):
        sample = rtd._sample
        cls.states = watched
        if "samples" in batch:
            rtd._sample = lambda logits, seeds: batch["samples"]
        try:
            terms, metrics = program.objective.loss(model, batch, None)
        finally:
            cls.states, rtd._sample = states, sample
        corrupted = read.pop()
        scores = model.heads["replaced"](states(model, {**batch, "tokens": corrupted}, None))
        return terms, metrics, corrupted, scores

    compiled = program.jit(compute)
    return lambda batch: jax.device_get(compiled(params, batch))


def original(batch: dict[str, np.ndarray]) -> np.ndarray:
    tokens = batch["tokens"].copy()
    for row, at, targets, weights in zip(
        tokens, batch["target_positions"], batch["targets"], batch["weights"], strict=True
    ):
        row[at[weights > 0]] = targets[weights > 0]
    return tokens


def masked(batch: dict[str, np.ndarray]) -> np.ndarray:
    is_masked = np.zeros(batch["tokens"].shape, bool)
    for row, at, weights in zip(
        is_masked, batch["target_positions"], batch["weights"], strict=True
    ):
        assert len(set(at[weights > 0])) == (weights > 0).sum(), "no position twice"
        row[at[weights > 0]] = True
    return is_masked


def test_only_masked_positions_are_replaced(run, batch):
    _, metrics, corrupted, _ = run(batch)
    assert (corrupted == original(batch))[~masked(batch)].all()
    assert (
        (corrupted != original(batch)).sum()
        == metrics["replaced_share"][0]
        > 0.8 * masked(batch).sum()
    )


def test_a_sample_that_is_the_original_counts_as_original(run, batch):
    wrong = 7 + (batch["targets"] - 7 + 1) % (VOCABULARY - 7)
    even = np.arange(batch["targets"].shape[1])[None] % 2 == 0
    for samples in (batch["targets"], np.where(even, batch["targets"], wrong), wrong):
        terms, metrics, corrupted, scores = run(batch | {"samples": samples.astype(np.int32)})
        replaced = corrupted != original(batch)
        count = ((samples != batch["targets"]) & (batch["weights"] > 0)).sum()
        assert (
            replaced.sum() == metrics["replaced_share"][0] == metrics["replaced_recall"][1] == count
        )
        nll = np.logaddexp(0, np.where(replaced, -scores, scores))
        real = batch["segments"] > 0
        assert terms["rtd"][1] == real.sum()
        np.testing.assert_allclose(terms["rtd"][0], nll[real].sum(), rtol=1e-5)
        assert metrics["rtd_accuracy"][0] == ((scores > 0) == replaced)[real].sum()


def test_samples_depend_on_the_row_alone(run, batch):
    order = np.random.default_rng(0).permutation(ROWS)
    one, two = run(batch)[2], run({name: values[order] for name, values in batch.items()})[2]
    np.testing.assert_array_equal(one[order], two)
    assert (batch["noise"] >= 0).all() and len(set(batch["noise"].tolist())) == ROWS
    other = run(batch | {"noise": batch["noise"] + 1})[2]
    assert (one != other)[masked(batch)].mean() > 0.8


def test_no_gradient_through_the_samples(program, params, batch):
    def gradients(model_params, batch):
        def term(name):
            return jax.grad(
                lambda params: program.objective.loss(program.model(params), batch, None)[0][name][
                    0
                ]
            )(model_params)

        return term("rtd"), term("mlm")

    discriminator, generator = jax.device_get(jax.jit(gradients)(params, batch))
    norms = lambda tree: [float(np.abs(leaf).max()) for leaf in jax.tree.leaves(tree)]
    assert not any(norms(discriminator["heads"]["generator"])) and all(
        norms(generator["heads"]["generator"])
    )
    assert all(norms(discriminator["heads"]["replaced"])) and not any(
        norms(generator["heads"]["replaced"])
    )
    assert all(norms(discriminator["stack"])) and not any(norms(generator["stack"]))
    assert all(norms(discriminator["embedding"])) and all(norms(generator["embedding"])), (
        "the embeddings are shared"
    )


def test_weights_of_the_terms():
    def terms(**options):
        return compatibility.make({"name": "rtd", **options}, Ids(VOCABULARY), 32, "encoder").terms

    assert terms() == {"mlm": 1.0, "rtd": 50.0}
    assert terms(variant="electra_15") == {"mlm": 1.0, "electra_15": 50.0}
    assert terms(variant="all_tokens_mlm") == {"mlm": 1.0, "all_tokens_mlm": 1.0}
    assert terms(variant="replace_mlm") == {"mlm": 1.0, "replace_mlm": 1.0}
    assert terms(weight=7.0)["rtd"] == 7.0


def test_samples_follow_the_softmax():
    logits = np.random.default_rng(0).normal(0, 1.5, 12).astype(np.float32)
    p = np.exp(logits.astype(np.float64))
    p /= p.sum()
    across = rtd._sample(
        jnp.broadcast_to(jnp.asarray(logits)[None, None], (1, 8000, 12)), jnp.array([3], jnp.int32)
    )
    rows = rtd._sample(
        jnp.broadcast_to(jnp.asarray(logits)[None, None], (4000, 2, 12)),
        jnp.arange(4000, dtype=jnp.int32),
    )
    assert stats.chisquare(np.bincount(across[0], minlength=12), 8000 * p).pvalue > 1e-3
    for place in (0, 1):
        assert stats.chisquare(np.bincount(rows[:, place], minlength=12), 4000 * p).pvalue > 1e-3
    joint = np.zeros((12, 12))
    np.add.at(joint, (np.asarray(rows[:, 0]), np.asarray(rows[:, 1])), 1)
    assert stats.chi2_contingency(joint + 1e-9).pvalue > 1e-3, "positions of a row are independent"


def test_which_tokens_count_in_the_discriminators_loss():
    all_tokens, masked_tokens = (
        batch_of(
            compatibility.make({"name": "rtd", "variant": variant}, Ids(VOCABULARY), 32, "encoder")
        )
        for variant in ("rtd", "electra_15")
    )
    assert (all_tokens["token_weights"] == (all_tokens["segments"] > 0)).all()
    assert (masked_tokens["token_weights"] == masked(masked_tokens)).all()
    assert (all_tokens["tokens"] == masked_tokens["tokens"]).all()


def test_copying_gives_a_distribution_over_the_vocabulary():
    """p(v) = g · [v is the input] + (1 - g) · softmax(v), ELECTRA section 3.4."""
    rng = np.random.default_rng(0)
    logits, gate = rng.normal(0, 2, (1, 5, VOCABULARY)), rng.normal(0, 2, (1, 5))
    inputs = rng.integers(0, VOCABULARY, (1, 5))
    log_p = jax.jit(rtd._copy_or_predict)
    p = np.stack(
        [
            np.exp(
                log_p(
                    jnp.asarray(logits, jnp.float32),
                    jnp.asarray(gate, jnp.float32),
                    jnp.full((1, 5), word),
                    jnp.asarray(inputs),
                )
            )[0]
            for word in range(VOCABULARY)
        ],
        axis=-1,
    )
    g = 1 / (1 + np.exp(-gate[0]))
    softmax = np.exp(logits[0]) / np.exp(logits[0]).sum(-1, keepdims=True)
    is_input = np.arange(VOCABULARY)[None] == inputs[0][:, None]
    np.testing.assert_allclose(
        p, (1 - g)[:, None] * softmax + g[:, None] * is_input, rtol=1e-4, atol=1e-7
    )
    np.testing.assert_allclose(p.sum(-1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("variant", ["electra_15", "replace_mlm", "all_tokens_mlm"])
def test_the_generators_term_is_the_same_in_every_variant(run, batch, params, variant):
    other = build(variant=variant)
    other_params = numbers(other.shapes["params"]) | {"embedding": params["embedding"]}
    other_params["heads"]["generator"] = params["heads"]["generator"]
    own = batch_of(other.objective)
    terms, _ = jax.device_get(
        other.jit(lambda model, batch: other.objective.loss(model, batch, None))(other_params, own)
    )
    assert terms.keys() == {"mlm", variant} == other.terms.keys()
    np.testing.assert_allclose(terms["mlm"], run(batch)[0]["mlm"], rtol=1e-5)
    assert np.isfinite(terms[variant][0])
    # A position drawn twice counts twice where its token is predicted, once where it is classified.
    weights = {
        "electra_15": masked(own).sum(),
        "replace_mlm": own["weights"].sum(),
        "all_tokens_mlm": (own["segments"] > 0).sum(),
    }
    assert terms[variant][1] == weights[variant]


def test_flops_by_hand(program):
    assert (
        program.config.width == 32
        and program.config.layers == 1
        and program.config.feedforward == 64
    )
    T, D, V, P, G, F = 32, 32, VOCABULARY, round(0.15 * 32), 8, 16
    model = 2 * (4 * D * D + 2 * D * 64) * T + 4 * T * T * D + 2 * D * D * T
    generator = (
        2 * D * G * T
        + 2 * (4 * G * G + 2 * G * F) * T
        + 4 * T * T * G
        + 2 * G * D * P
        + 2 * D * V * P
    )
    assert program.objective.flops(program.architecture, program.config) == model + generator
    shapes = program.shapes["params"]["heads"]["generator"]
    assert shapes["project"].shape == (32, 8) and shapes["stack"]["blocks"]["attention"][
        "query"
    ].shape == (1, 8, 1, 8)


def test_positions_are_drawn_with_replacement_as_in_the_published_code():
    """n draws from L positions fall on L · (1 - (1 - 1/L)^n) different ones.

    A position drawn twice has weight 2.
    """
    tokenizer, length = Ids(96, 20), 128
    text = random_store(73, 200, seed=3)
    objective = rtd.Objective(rtd.Config(), tokenizer, length)
    plan = objective.plan(text)
    unique, expected = [], []
    for row in range(min(100, len(plan))):
        for seed in range(4):
            example = objective.example(text, plan, row, np.random.default_rng([row, seed]), 1.0)
            used = example["weights"] > 0
            n = round(0.15 * int((example["segments"] > 0).sum()))
            tokens = objective.row_format.row(text, plan, row, np.random.default_rng(0))["tokens"]
            eligible = int((tokens > Ids.mask).sum())
            assert example["weights"].sum() == n
            assert len(np.unique(example["target_positions"][used])) == used.sum()
            unique.append(int(used.sum()) / n)
            expected.append(eligible * (1 - (1 - 1 / eligible) ** n) / n)
    error = np.std(unique) / len(unique) ** 0.5
    assert abs(np.mean(unique) - np.mean(expected)) < 3.3 * error
    assert 0.9 < np.mean(expected) < 0.95
