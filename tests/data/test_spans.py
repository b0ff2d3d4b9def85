import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from small_corpus import Ids

from lm.core import compatibility
from lm.core.plugins import UserError
from lm.data import spans

EOS, FIRST = 2, 1000
SENTINELS = np.arange(FIRST + 5000, FIRST, -1, dtype=np.int32)

texts = st.integers(2, 600)
densities = st.sampled_from([0.05, 0.15, 0.25, 0.5, 0.8, 0.95])
means = st.sampled_from([1.0, 1.5, 3.0, 8.0, 64.0])


def t5_lengths(n: int, density: float, mean: float) -> tuple[int, int]:
    """Input and target length by T5's `random_spans_helper`, if the text has room for its spans."""
    noise = int(np.round(n * density))
    noise_spans = int(np.round(noise / mean))
    return n - noise + noise_spans + 1, noise + noise_spans + 1


def test_512_and_114():
    assert spans.raw_length(512, 0.15, 3.0) == 568
    inputs, targets = spans.sizes(568, 0.15, 3.0)
    assert (inputs[568], targets[568]) == (512, 114) == t5_lengths(568, 0.15, 3.0)
    starts, stops = spans.noise_spans(568, 0.15, 3.0, np.random.default_rng(0))
    source, target = spans.replace(np.arange(568), starts, stops, SENTINELS, EOS)
    assert (len(source), len(target)) == (512, 114)


@pytest.mark.parametrize(
    ("density", "mean"),
    [(0.15, 3.0), (0.15, 8.0), (0.5, 3.0), (0.5, 8.0), (0.15, 64.0), (0.5, 64.0)],
)
def test_lengths_are_t5s(density, mean):
    inputs, targets = spans.sizes(2000, density, mean)
    for n in range(int(np.ceil((mean + 1) / density)), 2001):
        assert (inputs[n], targets[n]) == t5_lengths(n, density, mean), n
    assert (np.diff(inputs) >= 0).all() and (np.diff(targets) >= 0).all()
    for size in (64, 128, 512):
        n = spans.raw_length(size, density, mean)
        assert inputs[n] <= size < inputs[n + 1]


@settings(max_examples=400, deadline=None)
@given(texts, densities, means, st.integers(0, 2**32 - 1))
def test_spans_are_as_many_and_as_long_as_counted_and_never_adjacent(n, density, mean, seed):
    starts, stops = spans.noise_spans(n, density, mean, np.random.default_rng(seed))
    noise = min(max(round(n * density), 1), n - 1)
    expected = min(max(round(noise / mean), 1), n - noise)
    assert spans.counts(n, density, mean) == (noise, expected)
    assert len(starts) == len(stops) == expected and (stops - starts).sum() == noise
    assert (stops > starts).all() and starts[0] >= 0 and stops[-1] <= n
    assert (starts[1:] > stops[:-1]).all(), "two spans touch"


@settings(max_examples=400, deadline=None)
@given(texts, densities, means, st.integers(0, 2**32 - 1))
def test_input_and_target_give_the_text_back(n, density, mean, seed):
    text = np.arange(10_000, 10_000 + n)
    starts, stops = spans.noise_spans(n, density, mean, np.random.default_rng(seed))
    source, target = (part.tolist() for part in spans.replace(text, starts, stops, SENTINELS, EOS))
    inputs, targets = spans.sizes(n, density, mean)
    assert (len(source), len(target)) == (inputs[n], targets[n])
    assert source[-1] == target[-1] == EOS and EOS not in source[:-1] + target[:-1]
    used = SENTINELS[: len(starts)].tolist()
    assert (
        [token for token in source if token in used]
        == [token for token in target if token in used]
        == used
    )
    assert used == sorted(used, reverse=True) and target[0] == used[0] and target[-2] not in used, (
        "no closing sentinel"
    )
    hidden, current = {}, None
    for token in target[:-1]:
        if token in used:
            current = hidden.setdefault(token, [])
        else:
            current.append(token)
    assert all(hidden.values())
    assert [piece for token in source[:-1] for piece in hidden.get(token, [token])] == text.tolist()


@pytest.mark.parametrize("n", [142, 568])
def test_the_ends_are_noise_as_often_as_the_middle(n):
    draws, hits = 6000, np.zeros(n)
    rng = np.random.default_rng(n)
    for _ in range(draws):
        for start, stop in zip(*spans.noise_spans(n, 0.15, 3.0, rng), strict=True):
            hits[start:stop] += 1
    fraction = round(0.15 * n) / n
    assert hits.sum() == draws * round(0.15 * n)
    for place in (0, n - 1):
        assert stats.binomtest(int(hits[place]), draws, fraction).pvalue > 1e-3, place
    z = (hits - draws * fraction) / np.sqrt(draws * fraction * (1 - fraction))
    assert np.abs(z).max() < stats.norm.isf(1e-3 / 2 / n)
    ends, middle = np.r_[hits[:10], hits[-10:]].mean(), hits[n // 2 - 10 : n // 2 + 10].mean()
    assert ends == pytest.approx(middle, rel=0.05)


def test_span_lengths_are_random_splits():
    """T5 splits the noise uniformly: the first of 2 spans is uniform on 1 … noise - 1."""
    counts = np.zeros(9)
    rng = np.random.default_rng(0)
    for _ in range(4000):
        counts[spans._parts(10, 2, rng)[0] - 1] += 1
    assert stats.chisquare(counts).pvalue > 1e-3
    result = {}
    for _ in range(4000):
        parts = tuple(spans._parts(6, 3, rng).tolist())
        result[parts] = result.get(parts, 0) + 1
    assert len(result) == 10 and all(sum(parts) == 6 and min(parts) > 0 for parts in result)
    assert stats.chisquare(list(result.values())).pvalue > 1e-3


@pytest.mark.parametrize("model", ["encoder_decoder", "decoder"])
@pytest.mark.parametrize("name", ["span_corruption", "ul2"])
def test_too_few_sentinels_are_refused_before_training(name, model):
    with pytest.raises(UserError, match=r"config\.tokenizer\.sentinels=\d+") as refused:
        compatibility.make({"name": name}, Ids(200, 1), 128, model)
    needed = int(re.search(r"sentinels=(\d+)", str(refused.value))[1])
    with pytest.raises(UserError, match=f"sentinels={needed} "):
        compatibility.make({"name": name}, Ids(200, needed - 1), 128, model)
    compatibility.make({"name": name}, Ids(200, needed), 128, model)


def test_how_many_sentinels_t5_needs():
    with pytest.raises(UserError, match="sentinels=28 "):
        compatibility.make({"name": "span_corruption"}, Ids(200, 27), 512, "encoder_decoder")
    compatibility.make({"name": "span_corruption"}, Ids(200, 28), 512, "encoder_decoder")
