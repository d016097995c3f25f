"""The gamma distribution against scipy's."""

import math

import pytest
from agnes_diagnosis.gamma import Gamma

stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize(("shape", "scale"), [(0.4, 2.0), (1.0, 1.0), (3.0, 0.5), (40.0, 6.0), (900.0, 0.1)])
def test_the_likeliest_distribution_is_scipys(shape, scale):
    values = stats.gamma(shape, scale=scale).rvs(60, random_state=1)
    found = Gamma.fitted(values.tolist())
    theirs, _, wide = stats.gamma.fit(values, floc=0)
    assert found.shape == pytest.approx(theirs, rel=1e-4)
    assert found.scale == pytest.approx(wide, rel=1e-4)
    for value in (0.0, values.min(), values.mean(), values.max(), 2 * values.max()):
        assert found.above(value) == pytest.approx(stats.gamma(theirs, scale=wide).sf(value), rel=1e-2, abs=1e-12)


def test_the_exponential_distribution_is_a_case_known_by_hand():
    assert Gamma(1.0, 2.0).above(3.0) == pytest.approx(math.exp(-1.5))
    assert Gamma(1.0, 2.0).above(-1.0) == 1.0


def test_equal_numbers_make_a_narrow_distribution_about_them():
    found = Gamma.fitted([5.0] * 10)
    assert found.above(4.9) > 0.99
    assert found.above(5.1) < 0.01


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 0.0], [1.0, -2.0], [1.0, math.nan]])
def test_numbers_without_a_distribution_are_refused(values):
    with pytest.raises(ValueError, match="two or more positive"):
        Gamma.fitted(values)
