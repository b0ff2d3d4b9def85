import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from small_corpus import Ids

from lm.data import masking

TOKENIZER = Ids(64)
BERT = {"rate": 0.15, "max_predictions": 0, "mask_share": 0.8, "random_share": 0.1}


def row(length: int, used: int, seed: int = 0, pieces: int = 1) -> dict[str, np.ndarray]:
    """A packed row: pieces of [CLS] … [SEP], then padding."""
    rng = np.random.default_rng(seed)
    tokens, segments = np.zeros(length, np.int32), np.zeros(length, np.int32)
    for number, part in enumerate(np.array_split(np.arange(used), pieces), 1):
        tokens[part] = rng.integers(TOKENIZER.mask + 1, TOKENIZER.size, len(part))
        tokens[part[0]], tokens[part[-1]] = TOKENIZER.cls, TOKENIZER.sep
        segments[part] = number
    return {"tokens": tokens, "segments": segments}


def corrupted(given: dict[str, np.ndarray], seed: int, **options) -> dict[str, np.ndarray]:
    return masking.corrupt(
        given, TOKENIZER, np.random.default_rng(seed), masking.Options(**BERT | options)
    )


@settings(max_examples=300, deadline=None)
@given(
    st.integers(16, 80), st.floats(0.0, 1.0), st.integers(1, 4),
    st.sampled_from([0.05, 0.15, 0.4, 0.9]), st.integers(0, 12),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_a_corrupted_row(length, fullness, pieces, rate, most, seed):
    used = max(3 * pieces, round(fullness * length))
    before = row(length, used, seed, pieces)
    kept = {name: values.copy() for name, values in before.items()}
    after = corrupted(before, seed, rate=rate, max_predictions=most)
    assert all((before[name] == kept[name]).all() for name in before), "the given row was changed"

    size = min(most or length, max(1, round(rate * length)))
    assert (
        after["target_positions"].shape
        == after["targets"].shape
        == after["weights"].shape
        == (size,)
    )
    assert masking.Options(rate=rate, max_predictions=most).budget(length) == size
    assert (
        after["target_positions"].dtype == after["targets"].dtype == np.int32
        and after["weights"].dtype == np.float32
    )

    ordinary = np.flatnonzero(before["tokens"] > TOKENIZER.mask)
    count = min(most or length, max(1, round(rate * used)), len(ordinary))
    assert after["weights"].tolist() == [1.0] * count + [0.0] * (size - count)
    chosen = after["target_positions"][:count]
    assert (np.diff(chosen) > 0).all() and set(chosen) <= set(ordinary), (
        "special tokens and padding are never chosen"
    )
    assert (after["targets"][:count] == before["tokens"][chosen]).all()
    assert not after["target_positions"][count:].any() and not after["targets"][count:].any()
    untouched = np.setdiff1d(np.arange(length), chosen)
    assert (after["tokens"][untouched] == before["tokens"][untouched]).all()
    assert ((0 <= after["tokens"]) & (after["tokens"] < TOKENIZER.size)).all()


@pytest.fixture(scope="module")
def many() -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    before = row(128, 120, pieces=2)
    return before, [corrupted(before, seed) for seed in range(5000)]


def test_eighty_ten_ten(many):
    before, rows = many
    masked = random = same = total = 0
    for after in rows:
        real = after["weights"] > 0
        targets = after["targets"][real]
        became = after["tokens"][after["target_positions"][real]]
        total += len(targets)
        masked += int((became == TOKENIZER.mask).sum())
        same += int((became == targets).sum())
        random += int(((became != targets) & (became != TOKENIZER.mask)).sum())
    assert total == 5000 * 18  # round(0.15 · 120), [CLS] and [SEP] among the 120
    # A random id is the original, or [MASK], once in V times each.
    p_same = 1 / TOKENIZER.size
    for count, fraction in (
        (masked, 0.8 + 0.1 * p_same),
        (same, 0.1 + 0.1 * p_same),
        (random, 0.1 - 0.2 * p_same),
    ):
        assert stats.binomtest(count, total, fraction).pvalue > 1e-3


def test_random_ids_are_uniform_over_the_vocabulary(many):
    before = row(128, 128)
    rows = [corrupted(before, seed, mask_share=0.0, random_share=1.0) for seed in range(600)]
    ids = np.concatenate([after["tokens"][after["target_positions"]] for after in rows])
    assert stats.chisquare(np.bincount(ids, minlength=TOKENIZER.size)).pvalue > 1e-3


def test_every_ordinary_position_about_equally_often(many):
    before, rows = many
    counts = sum(
        np.bincount(after["target_positions"][after["weights"] > 0], minlength=128)
        for after in rows
    )
    ordinary = before["tokens"] > TOKENIZER.mask
    assert not counts[~ordinary].any()
    # Draws are without replacement, so that counts vary less than a chi-square test expects: with
    # the variance of a hypergeometric distribution.
    expected = 5000 * 18 / ordinary.sum()
    spread = np.sqrt(5000 * (18 / ordinary.sum()) * (1 - 18 / ordinary.sum()))
    assert np.abs(counts[ordinary] - expected).max() < 4.5 * spread
    assert counts[ordinary].std() == pytest.approx(spread, rel=0.25)


def test_pure_masks_and_no_masks():
    before = row(64, 64)
    after = corrupted(before, 1, mask_share=1.0, random_share=0.0)
    assert (after["tokens"][after["target_positions"]] == TOKENIZER.mask).all()
    after = corrupted(before, 1, mask_share=0.0, random_share=0.0)
    assert (after["tokens"] == before["tokens"]).all()


def test_a_row_without_ordinary_tokens():
    before = row(16, 2)
    after = corrupted(before, 0)
    assert not after["weights"].any() and (after["tokens"] == before["tokens"]).all()


@pytest.mark.parametrize(
    "options",
    [
        {"rate": 0.0}, {"rate": 1.0}, {"rate": -0.1}, {"mask_share": -0.1}, {"random_share": -0.1},
        {"mask_share": 0.8, "random_share": 0.3}, {"max_predictions": -1},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(options):
    with pytest.raises(ValueError, match=str(next(iter(options.values()))).replace(".", r"\.")):
        masking.Options(**BERT | options)
