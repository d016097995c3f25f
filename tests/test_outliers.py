"""How unusual the smallest of some numbers are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agnes import outliers
from agnes.outliers import Low


@given(st.lists(st.floats(-100, 100), min_size=3, max_size=30))
def test_the_index_is_neural_cleanses_with_the_true_median(values):
    median = np.median(values)
    deviation = 1.4826 * max(np.median(np.abs(np.array(values) - median)), 0.05)
    low = Low(values)
    for value in values:
        assert low.index(value) == pytest.approx((median - value) / deviation)


def test_the_gap_of_one_outlier_is_its_distance_to_the_next():
    values = [0.0, 3.0, 3.1, 3.2, 3.3, 3.4, 3.5, 3.6]
    low = Low(values)
    assert low.gap(0.0) == pytest.approx(3.0 / low.deviation)
    assert low.gap(3.5) == 0.0


def test_two_outliers_do_not_hide_each_other():
    values = [0.0, 0.1, 3.0, 3.1, 3.2, 3.3, 3.4, 3.5]
    low = Low(values)
    assert low.gap(0.0) == low.gap(0.1) == pytest.approx(2.9 / low.deviation)


def test_a_long_tail_without_a_gap_is_no_outlier():
    tail = Low([-(1.35**i) for i in range(12)])
    assert tail.index(min(tail.values)) > 3
    assert tail.by_chance(min(tail.values)) > 0.05


def test_equal_numbers_are_not_unusual():
    assert Low([2.0] * 10).by_chance(2.0) == pytest.approx(1.0)


@pytest.mark.parametrize("count", [6, 10, 43])
def test_numbers_without_an_outlier_are_rarely_called_unusual(count):
    values = np.random.default_rng(7).standard_normal((400, count))
    found = [Low(row.tolist()) for row in values]
    false_alarms = np.mean([low.by_chance(low.values[0]) < 0.05 for low in found])
    assert false_alarms <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


@pytest.mark.parametrize("count", [10, 43])
def test_a_clear_outlier_is_found(count):
    values = np.random.default_rng(8).standard_normal((100, count)) * 0.3 + 5
    values[:, 0] = 1.0
    assert np.mean([Low(row.tolist()).by_chance(1.0) < 0.05 for row in values]) > 0.95


def test_the_null_is_what_a_slow_loop_draws():
    index, gap = outliers.null(8)
    generator = np.random.default_rng(3)
    slow_index, slow_gap = [], []
    for _ in range(4000):
        low = sorted(generator.standard_normal(8))
        median = (low[3] + low[4]) / 2
        deviation = 1.4826 * np.median([abs(v - median) for v in low])
        slow_index.append((median - low[0]) / deviation)
        slow_gap.append(max(low[1] - low[0], low[2] - low[1]) / deviation)
    for share in (0.5, 0.9):
        assert np.quantile(index, share) == pytest.approx(np.quantile(slow_index, share), rel=0.1)
        assert np.quantile(gap, share) == pytest.approx(np.quantile(slow_gap, share), rel=0.1)
