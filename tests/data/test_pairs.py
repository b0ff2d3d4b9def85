"""Pairs of segments. Tokens of these stores count through the text, which locates segments."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from small_corpus import Ids, numbered

from lm.core.plugins import UserError
from lm.data import pairs, rows
from lm.data.pairs import IS_NEXT, NOT_NEXT, SPECIALS

LENGTH = 48
ROOM = LENGTH - SPECIALS


def sizes(documents: int = 40, sentences: int = 30, seed: int = 0) -> list[list[int]]:
    """Long documents, so that a segment seldom meets the end of one."""
    rng = np.random.default_rng(seed)
    return [rng.integers(3, 16, sentences).tolist() for _ in range(documents)]


@pytest.fixture(scope="module")
def store():
    return numbered(sizes())


@pytest.fixture(scope="module")
def chunks(store):
    return pairs.chunk(store, LENGTH)


@pytest.fixture(scope="module")
def drawn(store, chunks):
    """Many pairs, each from a generator of its own, as in a dataset."""
    result = []
    for seed in range(16_000):
        index = seed % len(chunks)
        result.append(
            (index, pairs.draw(store, chunks, index, LENGTH, np.random.default_rng(seed)))
        )
    return result


def document_of(store, token: int) -> int:
    return int(np.searchsorted(store.document_offsets, token, side="right")) - 1


def sentence_of(store, token: int) -> int:
    return int(np.searchsorted(store.sentence_offsets, token, side="right")) - 1


def consecutive(tokens: np.ndarray) -> bool:
    return len(tokens) > 0 and bool((np.diff(tokens.astype(np.int64)) == 1).all())


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=12), min_size=2, max_size=8),
    st.integers(16, 64),
)
def test_chunks_are_runs_of_sentences_and_what_is_left_out_is_counted(documents, length):
    text = numbered(documents)
    try:
        result = pairs.chunk(text, length)
    except UserError:
        return
    covered = 0
    for document, start, stop in zip(result.document, result.start, result.stop, strict=True):
        assert stop - start >= 2
        assert (
            text.document_sentences[document] <= start
            and stop <= text.document_sentences[document + 1]
        )
        tokens = np.diff(text.sentence_offsets[start : stop + 1])
        assert tokens[:-1].sum() < length - SPECIALS, "the chunk went on after it was full"
        assert tokens.sum() >= length - SPECIALS or stop == text.document_sentences[document + 1], (
            "the chunk ended before it was full"
        )
        covered += stop - start
    # Chunks cover all sentences but those that stood alone.
    assert covered + result.dropped == len(text.sentence_offsets) - 1
    assert (np.diff(result.start) > 0).all() and (result.start[1:] >= result.stop[:-1]).all()


def test_half_of_the_pairs_follow(store, chunks):
    rng = np.random.default_rng(5)
    short = numbered([[1, 1]] * 4)  # cheap draws: the label must not depend on what there is to cut
    few = pairs.chunk(short, 16)
    labels = [pairs.draw(short, few, index % len(few), 16, rng).label for index in range(100_000)]
    assert abs(np.mean(labels) - 0.5) < 0.005
    assert stats.binomtest(int(np.sum(labels)), len(labels)).pvalue > 1e-3


def test_labels_are_balanced_in_a_real_store_too(drawn):
    labels = [pair.label for _, pair in drawn]
    assert stats.binomtest(labels.count(IS_NEXT), len(labels)).pvalue > 1e-3
    assert (IS_NEXT, NOT_NEXT) == (0, 1)  # as in BERT


def test_next_means_next_and_random_means_another_document(store, chunks, drawn):
    full = 0
    for index, pair in drawn:
        chunk = range(
            store.sentence_offsets[chunks.start[index]], store.sentence_offsets[chunks.stop[index]]
        )
        assert consecutive(pair.a) and consecutive(pair.b)
        assert pair.a[0] in chunk and pair.a[-1] in chunk
        if pair.label == IS_NEXT:
            assert pair.b[0] in chunk and pair.b[-1] in chunk
            # Truncation takes tokens from the end of A and the front of B, but never moves the
            # border between sentences.
            assert sentence_of(store, pair.a[-1]) < sentence_of(store, pair.b[0])
            full += pair.b[0] == pair.a[-1] + 1
        else:
            assert (
                document_of(store, pair.b[0])
                == document_of(store, pair.b[-1])
                != document_of(store, pair.a[0])
            )
    assert full > 0.05 * len(drawn)


def test_other_documents_are_equally_likely(store, drawn):
    counts = np.bincount(
        [document_of(store, pair.b[0]) for _, pair in drawn if pair.label == NOT_NEXT],
        minlength=len(store),
    )
    assert stats.chisquare(counts).pvalue > 1e-3


def test_where_a_ends_does_not_tell_the_label(monkeypatch):
    """In the original data code every chunk of one sentence becomes a random pair.

    The length of A then gives away the label.
    """
    monkeypatch.setattr(pairs, "truncate", lambda a, b, room, rng: (a, b))
    # Many sentences fill half a row or more, and chunks at the end of a document are short, which
    # is the original's problem.
    text = numbered([np.random.default_rng(seed).integers(2, 50, 7).tolist() for seed in range(60)])
    chunks = pairs.chunk(text, LENGTH)
    assert chunks.dropped > 0.2 * len(chunks)
    lengths: dict[int, list[int]] = {IS_NEXT: [], NOT_NEXT: []}
    for index in range(16_000):
        pair = pairs.draw(text, chunks, index % len(chunks), LENGTH, np.random.default_rng(index))
        lengths[pair.label].append(len(pair.a))
    assert same_distribution(*(np.array(values) for values in lengths.values()))


def same_distribution(one: np.ndarray, two: np.ndarray) -> bool:
    """Chi-square test of homogeneity of two samples of integers, rare values together."""
    high = max(one.max(), two.max()) + 1
    table = np.stack([np.bincount(values, minlength=high) for values in (one, two)])
    often = table.sum(0) >= 20
    table = np.concatenate([table[:, often], table[:, ~often].sum(1, keepdims=True)], 1)
    return stats.chi2_contingency(table[:, table.sum(0) > 0]).pvalue > 1e-3


def test_a_ends_at_a_uniform_sentence():
    text = numbered([[9] * 5] * 2)  # one chunk of 5 sentences a document; 45 tokens fit exactly
    chunks = pairs.chunk(text, LENGTH)
    assert len(chunks) == 2
    ends = []
    for index in range(6000):
        rng = np.random.default_rng(index)
        pair = pairs.draw(text, chunks, 0, LENGTH, rng)
        if pair.label == IS_NEXT and len(pair.a) + len(pair.b) == ROOM:
            ends.append(len(pair.a))
    assert set(ends) == {9, 18, 27, 36}
    assert stats.chisquare(np.unique(ends, return_counts=True)[1]).pvalue > 1e-3


def test_one_in_ten_is_short():
    text = numbered([[1] * 90] * 2)  # sentences of one token: every target is met exactly
    chunks = pairs.chunk(text, LENGTH)
    totals = []
    for index in range(20_000):
        pair = pairs.draw(text, chunks, 0, LENGTH, np.random.default_rng(index))
        if pair.label == IS_NEXT:
            totals.append(len(pair.a) + len(pair.b))
    totals = np.array(totals)
    short = totals[totals < ROOM]
    # Targets are uniform on 2 … ROOM, so a short one is full length once in ROOM - 1 times.
    fraction = pairs.SHORT_FRACTION * (ROOM - 2) / (ROOM - 1)
    assert stats.binomtest(len(short), len(totals), fraction).pvalue > 1e-3
    assert set(short) == set(range(2, ROOM))
    assert stats.chisquare(np.bincount(short)[2:]).pvalue > 1e-3


def bert_truncate(a: list, b: list, room: int, rng: np.random.Generator) -> tuple[list, list]:
    """One token after the other from the longer segment, front or back by a coin.

    If they are equally long, from the second.
    """
    a, b = list(a), list(b)
    while len(a) + len(b) > room:
        longer = a if len(a) > len(b) else b
        longer.pop(0 if rng.random() < 0.5 else -1)
    return a, b


@settings(max_examples=500, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(2, 64), st.integers(0, 2**32 - 1))
def test_truncation_leaves_as_many_tokens_as_the_loop(size_a, size_b, room, seed):
    a, b = np.arange(size_a), 1000 + np.arange(size_b)
    cut_a, cut_b = pairs.truncate(a, b, room, np.random.default_rng(seed))
    loop_a, loop_b = bert_truncate(a, b, room, np.random.default_rng(seed))
    assert (len(cut_a), len(cut_b)) == (len(loop_a), len(loop_b))
    assert min(len(cut_a), len(cut_b)) >= 1
    assert consecutive(cut_a) and consecutive(cut_b)


def test_truncation_takes_from_both_ends_as_the_loop_does():
    a, b, room = np.arange(30), 100 + np.arange(18), 26
    rng = np.random.default_rng(0)
    ours = [tuple(int(part[0]) for part in pairs.truncate(a, b, room, rng)) for _ in range(4000)]
    theirs = [tuple(int(part[0]) for part in bert_truncate(a, b, room, rng)) for _ in range(4000)]
    for segment in (0, 1):
        fronts = [np.array([start[segment] for start in starts]) for starts in (ours, theirs)]
        low = min(map(np.min, fronts))
        assert same_distribution(*(front - low for front in fronts))


def test_rows():
    tokenizer = Ids(1000)
    cls, sep, pad = tokenizer.cls, tokenizer.sep, tokenizer.pad
    laid = rows.Row(10, pad, ("types",))
    pairs.lay_out(laid, pairs.Pair(np.array([20, 21]), np.array([30, 31, 32]), IS_NEXT), cls, sep)
    row = laid.arrays
    assert row["tokens"].tolist() == [cls, 20, 21, sep, 30, 31, 32, sep, pad, pad]
    assert row["types"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 0, 0]
    assert row["segments"].tolist() == [1] * 8 + [0, 0]
    assert row["positions"].tolist() == [*range(8), 0, 0]


def test_pairs_fit_their_rows(store, chunks, drawn):
    assert max(len(pair.a) + len(pair.b) for _, pair in drawn) == ROOM


@pytest.mark.parametrize(
    "documents", [[], [[5, 5, 5]], [[5], [5], [5]], [[5, 5], [5]], [[60, 60], [60, 60]]],
    ids=["none", "one", "one sentence each", "one with two sentences", "sentences that fill a row"],
)  # fmt: skip
def test_a_corpus_without_pairs_is_refused(documents):
    with pytest.raises(UserError, match="next-sentence pairs need two documents"):
        pairs.chunk(numbered(documents), LENGTH)
