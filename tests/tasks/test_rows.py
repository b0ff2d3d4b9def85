"""The examples of scores add up to the value; the same targets have the same identity."""

import math

import jax
import numpy as np
import pytest
import stand_ins
from small_corpus import Ids, config, numbers, quick_compilation, random_store

from lm.stats import ngrams
from lm.tasks import _text, causal, denoising, masked, next_sentence, probe, sentence_order, suffix
from lm.training.program import Program
from lm.training.validation import Validation

LENGTH, VOCABULARY = 32, 96
quick = pytest.fixture(quick_compilation, scope="module", autouse=True)


@pytest.fixture(scope="module")
def corpus():
    stores = {"train": random_store(64, 60, seed=1), "test": random_store(64, 40, seed=3)}
    return stand_ins.corpus(Ids(VOCABULARY, 20), stores)


@pytest.fixture(scope="module")
def programs(corpus):
    made = {}

    def get(objective: str, model: str = ""):
        if (objective, model) not in made:
            overrides = {"layers": 1} | ({"name": model} if model else {})
            made[objective, model] = Program(
                config(objective, model=overrides), corpus.tokenizer, jax.devices()[:1]
            )
        return made[objective, model]

    return get


def score(task, program):
    return task.score(program, numbers(program.shapes["params"]))


def assert_adds_up(scores, rows=None):
    for name, score in scores.items():
        if name == "perplexity":
            assert score.examples is None
            continue
        examples = score.examples
        assert examples.totals.dtype == examples.weights.dtype == np.float64
        assert examples.totals.shape == examples.weights.shape and len(examples.totals) == (
            rows or len(examples.totals)
        )
        assert examples.totals.sum() / examples.weights.sum() == pytest.approx(
            score.value, rel=1e-12
        )
    assert len({score.examples.identity for score in scores.values() if score.examples}) == 1


def identity_of(scores) -> str:
    return next(iter(scores.values())).examples.identity


def test_by_row_adds_up_to_sums_and_rows_are_independent(corpus, programs):
    program = programs("clm")
    task = causal.Task(causal.Config(), corpus, "test", LENGTH)
    params = numbers(program.shapes["params"])
    validation = task._validation(program)
    rows, sums = validation.by_row(params), validation.sums(params)
    assert rows.keys() == sums.keys()
    for name, (totals, weights) in rows.items():
        assert (totals.sum(), weights.sum()) == pytest.approx(sums[name], rel=1e-5)
    batch = validation.full()[0]

    def logits(model, batch):
        hidden = model.hidden(
            batch["tokens"], segments_BT=batch["segments"], positions_BT=batch["positions"]
        )
        return jax.nn.log_softmax(model.logits(hidden).astype(np.float32))

    log_probability = np.asarray(program.jit(logits)(params, batch))
    expected = -(
        np.take_along_axis(log_probability, batch["targets"][..., None], 2)[..., 0]
        * batch["weights"]
    ).sum(1)
    np.testing.assert_allclose(rows["clm"][0][: len(expected)], expected, rtol=1e-4)
    np.testing.assert_array_equal(rows["clm"][1][: len(expected)], batch["weights"].sum(1))


def test_causal_by_row(corpus, programs):
    program = programs("clm")
    task = causal.Task(causal.Config(), corpus, "test", LENGTH)
    result, baselines = score(task, program), task.baselines(program)
    rows = len(task._validation(program).full()) * 32
    for scores in (result, *baselines.values()):
        assert_adds_up(scores, rows)
        assert identity_of(scores) == identity_of(result)
    bits, nll = result["bits_per_byte"].examples, result["nll"].examples
    np.testing.assert_allclose(bits.totals, nll.totals / math.log(2))
    assert bits.weights.sum() == result["bits_per_byte"].count
    # The first row's bigram baseline by hand.
    batch, tokenizer = task._validation(program).full()[0], corpus.tokenizer
    keep = batch["weights"][0] > 0
    bigram = ngrams.Bigram(*_text.neighbors(corpus.stores["train"], tokenizer), tokenizer.size)
    expected = bigram.nll(batch["tokens"][0][keep], batch["targets"][0][keep]).sum()
    assert baselines["bigram"]["nll"].examples.totals[0] == pytest.approx(expected)
    assert bits.weights[0] == tokenizer.bytes_per_id[batch["targets"][0][keep]].sum()


def test_models_that_read_the_first_half_differently_have_the_same_targets(corpus, programs):
    task = suffix.Task(suffix.Config(), corpus, "test", LENGTH)
    result = [
        score(task, programs(*names))
        for names in (("clm",), ("prefix_lm", "decoder"), ("prefix_lm", "encoder_decoder"))
    ]
    baselines = task.baselines(programs("clm"))
    for scores in (*result, *baselines.values()):
        assert_adds_up(scores)
        assert identity_of(scores) == identity_of(result[0])
        np.testing.assert_array_equal(
            scores["nll"].examples.weights, result[0]["nll"].examples.weights
        )


def test_sentinels_on_both_kinds_of_model_have_the_same_targets(corpus, programs):
    task = denoising.Task(denoising.Config(), corpus, "test", LENGTH)
    identities = []
    for model in ("decoder", "encoder_decoder"):
        batches = task._validation(programs("clm"), model, "").full()
        identities.append(_text.Targets.from_batches(batches, "denoising").identity)
    assert identities[0] == identities[1]
    result = score(task, programs("span_corruption", "encoder_decoder"))
    for scores in (result, *task.baselines(programs("clm")).values()):
        assert_adds_up(scores)
        assert identity_of(scores) == identities[0]


def test_masked_and_masked_next_have_the_same_targets(corpus, programs):
    task = masked.Task(masked.Config(), corpus, "test", LENGTH)
    result = [score(task, programs(name)) for name in ("mlm", "mntp")]
    baselines = task.baselines(programs("mlm"))
    for scores in (*result, *baselines.values()):
        assert_adds_up(scores)
        assert identity_of(scores) == identity_of(result[0])
    elsewhere = masked.Task(masked.Config(rate=0.3), corpus, "test", LENGTH)
    assert identity_of(elsewhere.baselines(programs("mlm"))["unigram"]) != identity_of(result[0])


@pytest.mark.parametrize("module", [next_sentence, sentence_order])
def test_pairs_one_by_one(corpus, programs, module):
    task = module.Task(module.Config(), corpus, "test", LENGTH)
    result, baselines = score(task, programs("mlm_nsp")), task.baselines(programs("mlm_nsp"))
    for scores in (result, *baselines.values()):
        assert_adds_up(scores, result["accuracy"].count)
        assert identity_of(scores) == identity_of(result)
        assert set(scores["accuracy"].examples.totals) <= {0.0, 1.0} and set(
            scores["accuracy"].examples.weights
        ) == {1.0}


def test_probe_by_paragraph():
    answers = np.array([0, 0, 0, 1, 1, 2])
    task = object.__new__(probe.Task)
    task.test = ([np.arange(k + 1) for k in range(6)], answers)
    result = task._scores(np.array([0, 1, 0, 1, 0, 2]))
    assert_adds_up(result, 6)
    value = (2 / 3 + 1 / 2 + 1) / 3
    assert result["balanced_accuracy"].value == pytest.approx(value)
    # By class, the hits are 1, 0, 1; 1, 0; 1. The influence is their distance from the class's
    # recall, times 6 examples over 3 times the class's size.
    influence = [2 / 9, -4 / 9, 2 / 9, 1 / 2, -1 / 2, 0]
    np.testing.assert_allclose(
        result["balanced_accuracy"].examples.totals, value + np.array(influence)
    )
    assert set(result["balanced_accuracy"].examples.weights) == {1.0}
    assert identity_of(result) == identity_of(task._scores(answers))


def test_by_row_is_the_same_on_a_mesh(corpus):
    names = {"data": 2, "fsdp": 2}
    single = Program(config("clm", model={"layers": 1}), corpus.tokenizer, jax.devices()[:1])
    spread = Program(
        config("clm", model={"layers": 1}) | {"mesh": names}, corpus.tokenizer, jax.devices()[:4]
    )
    task = causal.Task(causal.Config(), corpus, "test", LENGTH)
    params = numbers(single.shapes["params"])
    one, four = (
        Validation(program, task.objective, corpus.stores["test"], "test", 4096, 32).by_row(params)[
            "clm"
        ]
        for program in (single, spread)
    )
    np.testing.assert_allclose(one[0], four[0], rtol=1e-4)
    np.testing.assert_array_equal(one[1], four[1])
