"""Shares counted on a few images, and how sure they are."""

import pytest

from agnes.intervals import wilson


def bound(share, count, direction):
    """The rate at which the share lies 1.96 standard errors away, by halving: what Wilson's formula solves."""
    near, far = share, 0.0 if direction < 0 else 1.0
    for _ in range(200):
        rate = (near + far) / 2
        within = abs(share - rate) <= 1.959963984540054 * (rate * (1 - rate) / count) ** 0.5
        near, far = (rate, far) if within else (near, rate)
    return near


@pytest.mark.parametrize(("right", "count"), [(1, 10), (5, 10), (43, 43), (0, 7), (970, 1000), (1, 1), (12345, 12630)])
def test_an_interval_holds_the_rates_that_the_count_does_not_refute(right, count):
    low, high = wilson(right / count, count)
    assert low == pytest.approx(bound(right / count, count, -1), abs=1e-9)
    assert high == pytest.approx(bound(right / count, count, +1), abs=1e-9)


def test_known_intervals():
    assert wilson(0.0, 10) == (0.0, pytest.approx(0.2775, abs=1e-4))
    assert wilson(1.0, 10) == (pytest.approx(0.7225, abs=1e-4), 1.0)
    assert wilson(0.5, 100) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))


def test_nothing_counted_gives_no_interval():
    assert wilson(0.0, 0) is None
