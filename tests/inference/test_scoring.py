"""Scores of sentences against the model asked one text at a time, without padding, buckets or batches; and against transformers."""

import types

import jax
import numpy as np
import pytest
from golden_models import load
from single_texts import LENGTH, SENTINELS, TOKENIZER, VOCABULARY, alone, build
from small_corpus import Ids, numbers, quick_compilation

from lm.core import compatibility
from lm.inference import queries, scoring
from lm.parallel import mesh as meshes

quick = pytest.fixture(quick_compilation, scope="module", autouse=True)


def sentences(count: int, longest: int = 20, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        rng.integers(7, VOCABULARY - SENTINELS - 3, rng.integers(1, longest)).astype(np.int32)
        for _ in range(count)
    ]


def causal(ask, ids, **_):
    table = ask([Ids.bos, *ids])
    return sum(table[at, each] for at, each in enumerate(ids))


def pll(ask, ids, ends=(Ids.cls, Ids.sep), shift=0, head=True, by_word=False):
    total = 0.0
    for place, each in enumerate(ids):
        row, stop = [ends[0], *ids, ends[1]], place + 1
        while by_word and stop < len(ids) and not TOKENIZER.is_word_start[ids[stop]]:
            stop += 1
        row[place + 1 : stop + 1] = [Ids.mask] * (stop - place)
        total += ask(row, both=True, head=head)[place + 1 - shift, each]
    return total


def infill(ask, ids, cross: bool):
    total, start = 0.0, 0
    while start < len(ids):
        stop = start + 1
        while stop < len(ids) and not TOKENIZER.is_word_start[ids[stop]]:
            stop += 1
        first = TOKENIZER.sentinels[0]
        inputs, target = [*ids[:start], first, *ids[stop:], Ids.eos], [*ids[start:stop], Ids.eos]
        read = [Ids.bos, first, *ids[start:stop]]
        table = (
            ask(read, inputs=inputs)
            if cross
            else ask(inputs + read, prefix=len(inputs))[len(inputs) :]
        )
        total += sum(table[at + 1, each] for at, each in enumerate(target))
        start = stop
    return total


CASES = {
    "clm": ("clm", "", {}, {"causal": causal}),
    "mlm": ("mlm", "", {}, {"pll": pll, "pll_word": lambda ask, ids: pll(ask, ids, by_word=True)}),
    "hybrid": (
        "hybrid", "", {},
        {"pll": lambda ask, ids: pll(ask, ids, (Ids.bos, Ids.eos), 1, False), "causal": causal},
    ),
    "mntp on encoder, transform": (
        "mntp", "encoder", {"head": "transform"},
        {"pll_word": lambda ask, ids: pll(ask, ids, (Ids.bos, Ids.eos), 1, True, True)},
    ),
    "span_corruption": ("span_corruption", "encoder_decoder", {}, {"infill": lambda ask, ids: infill(ask, ids, True)}),
    "span_corruption on decoder": ("span_corruption", "decoder", {}, {"infill": lambda ask, ids: infill(ask, ids, False)}),
    "prefix_lm": (
        "prefix_lm", "encoder_decoder", {},
        {"causal": lambda ask, ids: sum(ask([Ids.bos, *ids], inputs=[Ids.bos, Ids.eos])[at, each] for at, each in enumerate(ids))},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_the_model_asked_one_by_one(case):
    objective, model, options, by_method = CASES[case]
    program = build(objective, model, **options)
    params = numbers(program.shapes["params"], std=0.3)
    ask, few = alone(program, params), [ids[:5] for ids in sentences(5) if len(ids) > 4][:2]
    usual = scoring.methods(program.objective)
    assert set(by_method) <= set(usual) and next(iter(by_method)) in usual[:2]
    for method, expected in by_method.items():
        found = scoring.Scorer(program, TOKENIZER, method).sentences(params, few)
        np.testing.assert_allclose(
            found, [expected(ask, ids.tolist()) for ids in few], rtol=1e-5, atol=1e-4
        )


def test_the_end_of_a_sentence_is_one_more_token():
    program = build("clm")
    params = numbers(program.shapes["params"], std=0.3)
    ids = sentences(1, 6, seed=3)
    without, end = (
        scoring.Scorer(program, TOKENIZER, "causal", end).sentences(params, ids)[0]
        for end in (False, True)
    )
    assert end - without == pytest.approx(
        alone(program, params)([Ids.bos, *ids[0]])[-1, Ids.eos], abs=1e-4
    )


@pytest.mark.parametrize(
    "mesh", [{"data": 8}, {"data": 2, "fsdp": 2, "tensor": 2}], ids=["data", "data-fsdp-tensor"]
)
def test_scores_on_a_mesh(mesh):
    """Rows are divided over devices, whatever their number; the last batch is padded."""
    one, many = build("mlm"), build("mlm", devices=8, mesh=mesh)
    params = numbers(one.shapes["params"], std=0.3)
    texts = sentences(5, 12)
    found, expected = (
        scoring.Scorer(each, TOKENIZER, "pll").sentences(params, texts) for each in (one, many)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_order_and_company_change_nothing():
    """A sentence's score does not depend on which others are asked, nor on how many fill a batch."""
    program = build("clm")
    params = numbers(program.shapes["params"], std=0.3)
    scorer, texts = scoring.Scorer(program, TOKENIZER, "causal"), sentences(300, 20)
    together = scorer.sentences(params, texts)
    order = np.random.default_rng(1).permutation(len(texts))
    np.testing.assert_allclose(
        scorer.sentences(params, [texts[at] for at in order]), together[order], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("objective", "model", "expected"),
    [
        ("clm", "decoder", ("causal",)), ("mlm", "encoder", ("pll", "pll_word")), ("mlm_nsp", "encoder", ("pll", "pll_word")),
        ("hybrid", "decoder", ("pll", "pll_word", "causal")), ("biphasic", "decoder", ("pll", "pll_word", "causal")),
        ("prefix_lm", "decoder", ("causal",)), ("prefix_lm", "encoder_decoder", ("causal",)), ("seq2seq", "encoder_decoder", ("causal",)),
        ("ul2", "encoder_decoder", ("infill",)), ("nsp", "encoder", ()), ("sop", "encoder", ()), ("rtd", "encoder", ()),
    ],
)  # fmt: skip
def test_methods(objective, model, expected):
    assert (
        scoring.methods(compatibility.make({"name": objective}, TOKENIZER, LENGTH, model))
        == expected
    )


def test_a_method_that_does_not_suit_is_refused():
    with pytest.raises(ValueError, match="'pll' is not one of causal"):
        scoring.Scorer(build("clm"), TOKENIZER, "pll")


def test_words_begin_after_spaces_and_around_punctuation():
    pieces = ["\u2581The", "\u2581ex", "-", "hus", "band", "\u2581left", ".", "\u2581(", "a", ")"]
    tokenizer = types.SimpleNamespace(
        name=pieces.__getitem__, is_word_start=np.array([piece[0] == "\u2581" for piece in pieces])
    )
    found = scoring.words(tokenizer, np.arange(len(pieces)))
    assert [pieces[at] for at in np.flatnonzero(found)] == [
        "\u2581The",
        "\u2581ex",
        "-",
        "hus",
        "\u2581left",
        ".",
        "\u2581(",
        "a",
        ")",
    ]


def test_few_shapes():
    """Sentences of every length up to 128 tokens are asked in as many shapes as there are widths."""
    engine = queries.QueryEngine(build("clm"), Ids.pad)
    found = {
        engine._shape(queries.Query(np.zeros(n), np.arange(n), np.zeros(n))) for n in range(5, 129)
    }
    assert {width for width, _, _ in found} == set(queries.WIDTHS) and len(found) <= len(
        queries.WIDTHS
    ) + 1


class Golden(Ids):
    """The special ids that golden/make.py gives its sentences."""

    pad, bos, eos, cls, sep, mask = 0, 0, 0, 1, 2, 3


@pytest.mark.parametrize(("name", "method"), [("gpt2", "causal"), ("bert", "pll")])
def test_transformers_agrees(name, method):
    """Same weights, same sentences, same scores as in Hugging Face `transformers` (golden/make.py)."""
    model, given, expect = load(name)
    objective = types.SimpleNamespace(
        scores=("causal",) if name == "gpt2" else ("masked",), composed=False, config=types.SimpleNamespace(head="transform"),
        mask="causal" if name == "gpt2" else "bidirectional",
    )  # fmt: skip

    def compiled(function):
        return jax.jit(lambda _, batch: function(model, batch))

    one = meshes.make(meshes.MeshConfig(), jax.devices()[:1])
    sharding = jax.sharding.NamedSharding(one, meshes.spec(("batch",)))
    program = types.SimpleNamespace(
        objective=objective, mesh=one, batch_sharding=sharding, jit=compiled
    )
    texts = [
        row[:size]
        for row, size in zip(
            np.asarray(given["sentences"]), np.asarray(given["sentence_lengths"]), strict=True
        )
    ]
    found = scoring.Scorer(program, Golden(67), method).sentences(None, texts)
    np.testing.assert_allclose(found, expect["sentence_scores"], rtol=0, atol=1e-4)
