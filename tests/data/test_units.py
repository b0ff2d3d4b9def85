import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from small_corpus import Ids, random_store

from lm.core import compatibility
from lm.data import loader, masking

TOKENIZER = Ids(5000)
ORDINARY = TOKENIZER.mask + 1


def row(length: int, pieces: int = 1, seed: int = 0, padding: int = 0) -> dict[str, np.ndarray]:
    """[CLS] … [SEP] pieces, then padding."""
    rng = np.random.default_rng(seed)
    tokens, segments = np.zeros(length, np.int32), np.zeros(length, np.int32)
    for number, part in enumerate(np.array_split(np.arange(length - padding), pieces), 1):
        tokens[part] = rng.integers(ORDINARY, TOKENIZER.size, len(part))
        tokens[part[0]], tokens[part[-1]] = TOKENIZER.cls, TOKENIZER.sep
        segments[part] = number
    return {"tokens": tokens, "segments": segments}


def words(tokens: np.ndarray) -> list[list[int]]:
    """Positions of each word.

    A special token ends a word, and text after it begins another, even in the middle of a word.
    """
    result: list[list[int]] = []
    inside = False
    for at, token in enumerate(tokens.tolist()):
        if token < ORDINARY:
            inside = False
        elif inside and token % 3 == 0:
            result[-1].append(at)
        else:
            result.append([at])
            inside = True
    return result


def chosen(after: dict[str, np.ndarray]) -> list[int]:
    return after["target_positions"][after["weights"] > 0].tolist()


def corrupted(
    given: dict[str, np.ndarray], seed: int, progress: float = 1.0, **options
) -> dict[str, np.ndarray]:
    return masking.corrupt(
        given, TOKENIZER, np.random.default_rng(seed), masking.Options(**options), progress
    )


rows = st.builds(
    row, st.integers(24, 90), st.integers(1, 4), st.integers(0, 1000), st.integers(0, 8)
)
rates, seeds = st.sampled_from([0.05, 0.15, 0.4, 0.9]), st.integers(0, 2**32 - 1)


@settings(max_examples=200, deadline=None)
@given(rows, rates, st.integers(0, 9), seeds)
def test_a_word_is_hidden_whole_or_not_at_all(before, rate, most, seed):
    after = corrupted(before, seed, rate=rate, max_predictions=most, unit="word")
    used = int((before["segments"] > 0).sum())
    budget = min(most or used, max(1, round(rate * used)))
    hidden = set(chosen(after))
    units = words(before["tokens"])
    assert all(hidden.issuperset(word) or hidden.isdisjoint(word) for word in units)
    assert len(hidden) <= budget
    # A word was passed over only because it is longer than what is left.
    assert all(len(word) > budget - len(hidden) for word in units if hidden.isdisjoint(word))


def test_words_of_one_length_are_hidden_equally_often():
    before, draws = row(80), 3000
    hits = np.zeros(80)
    for seed in range(draws):
        hits[chosen(corrupted(before, seed, unit="word"))] += 1
    short = [word[0] for word in words(before["tokens"]) if len(word) == 1]
    fraction = hits[short].mean() / draws
    assert np.abs(hits[short] - hits[short].mean()).max() < 4.5 * np.sqrt(
        draws * fraction * (1 - fraction)
    )


@settings(max_examples=200, deadline=None)
@given(rows, st.sampled_from(masking.UNITS), rates, st.integers(0, 9), seeds)
def test_what_every_unit_keeps_to(before, unit, rate, most, seed):
    kept = {name: values.copy() for name, values in before.items()}
    after = corrupted(before, seed, rate=rate, max_predictions=most, unit=unit)
    assert all((before[name] == kept[name]).all() for name in before), "the given row was changed"
    ordinary, used = (
        np.flatnonzero(before["tokens"] >= ORDINARY),
        int((before["segments"] > 0).sum()),
    )
    positions, length = chosen(after), len(before["tokens"])
    assert after["targets"].shape == (min(most or length, max(1, round(rate * length))),)
    assert positions == sorted(set(positions)) and set(positions) <= set(ordinary.tolist()), (
        "special tokens are never chosen"
    )
    assert after["targets"][: len(positions)].tolist() == before["tokens"][positions].tolist()
    untouched = np.setdiff1d(np.arange(length), positions)
    assert (after["tokens"][untouched] == before["tokens"][untouched]).all()
    if unit != "word":
        assert len(positions) == min(most or used, max(1, round(rate * used)), len(ordinary))
    if unit == "word_span":
        hidden = set(positions)
        cut = [
            word
            for word in words(before["tokens"])
            if hidden & set(word) and not hidden.issuperset(word)
        ]
        assert len(cut) <= 1, "only the last span is cut, at the budget"


def test_lengths_of_runs_by_the_formula():
    p = np.array([0.2 * 0.8 ** (length - 1) for length in range(1, 11)])
    p /= p.sum()
    np.testing.assert_allclose(masking._lengths(0.2, 10), np.cumsum(p)[:-1], rtol=1e-12)
    assert (p * np.arange(1, 11)).sum() == pytest.approx(3.8, abs=0.01)  # SpanBERT, section 3.1
    np.testing.assert_allclose(masking._lengths(0.0, 3), [1 / 3, 2 / 3])


@pytest.mark.parametrize(
    ("unit", "p", "most"), [("word_span", 0.2, 10), ("token_span", 0.2, 10), ("token_span", 0.0, 3)]
)
def test_drawn_lengths(unit, p, most):
    tokens = np.full(
        200, 3001 if unit == "word_span" else 3000, np.int32
    )  # each a word, or all in one
    options = masking.Options(unit=unit, span_p=p, span_most=most)
    counts = np.zeros(most, int)
    for seed in range(3000):
        at, group = masking._units(
            tokens, np.arange(200), 30, TOKENIZER, np.random.default_rng(seed), options
        )
        first = at[group == 0]
        assert (np.diff(first) == 1).all()
        if first[0] <= 200 - most:  # else the text's end may cut it
            counts[len(first) - 1] += 1
    expected = p * (1 - p) ** np.arange(most) if p else np.ones(most)
    assert stats.chisquare(counts, expected / expected.sum() * counts.sum()).pvalue > 1e-3
    if p:
        assert (counts * np.arange(1, 11)).sum() / counts.sum() == pytest.approx(3.8, abs=0.15)


def test_runs_count_words_not_tokens():
    tokens = np.tile(np.array([3001, 3000, 3003], np.int32), 60)  # words of three pieces
    options = masking.Options(unit="word_span")
    for seed in range(200):
        at, group = masking._units(
            tokens, np.arange(180), 60, TOKENIZER, np.random.default_rng(seed), options
        )
        first = at[group == 0]
        assert first[0] % 3 == 0 and len(first) % 3 == 0 and len(first) <= 30


@pytest.mark.parametrize("unit", ["token", "word", "word_span", "token_span"])
def test_eighty_ten_ten_by_token_and_by_run(unit):
    before, options = row(200), masking.Options(unit=unit)
    ordinary = np.flatnonzero(before["tokens"] >= ORDINARY)
    fates = np.zeros(3, int)  # [MASK], random, kept
    for seed in range(600):
        after = corrupted(before, seed, unit=unit)
        at = np.array(chosen(after))
        fate = np.where(
            after["tokens"][at] == TOKENIZER.mask,
            0,
            np.where(after["tokens"][at] == before["tokens"][at], 2, 1),
        )
        if unit.endswith("span"):
            same, group = masking._units(
                before["tokens"], ordinary, 30, TOKENIZER, np.random.default_rng(seed), options
            )
            assert (same == at).all()
            runs = [fate[group == number] for number in range(group.max() + 1)]
            # A random id is the original or [MASK] once in 5,000 times each.
            fate = np.array([np.bincount(run, minlength=3).argmax() for run in runs])
            assert sum((run != kind).sum() for run, kind in zip(runs, fate, strict=True)) <= 1, (
                "one draw a run"
            )
        fates += np.bincount(fate, minlength=3)
    for count, fraction in zip(fates, (0.8, 0.1, 0.1), strict=True):
        assert stats.binomtest(int(count), int(fates.sum()), fraction).pvalue > 1e-3


@pytest.mark.parametrize("unit", masking.UNITS)
def test_pure_masks(unit):
    after = corrupted(row(120, 2), 0, unit=unit, mask_share=1.0, random_share=0.0)
    assert len(chosen(after)) and (after["tokens"][chosen(after)] == TOKENIZER.mask).all()


def test_a_falling_rate_in_arrays_of_one_size():
    before = row(200)
    for progress in np.linspace(0, 1, 11):
        after = corrupted(before, 1, progress, rate=0.3, final_rate=0.15)
        assert (
            len(chosen(after)) == round(200 * (0.3 - 0.15 * progress))
            and len(after["targets"]) == 60
        )
        after = corrupted(before, 1, progress, rate=0.15, final_rate=0.4)
        assert (
            len(chosen(after)) == round(200 * (0.15 + 0.25 * progress))
            and len(after["targets"]) == 80
        )
        assert len(chosen(corrupted(before, 1, progress, rate=0.3))) == 60


def test_the_rate_of_a_batch_follows_the_run():
    objective = compatibility.make(
        {"name": "mlm", "rate": 0.4, "final_rate": 0.1}, Ids(64), 64, "encoder"
    )
    text = random_store(64, 40)
    result = loader.examples(objective, text, objective.plan(text), 0, batch_size=2, steps=10)
    for index in range(20):
        example = result[index]
        used = int((example["segments"] > 0).sum())
        assert example["weights"].sum() == round(used * (0.4 - 0.3 * (index // 2) / 10))
