import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.stats.ngrams import Bigram, Unigram

A, B, C, D = range(4)
TEXT = [A, B, A, B, A, C]  # D is never seen


@pytest.fixture
def bigram():
    return Bigram(np.array(TEXT[:-1]), np.array(TEXT[1:]), 4)


def table(bigram: Bigram, size: int) -> np.ndarray:
    """p(w | v) at [v, w]."""
    before, after = np.divmod(np.arange(size * size), size)
    return np.exp(-bigram.nll(before, after)).reshape(size, size)


def test_unigram():
    unigram = Unigram(np.array(TEXT), 4)
    assert unigram.probability == pytest.approx(
        [4 / 10, 3 / 10, 2 / 10, 1 / 10]
    )  # counts 3, 2, 1, 0 and one more each
    assert unigram.nll(np.array([A, D, A])) == pytest.approx(-np.log([0.4, 0.1, 0.4]))
    assert unigram.best() == A


def test_kneser_ney_by_hand(bigram):
    """Pairs: AB 2, BA 2, AC 1. One type of pair ends in each of A, B and C.

    The lower order is (1+1, 1+1, 1+1, 0+1) / 7.
    """
    lower = np.array([2, 2, 2, 1]) / 7
    after_a = (
        np.array([0, 2 - 0.75, 1 - 0.75, 0]) / 3 + 0.75 * 2 / 3 * lower
    )  # c(A) = 3, two types follow
    after_b = np.array([2 - 0.75, 0, 0, 0]) / 2 + 0.75 * 1 / 2 * lower
    expected = np.stack([after_a, after_b, lower, lower])  # nothing was seen after C and D
    assert table(bigram, 4) == pytest.approx(expected)
    assert expected[A, B] == pytest.approx(0.559524, abs=1e-6)  # 5/12 + 1/7


def test_lower_order_counts_types_not_tokens():
    """A word that is frequent, but only after one other word, is unlikely after a third."""
    text = np.array([A, B] * 50 + [C, D, A, D, B, D])
    result = table(Bigram(text[:-1], text[1:], 5), 5)
    assert result[4, D] > result[4, B]
    assert Unigram(text, 5).probability[B] > Unigram(text, 5).probability[D]


texts = st.lists(st.integers(0, 7), min_size=2, max_size=60).map(np.array)


@settings(max_examples=150, deadline=None)
@given(texts)
def test_probabilities_add_up(text):
    result = table(Bigram(text[:-1], text[1:], 9), 9)
    assert (result > 0).all()
    assert result.sum(1) == pytest.approx(np.ones(9))
    assert Unigram(text, 9).probability.sum() == pytest.approx(1.0)


@settings(max_examples=100, deadline=None)
@given(texts, st.integers(0, 8), st.integers(0, 8))
def test_between_is_the_product_of_both_sides_and_adds_up(text, left, right):
    bigram = Bigram(text[:-1], text[1:], 9)
    result = bigram.between(left, right)
    probability = table(bigram, 9)
    joint = probability[left] * probability[:, right]
    assert np.exp(result) == pytest.approx(joint / joint.sum())
    assert np.exp(result).sum() == pytest.approx(1.0)
    assert bigram.between(left, right) == pytest.approx(result), "a query has no side effects"
    assert table(bigram, 9) == pytest.approx(probability)
