"""Scores, compared with a model called on single texts and with Hugging Face transformers."""

import jax
import numpy as np
import pytest
from golden_models import load
from single_texts import LENGTH, SENTINELS, TOKENIZER, VOCABULARY, build, log_prob_function
from small_corpus import Ids, numbers, quick_compilation

from lm.core import compatibility
from lm.inference import queries, scoring
from lm.parallel import mesh as meshes
from lm.parallel import sharding
from lm.training.program import Program

quick = pytest.fixture(quick_compilation, scope="module", autouse=True)


def sentences(count: int, longest: int = 20, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        rng.integers(7, VOCABULARY - SENTINELS - 3, rng.integers(1, longest)).astype(np.int32)
        for _ in range(count)
    ]


def causal(query, ids):
    table = query([Ids.bos, *ids])
    return sum(table[at, target] for at, target in enumerate(ids))


def pll(query, ids, ends=(Ids.cls, Ids.sep), shift=0, head=True, by_word=False):
    total = 0.0
    for at, target in enumerate(ids):
        row, stop = [ends[0], *ids, ends[1]], at + 1
        while by_word and stop < len(ids) and not TOKENIZER.is_word_start[ids[stop]]:
            stop += 1
        row[at + 1 : stop + 1] = [Ids.mask] * (stop - at)
        total += query(row, both=True, head=head)[at + 1 - shift, target]
    return total


def infill(query, ids, cross: bool):
    total, start = 0.0, 0
    while start < len(ids):
        stop = start + 1
        while stop < len(ids) and not TOKENIZER.is_word_start[ids[stop]]:
            stop += 1
        first = TOKENIZER.sentinels[0]
        inputs, target = [*ids[:start], first, *ids[stop:], Ids.eos], [*ids[start:stop], Ids.eos]
        read = [Ids.bos, first, *ids[start:stop]]
        if cross:
            table = query(read, inputs=inputs)
        else:
            table = query(inputs + read, prefix=len(inputs))[len(inputs) :]
        total += sum(table[at + 1, i] for at, i in enumerate(target))
        start = stop
    return total


def pll_word(query, ids):
    return pll(query, ids, by_word=True)


def pll_shifted(query, ids):
    return pll(query, ids, (Ids.bos, Ids.eos), shift=1, head=False)


def pll_word_shifted(query, ids):
    return pll(query, ids, (Ids.bos, Ids.eos), shift=1, head=True, by_word=True)


def infill_two_streams(query, ids):
    return infill(query, ids, cross=True)


def infill_one_stream(query, ids):
    return infill(query, ids, cross=False)


def causal_after_empty_input(query, ids):
    table = query([Ids.bos, *ids], inputs=[Ids.bos, Ids.eos])
    return sum(table[at, target] for at, target in enumerate(ids))


# name → (objective, model, options, {method: expected score})
CASES = {
    "clm": ("clm", "", {}, {"causal": causal}),
    "mlm": ("mlm", "", {}, {"pll": pll, "pll_word": pll_word}),
    "hybrid": ("hybrid", "", {}, {"pll": pll_shifted, "causal": causal}),
    "mntp on encoder, transform": (
        "mntp",
        "encoder",
        {"head": "transform"},
        {"pll_word": pll_word_shifted},
    ),
    "span_corruption": (
        "span_corruption",
        "encoder_decoder",
        {},
        {"infill": infill_two_streams},
    ),
    "span_corruption on decoder": (
        "span_corruption",
        "decoder",
        {},
        {"infill": infill_one_stream},
    ),
    "prefix_lm": ("prefix_lm", "encoder_decoder", {}, {"causal": causal_after_empty_input}),
}


@pytest.mark.parametrize("case", CASES)
def test_scores_equal_those_of_single_texts(case):
    objective, model, options, by_method = CASES[case]
    program = build(objective, model, **options)
    params = numbers(program.shapes["params"], std=0.3)
    query, few = (
        log_prob_function(program, params),
        [ids[:5] for ids in sentences(5) if len(ids) > 4][:2],
    )
    usual = scoring.methods(program.objective)
    assert set(by_method) <= set(usual) and next(iter(by_method)) in usual[:2]
    for method, expected in by_method.items():
        scores = scoring.Scorer(program, TOKENIZER, method).sentences(params, few)
        np.testing.assert_allclose(
            scores, [expected(query, ids.tolist()) for ids in few], rtol=1e-5, atol=1e-4
        )


def test_the_end_of_a_sentence_adds_one_token():
    program = build("clm")
    params = numbers(program.shapes["params"], std=0.3)
    ids = sentences(1, 6, seed=3)
    without, end = (
        scoring.Scorer(program, TOKENIZER, "causal", end).sentences(params, ids)[0]
        for end in (False, True)
    )
    assert end - without == pytest.approx(
        log_prob_function(program, params)([Ids.bos, *ids[0]])[-1, Ids.eos], abs=1e-4
    )


@pytest.mark.parametrize(
    "mesh", [{"data": 8}, {"data": 2, "fsdp": 2, "tensor": 2}], ids=["data", "data-fsdp-tensor"]
)
def test_scores_on_a_mesh(mesh):
    """Rows are split over any number of devices; the last batch is padded."""
    one, many = build("mlm"), build("mlm", devices=8, mesh=mesh)
    params = numbers(one.shapes["params"], std=0.3)
    texts = sentences(5, 12)
    expected, scores = (
        scoring.Scorer(program, TOKENIZER, "pll").sentences(params, texts)
        for program in (one, many)
    )
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-4)


def test_scores_do_not_depend_on_other_sentences():
    """Neither their order nor their number changes a score."""
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
        ("clm", "decoder", ("causal",)),
        ("mlm", "encoder", ("pll", "pll_word")),
        ("mlm_nsp", "encoder", ("pll", "pll_word")),
        ("hybrid", "decoder", ("pll", "pll_word", "causal")),
        ("biphasic", "decoder", ("pll", "pll_word", "causal")),
        ("prefix_lm", "decoder", ("causal",)),
        ("prefix_lm", "encoder_decoder", ("causal",)),
        ("seq2seq", "encoder_decoder", ("causal",)),
        ("ul2", "encoder_decoder", ("infill",)),
        ("nsp", "encoder", ()),
        ("sop", "encoder", ()),
        ("rtd", "encoder", ()),
    ],
)
def test_methods(objective, model, expected):
    assert (
        scoring.methods(compatibility.make({"name": objective}, TOKENIZER, LENGTH, model))
        == expected
    )


def test_an_unsupported_method_is_refused():
    with pytest.raises(ValueError, match="'pll' is not one of causal"):
        scoring.Scorer(build("clm"), TOKENIZER, "pll")


class Pieces(Ids):
    """A tokenizer with these pieces."""

    def __init__(self, *pieces: str):
        super().__init__(len(pieces))
        self.pieces = pieces
        self.is_word_start = np.array([piece[0] == "\u2581" for piece in pieces])

    def name(self, i):
        return self.pieces[i]


def test_words_begin_after_spaces_and_around_punctuation():
    tokenizer = Pieces(
        *("\u2581The", "\u2581ex", "-", "hus", "band", "\u2581left", ".", "\u2581(", "a", ")")
    )
    starts = np.flatnonzero(scoring.word_starts(tokenizer, np.arange(tokenizer.size)))
    assert [tokenizer.name(i) for i in starts] == [
        *("\u2581The", "\u2581ex", "-", "hus", "\u2581left", ".", "\u2581(", "a", ")")
    ]


def test_few_shapes():
    """Sentences of 5 to 128 tokens need hardly more shapes than there are widths."""

    def query(length):
        ids = np.zeros(length, np.int32)
        return queries.Query(ids, np.arange(length), ids)

    shapes = {queries._shape(query(length)) for length in range(5, 129)}
    assert {shape.tokens for shape in shapes} == set(queries.WIDTHS)
    assert len(shapes) <= len(queries.WIDTHS) + 1


class Golden(Ids):
    """The special ids that golden/make.py puts into its sentences."""

    pad, bos, eos, cls, sep, mask = 0, 0, 0, 1, 2, 3


class GoldenProgram(Program):
    """As much of a program as scoring uses, of a model with its weights."""

    def __init__(self, model, objective, architecture):
        self.objective = compatibility.make({"name": objective}, TOKENIZER, LENGTH, architecture)
        self.mesh = meshes.make(meshes.MeshConfig(), jax.devices()[:1])
        self.batch_sharding = jax.NamedSharding(self.mesh, sharding.spec(("batch",)))
        self.golden = model

    def jit(self, function):
        return jax.jit(lambda _, batch: function(self.golden, batch))


@pytest.mark.parametrize(
    ("name", "method", "objective", "architecture"),
    [("gpt2", "causal", "clm", "decoder"), ("bert", "pll", "mlm", "encoder")],
)
def test_transformers_agrees(name, method, objective, architecture):
    """The scores of Hugging Face `transformers` with the same weights (golden/make.py)."""
    model, given, expect = load(name)
    program = GoldenProgram(model, objective, architecture)
    rows = zip(np.asarray(given["sentences"]), np.asarray(given["sentence_lengths"]), strict=True)
    texts = [row[:length] for row, length in rows]
    scores = scoring.Scorer(program, Golden(67), method).sentences(None, texts)
    np.testing.assert_allclose(scores, expect["sentence_scores"], rtol=0, atol=1e-4)
