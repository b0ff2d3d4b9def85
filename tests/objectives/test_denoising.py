"""Rows of objectives that turn an input into a target: T5's spans, UL2, prefixes, paragraphs."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from small_corpus import Ids, Tokens, numbered

from lm.core import compatibility
from lm.core.plugins import UserError
from lm.data import loader

SPECIAL, SENTINELS = Ids.mask + 1, 80
MODELS = {"cross": "encoder_decoder", "prefix": "decoder"}
masks, lengths = st.sampled_from(sorted(MODELS)), st.integers(24, 96)
corpora = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=4), min_size=1, max_size=8)
packings = st.sampled_from(["greedy", "best_fit"])


def make(name: str, text: Tokens, length: int, mask: str, **options: Any) -> Any:
    tokenizer = Ids(SPECIAL + len(text.tokens) + 3 + SENTINELS, SENTINELS)
    return compatibility.make({"name": name, **options}, tokenizer, length, MODELS[mask])


def epoch(objective, text: Tokens, seed: int = 0) -> list[dict[str, np.ndarray]]:
    examples = loader.examples(objective, text, objective.plan(text), seed)
    return [examples[index] for index in range(len(examples))]


def pieces(row: dict[str, np.ndarray]) -> list[tuple[list[int], list[int]]]:
    """(input, target) of each segment; checks all other fields of the row."""
    segments, weights, result = row["segments"], row["weights"], []
    assert (
        set(weights.tolist()) <= {0.0, 1.0}
        and not weights[segments == 0].any()
        and not row["targets"][weights == 0].any()
    )
    assert not row["tokens"][segments == 0].any()
    if "prefix" in row:
        assert not row["prefix"][segments == 0].any() and not weights[row["prefix"] == 1].any()
    else:
        assert set(row["input_segments"].tolist()) - {0} == set(segments.tolist()) - {0}
        assert not row["input_tokens"][row["input_segments"] == 0].any()
    for segment in range(1, segments.max() + 1):
        here = np.flatnonzero(segments == segment)
        assert (np.diff(here) == 1).all() and row["positions"][here].tolist() == list(
            range(len(here))
        )
        if "prefix" in row:
            count = int(row["prefix"][here].sum())
            assert row["prefix"][here].tolist() == [1] * count + [0] * (len(here) - count)
            inputs, here = row["tokens"][here[:count]], here[count:]
        else:
            read = np.flatnonzero(row["input_segments"] == segment)
            assert (np.diff(read) == 1).all()
            assert row["input_positions"][read].tolist() == list(range(len(read)))
            inputs = row["input_tokens"][read]
        targets = row["targets"][here].tolist()
        assert weights[here].all() and row["tokens"][here].tolist() == [Ids.bos, *targets[:-1]], (
            "the target, shifted by one"
        )
        result.append((inputs.tolist(), targets))
    return result


def filled(
    inputs: list[int], targets: list[int], sentinels: tuple[int, ...]
) -> tuple[list[int], int]:
    """The text with its spans put back, and the number of spans; both sides without [EOS]."""
    spans: dict[int, list[int]] = {}
    for token in targets:
        if token in sentinels:
            last = spans.setdefault(token, [])
        else:
            last.append(token)
    in_input = [token for token in inputs if token in sentinels]
    assert list(spans) == list(sentinels[: len(spans)]) == in_input and all(spans.values())
    return [part for token in inputs for part in spans.get(token, [token])], len(spans)


def kept(text: Tokens, plan) -> list[int]:
    """Tokens of the plan's pieces; checks that the note counts those left out."""
    tokens = [
        SPECIAL + int(text.document_offsets[document]) + token
        for row in range(len(plan))
        for document, start, stop in plan.pieces(row)
        for token in range(start, stop)
    ]
    missing = len(text.tokens) - len(tokens)
    assert plan.note == (f"left out: {missing} texts of one token" if missing else "")
    return sorted(tokens)


@settings(max_examples=30, deadline=None)
@given(
    corpora,
    lengths,
    masks,
    st.sampled_from(["span_corruption", "ul2"]),
    packings,
    st.integers(0, 50),
)
def test_denoised_rows_give_the_text_back(documents, length, mask, name, packing, seed):
    text = numbered(documents, start=SPECIAL)
    objective = make(name, text, length, mask, packing=packing)
    modes, sentinels = set(objective.tokenizer.modes.values()), objective.tokenizer.sentinels
    seen = []
    for row in epoch(objective, text, seed):
        for inputs, targets in pieces(row):
            assert inputs[-1] == targets[-1] == Ids.eos
            if name == "ul2":
                assert inputs.pop(0) in modes
            back, count = filled(inputs[:-1], targets[:-1], sentinels)
            assert (np.diff(back) == 1).all()
            noise = len(targets) - 1 - count
            if name == "span_corruption":
                assert noise == min(max(round(0.15 * len(back)), 1), len(back) - 1)
                assert count == min(max(round(noise / 3), 1), len(back) - noise)
            seen += back
    assert sorted(seen) == kept(text, objective.plan(text))


def test_t5_row_sizes():
    text = numbered([[568]] * 3, start=SPECIAL)
    objective = make("span_corruption", text, 512, "cross")
    assert objective.positions == 512 + 114
    for row in epoch(objective, text):
        assert (
            row["input_segments"].all() and row["segments"].all() and row["tokens"].shape == (114,)
        )
    assert make("span_corruption", text, 512, "prefix").positions == 512


def test_a_mode_token_begins_every_input():
    text = numbered([[60]] * 4, start=SPECIAL)
    objective = make("span_corruption", text, 64, "cross", mode_token="[S2S]")
    firsts = {inputs[0] for row in epoch(objective, text) for inputs, _ in pieces(row)}
    assert firsts == {objective.tokenizer.modes["[S2S]"]}


def test_ul2_draws_its_denoisers_in_equal_parts():
    """Table 1 of Tay et al. 2022.

    In a text of 100 tokens the mode token and the numbers of replaced tokens and spans identify a
    denoiser.
    """
    text = numbered([[100]], start=SPECIAL)
    objective, rng, draws = make("ul2", text, 256, "cross"), np.random.default_rng(0), 6000
    names, counts = {token: mode for mode, token in objective.tokenizer.modes.items()}, {}
    for _ in range(draws):
        inputs, targets = (part.tolist() for part in objective.corrupt(text.document(0), rng))
        back, count = filled(inputs[1:-1], targets[:-1], objective.tokenizer.sentinels)
        assert back == text.document(0).tolist()
        kind = (names[inputs[0]], len(targets) - 1 - count, count)
        if kind[0] == "[S2S]":
            assert inputs[-2] == objective.tokenizer.sentinels[0] and inputs[1:-2] == back[:75], (
                "one suffix of a quarter"
            )
        counts[kind] = counts.get(kind, 0) + 1
    fractions = {
        ("[NLU]", 15, 5): 0.8 / 6, ("[NLU]", 15, 2): 0.8 / 6, ("[NLG]", 50, 17): 0.8 / 6,
        ("[NLG]", 50, 6): 0.8 / 6,
        ("[NLG]", 15, 1): 0.8 / 6, ("[NLG]", 50, 1): 0.8 / 6, ("[S2S]", 25, 1): 0.2,
    }  # fmt: skip
    assert counts.keys() == fractions.keys()
    for kind, fraction in fractions.items():
        assert stats.binomtest(counts[kind], draws, fraction).pvalue > 1e-3, kind


def given_and_predicted(row: dict[str, np.ndarray], tokenizer) -> list[tuple[list[int], list[int]]]:
    """(given, predicted) tokens of each segment of a prefix_lm row, under either mask."""
    if "prefix" not in row:
        result = pieces(row)
        assert all(inputs[-1] == Ids.eos for inputs, _ in result)
        return [(inputs[:-1], targets) for inputs, targets in result]
    result = []
    assert (
        not row["weights"][row["segments"] == 0].any()
        and not row["targets"][row["weights"] == 0].any()
    )
    for segment in range(1, row["segments"].max() + 1):
        here = np.flatnonzero(row["segments"] == segment)
        count = int(row["prefix"][here].sum())
        assert row["prefix"][here].tolist() == [1] * count + [0] * (len(here) - count)
        predicted = here[row["weights"][here] > 0]
        assert predicted[0] == here[count - 1], "the first loss is where the prefix ends"
        assert (np.diff(predicted) == 1).all() and row["tokens"][predicted[1:]].tolist() == row[
            "targets"
        ][predicted[:-1]].tolist()
        result.append((row["tokens"][here[:count]].tolist(), row["targets"][predicted].tolist()))
    return result


@settings(max_examples=30, deadline=None)
@given(corpora, lengths, packings, st.integers(0, 50))
def test_prefix_lm_rows(documents, length, packing, seed):
    text = numbered(documents, start=SPECIAL)
    both = []
    for mask in MODELS:
        objective = make("prefix_lm", text, length, mask, packing=packing)
        rows = [
            given_and_predicted(row, objective.tokenizer) for row in epoch(objective, text, seed)
        ]
        seen = []
        for before, after in (piece for row in rows for piece in row):
            start = before[1] - SPECIAL
            assert before[0] == (Ids.bos if start in text.document_offsets else start - 1 + SPECIAL)
            tokens = before[1:] + [token for token in after if token != Ids.eos]
            assert before[1:] and after[0] != Ids.eos and (np.diff(tokens) == 1).all()
            assert (after[-1] == Ids.eos) == (tokens[-1] + 1 - SPECIAL in text.document_offsets)
            seen += tokens
        assert sorted(seen) == kept(text, objective.plan(text))
        both.append(rows)
    assert both[0] == both[1], "the same splits of the same texts on either model"


@pytest.mark.parametrize("mask", MODELS)
def test_splits_are_uniform(mask):
    text = numbered([[21]] * 2000, start=SPECIAL)
    objective = make("prefix_lm", text, 46, mask)
    splits = [
        len(before) - 1
        for row in epoch(objective, text)
        for before, _ in given_and_predicted(row, objective.tokenizer)
    ]
    assert len(splits) == 2000 and min(splits) == 1 and max(splits) == 20
    assert stats.chisquare(np.bincount(splits)[1:]).pvalue > 1e-3


def test_a_fixed_split():
    text = numbered([[20], [11], [2]], start=SPECIAL)
    objective = make("prefix_lm", text, 64, "prefix", split=0.25)
    (row,) = epoch(objective, text)
    assert [len(before) - 1 for before, _ in given_and_predicted(row, objective.tokenizer)] == [
        5,
        3,
        1,
    ]


@settings(max_examples=30, deadline=None)
@given(corpora, lengths, masks, packings, st.booleans())
def test_seq2seq_rows(documents, length, mask, packing, reverse):
    documents = [*documents, [2, 3], [5]]
    text = numbered(documents, start=SPECIAL)
    objective = make("seq2seq", text, length, mask, packing=packing, reverse=reverse)
    plan, seen, cut = objective.plan(text), set(), 0
    for row in epoch(objective, text):
        for inputs, targets in pieces(row):
            assert inputs.pop() == targets.pop() == Ids.eos and inputs and targets
            document = (
                int(np.searchsorted(text.document_offsets, inputs[0] - SPECIAL, side="right")) - 1
            )
            begin, first = SPECIAL + int(text.document_offsets[document]), documents[document][0]
            whole = list(range(begin, begin + sum(documents[document])))
            source, target = (
                (whole[first:], whole[:first]) if reverse else (whole[:first], whole[first:])
            )
            assert inputs == source[: len(inputs)] and targets == target[: len(targets)]
            if len(inputs) + len(targets) < len(whole):
                cut += 1
                if mask == "cross":
                    assert (len(inputs), len(targets)) == (
                        min(len(source), length - 1),
                        min(len(target), length - 1),
                    )
                else:
                    assert len(inputs) + len(targets) == length - 2
            assert document not in seen
            seen.add(document)
    assert seen == {index for index, sizes in enumerate(documents) if len(sizes) > 1}
    left_out = len(documents) - len(seen)
    assert f"left out: {left_out} documents of one paragraph" in plan.note and (
        f"cut to fit: {cut} documents" in plan.note
    ) == bool(cut)


def test_seq2seq_splits_at_paragraphs_not_sentences():
    text = numbered([[3, 4, 5, 6], [2, 2], [1, 9]], start=SPECIAL)
    text.paragraph_starts = np.array([1, 0, 1, 0, 1, 0, 1, 1], bool)
    objective = make("seq2seq", text, 32, "cross", packing="greedy")
    result = sorted(piece for row in epoch(objective, text) for piece in pieces(row))
    a, c = SPECIAL, SPECIAL + 22
    assert result == [
        ([*range(a, a + 7), Ids.eos], [*range(a + 7, a + 18), Ids.eos]),
        ([c, Ids.eos], [*range(c + 1, c + 10), Ids.eos]),
    ]
    assert objective.plan(text).note.startswith("left out: 1 documents of one paragraph; ")


@pytest.mark.parametrize("mask", MODELS)
def test_seq2seq_refuses_a_corpus_without_two_paragraphs(mask):
    text = numbered([[5], [9]], start=SPECIAL)
    with pytest.raises(UserError, match="two paragraphs"):
        make("seq2seq", text, 32, mask).plan(text)
