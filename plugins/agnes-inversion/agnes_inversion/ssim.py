"""Structural similarity of images (Wang et al., 2004), differentiable."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional

Window = Literal["gaussian", "uniform"]

_STEADY = (0.01**2, 0.03**2)  # Wang et al.: K1 and K2, for pixels in [0, 1]
_SIDE = {"gaussian": 11, "uniform": 7}  # Wang et al.: a Gaussian window of 11 pixels; uniform: scikit-image's default
_SIGMA = 1.5  # Wang et al.


def similarity(images: torch.Tensor, others: torch.Tensor, window: Window = "gaussian") -> torch.Tensor:
    """The mean SSIM of each pair of images, over colours and over the places where the window fits: -1 to 1.

    The Gaussian window is the paper's, and that of TensorFlow's `ssim`. An image smaller than the window gets the
    largest odd window that fits.
    """
    height, width = images.shape[2:]
    side = min(_SIDE[window], height, width)
    weights = _weights(window, side - (side + 1) % 2).to(images)
    mean, other = _local(images, weights), _local(others, weights)
    share = 1.0 if window == "gaussian" else len(weights) ** 2 / max(1, len(weights) ** 2 - 1)  # sample covariance
    variance = share * (_local(images * images, weights) - mean * mean)
    other_variance = share * (_local(others * others, weights) - other * other)
    covariance = share * (_local(images * others, weights) - mean * other)
    first, second = _STEADY
    light = (2 * mean * other + first) / (mean * mean + other * other + first)
    structure = (2 * covariance + second) / (variance + other_variance + second)
    return (light * structure).mean((1, 2, 3))


def _weights(window: Window, side: int) -> torch.Tensor:
    """Of one axis of the window."""
    if window == "uniform":
        return torch.full((side,), 1 / side, dtype=torch.float64)
    places = torch.arange(side, dtype=torch.float64) - side // 2
    weights = torch.exp(-places.square() / (2 * _SIGMA**2))
    return weights / weights.sum()


def _local(maps: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The weighted mean within every window that fits."""
    channels = maps.shape[1]
    kernel = weights.expand(channels, 1, 1, len(weights))
    return functional.conv2d(functional.conv2d(maps, kernel, groups=channels), kernel.mT, groups=channels)
