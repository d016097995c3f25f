"""Benign images as they might also have been: moved, turned, lighter, flatter. Ours; no paper's.

A few images overfit: some pattern sends those five to any class. What sends them there however they are photographed
says more of the network than of the images.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch.nn import functional

from agnes.samples import Samples

_MOVED = 0.1  # of the side, at most
_TURNED = 0.15  # radians, at most
_ZOOMED = 0.12  # share, at most
_LIGHTER = 0.25  # of full brightness, at most
_CONTRAST = 0.3  # share, at most
_NOISE = 0.03  # standard deviation


def varied(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image in another view, inside [0, 1]; drawn by a generator on the CPU."""
    count = len(images)

    def draw(most: float) -> torch.Tensor:
        return most * (2 * torch.rand(count, generator=generator) - 1)

    zoom, turn = 1 + draw(_ZOOMED), draw(_TURNED)
    across, along = zoom * turn.cos(), zoom * turn.sin()
    rows = [
        torch.stack([across, along, 2 * draw(_MOVED)], 1),
        torch.stack([-along, across, 2 * draw(_MOVED)], 1),
    ]
    grid = functional.affine_grid(torch.stack(rows, 1).to(images), list(images.shape), align_corners=False)
    seen = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    contrast, light = (1 + draw(_CONTRAST)).to(images), draw(_LIGHTER).to(images)
    mean = seen.mean((1, 2, 3), keepdim=True)
    noise = _NOISE * torch.randn(images.shape, generator=generator).to(images)
    seen = (seen - mean) * contrast[:, None, None, None] + mean + light[:, None, None, None] + noise
    return seen.clamp(0, 1)


def several(samples: Samples, count: int) -> Samples:
    """The samples as often as it takes to have `count` images, so that each look sees several views of every one."""
    times = math.ceil(count / max(1, len(samples)))
    labels = None if samples.labels is None else samples.labels.repeat(times)
    return replace(samples, images=samples.images.repeat(times, 1, 1, 1), labels=labels)
