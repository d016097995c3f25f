"""Promises of the structural similarity: Wang's formula, as scikit-image computes it."""

from __future__ import annotations

import math

import pytest
import torch
from agnes_inversion.ssim import similarity


def pair(height: int = 14, width: int = 17, count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    first = torch.rand(count, 3, height, width, dtype=torch.float64, generator=draw)
    other = (0.7 * first + 0.3 * torch.rand(first.shape, dtype=torch.float64, generator=draw)).clamp(0, 1)
    return first, other


def slow(first: torch.Tensor, other: torch.Tensor, weights: list[list[float]], sample: bool) -> float:
    """The formula, window by window, of one colour of one image."""
    side = len(weights)
    share = side * side / (side * side - 1) if sample else 1.0
    total, count = 0.0, 0
    for top in range(first.shape[0] - side + 1):
        for left in range(first.shape[1] - side + 1):
            sums = [0.0] * 5
            for i in range(side):
                for j in range(side):
                    a, b = float(first[top + i, left + j]), float(other[top + i, left + j])
                    for k, term in enumerate((a, b, a * a, b * b, a * b)):
                        sums[k] += weights[i][j] * term
            mean_a, mean_b = sums[:2]
            var_a, var_b, both = (
                share * (sums[2] - mean_a**2),
                share * (sums[3] - mean_b**2),
                share * (sums[4] - mean_a * mean_b),
            )
            light = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
            total += light * (2 * both + 9e-4) / (var_a + var_b + 9e-4)
            count += 1
    return total / count


def gaussian(side: int) -> list[list[float]]:
    middle = side // 2
    raw = [
        [math.exp(-((i - middle) ** 2 + (j - middle) ** 2) / (2 * 1.5**2)) for j in range(side)] for i in range(side)
    ]
    total = sum(map(sum, raw))
    return [[value / total for value in row] for row in raw]


@pytest.mark.parametrize("window", ["gaussian", "uniform"])
def test_it_is_the_formula_window_by_window(window):
    first, other = pair(12, 13, 1)
    weights = gaussian(11) if window == "gaussian" else [[1 / 49] * 7] * 7
    expected = sum(slow(first[0, c], other[0, c], weights, window == "uniform") for c in range(3)) / 3
    assert float(similarity(first, other, window)[0]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("window", ["gaussian", "uniform"])
def test_it_is_what_scikit_image_computes(window):
    metrics = pytest.importorskip("skimage.metrics")
    first, other = pair()
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False} if window == "gaussian" else {}
    for index, found in enumerate(similarity(first, other, window).tolist()):
        expected = metrics.structural_similarity(
            first[index].numpy(), other[index].numpy(), channel_axis=0, data_range=1.0, **options
        )
        assert found == pytest.approx(expected, rel=1e-9)


def test_an_image_is_wholly_like_itself_and_no_other_is_more_so():
    first, other = pair()
    torch.testing.assert_close(similarity(first, first), torch.ones(2, dtype=torch.float64))
    assert bool((similarity(first, other) < 1).all())
    assert float(similarity(first, 1 - first).max()) < 0


def test_an_image_smaller_than_the_window_gets_the_largest_odd_window_that_fits():
    first, other = pair(6, 20, 1)
    expected = sum(slow(first[0, c], other[0, c], gaussian(5), False) for c in range(3)) / 3
    assert float(similarity(first, other)[0]) == pytest.approx(expected, rel=1e-9)


def test_its_gradient_is_that_of_finite_differences():
    first, other = pair(11, 12, 1)
    assert torch.autograd.gradcheck(
        lambda image: similarity(first[:, :1], image), other[:, :1].clone().requires_grad_()
    )
