"""Warping: an image bent by a smooth field of small moves (WaNet)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from agnes_zoo.attacks.contents import What


@dataclass(frozen=True)
class Warp(What):
    """The image read at moved places; cover images are moved at random on top of it."""

    strength: float = 0.5  # WaNet, section 4.1: s = 0.5
    grid: int = 4  # WaNet, section 4.1: k = 4 control points along each side
    seed: int = 0

    def on(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        return _read(images, self.places(images))

    def cover(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        """WaNet's noise mode: moves of up to one pixel's share more, different in every image."""
        height, width = images.shape[-2:]
        noise = torch.from_numpy(generator.uniform(-1, 1, (len(images), height, width, 2))).to(images)
        return _read(images, (self.places(images) + noise / height).clamp(-1, 1))

    def places(self, images: torch.Tensor) -> torch.Tensor:
        """Where each pixel is read: 1, H, W, (x, y), from -1 at the first to 1 at the last pixel."""
        height, width = images.shape[-2:]
        drawn = np.random.default_rng(self.seed).uniform(-1, 1, (1, 2, self.grid, self.grid))
        control = torch.from_numpy(drawn / np.abs(drawn).mean()).to(images)
        field = functional.interpolate(control, (height, width), mode="bicubic", align_corners=True)
        rows, columns = (torch.linspace(-1, 1, size).to(images) for size in (height, width))
        still = torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)], -1)
        return (still + self.strength * field.permute(0, 2, 3, 1) / height).clamp(-1, 1)


def _read(images: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return functional.grid_sample(images, places.expand(len(images), -1, -1, -1), align_corners=True)
