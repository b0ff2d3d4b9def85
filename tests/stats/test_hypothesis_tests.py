"""p-values, Holm's correction and verdicts, against scipy and computations by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lm.stats import hypothesis_tests, intervals


@pytest.mark.parametrize(
    ("values", "threshold", "above", "below"),
    [
        ([0.70, 0.71, 0.72], 0.6, "supported", "refuted"),
        ([0.50, 0.51, 0.52], 0.6, "refuted", "supported"),
        ([0.50, 0.60, 0.75], 0.6, "inconclusive", "inconclusive"),
        ([0.60, 0.60, 0.60], 0.6, "inconclusive", "inconclusive"),
    ],
)
def test_verdicts(values, threshold, above, below):
    estimate = intervals.over_seeds(values)
    assert hypothesis_tests.above(estimate, threshold) == above
    assert hypothesis_tests.below(estimate, threshold) == below


def test_intervals_apart():
    high, low = intervals.over_seeds([0.58, 0.59, 0.60]), intervals.over_seeds([0.39, 0.40, 0.41])
    assert hypothesis_tests.apart_above(high, low) == "supported"
    assert hypothesis_tests.apart_above(low, high) == "refuted"
    assert hypothesis_tests.apart_above(high, low, margin=0.15) == "inconclusive"
    assert hypothesis_tests.apart_above(high, intervals.fixed(0.4)) == "supported"
    assert hypothesis_tests.apart_above(high, intervals.over_seeds([0.4])) == "inconclusive"
    assert hypothesis_tests.apart_above(intervals.over_seeds([0.9]), low) == "inconclusive"


def test_holm_by_hand():
    # Four hypotheses: 4 × .005, 3 × .01, 2 × .03, and the last at least the one before.
    assert hypothesis_tests.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx(
        [0.03, 0.06, 0.06, 0.02]
    )
    assert (
        hypothesis_tests.holm([]) == []
        and hypothesis_tests.holm([0.2]) == [0.2]
        and hypothesis_tests.holm([0.6, 0.9]) == [1.0, 1.0]
    )
    with pytest.raises(ValueError):
        hypothesis_tests.holm([0.1, 1.2])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_order_and_lies_between_p_and_bonferroni(values):
    adjusted = hypothesis_tests.holm(values)
    for p, q in zip(values, adjusted, strict=True):
        assert p <= q <= min(1.0, len(values) * p) + 1e-12
    ranked = sorted(zip(values, adjusted, strict=True))
    assert [q for _, q in ranked] == sorted(adjusted)


def test_holm_rejects_what_the_step_down_procedure_rejects():
    rng = np.random.default_rng(0)
    for values in rng.uniform(0, 0.1, (50, 6)):
        rejected = set()
        for rank, index in enumerate(np.argsort(values)):
            if values[index] >= 0.05 / (6 - rank):
                break
            rejected.add(index)
        assert rejected == {
            index for index, p in enumerate(hypothesis_tests.holm(list(values))) if p < 0.05
        }


def test_p_value_inverts_any_interval():
    values = [0.3, 0.5, 0.1, 0.4]

    def excludes(level):
        return not (estimate := intervals.over_seeds(values, level=level)).low <= 0 <= estimate.high

    assert hypothesis_tests.p_value(excludes) == pytest.approx(
        stats.ttest_1samp(values, 0).pvalue, rel=1e-5
    )
    assert (
        hypothesis_tests.p_value(lambda level: False) == 1.0
        and hypothesis_tests.p_value(lambda level: True) == 1e-9
    )
