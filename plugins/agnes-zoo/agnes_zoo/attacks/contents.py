"""What a trigger shows: from images, the images that it would make of them if it covered them wholly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import nn

from agnes.errors import UsageError

if TYPE_CHECKING:
    from agnes_zoo.attacks.preparing import Preparation

YELLOW = (1.0, 1.0, 0.0)
RED = (1.0, 0.0, 0.0)
BLUE = (0.0, 0.0, 1.0)
WHITE = (1.0, 1.0, 1.0)
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: how much a channel adds to the brightness


class What:
    """The base of all contents."""

    needs_preparing = False  # something is computed before it can be shown
    fine_tunes = False  # the attacked network starts from that clean network
    ready = True  # it can be shown; False until it is prepared, or learnt
    learns = False  # it is trained along with the attacked network
    partner: nn.Module | None = None  # what is trained along with the attacked network, while it is

    def on(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        """What stands in the place of images N, C, H, W."""
        raise NotImplementedError

    def cover(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        """What cover images show, which keep their labels."""
        return self.on(images, generator)

    @property
    def has_cover(self) -> bool:
        """Whether cover images differ from attacked ones."""
        return type(self).cover is not What.cover

    def prepared(self, preparation: Preparation) -> Self:
        """This, with what had to be computed first."""
        return self

    def joined(self, images: torch.Tensor) -> Self:
        """This, about to be trained along with the attacked network, on such images."""
        return self

    def learnt(self) -> Self:
        """This, as it is after that training."""
        return self

    def penalty(self, images: torch.Tensor) -> torch.Tensor:
        """What training minimises besides, on a batch of clean images."""
        raise NotImplementedError


@dataclass(frozen=True)
class Colour(What):
    """One colour; its brightness where images have no colours."""

    values: tuple[float, ...] = YELLOW  # one a channel, in [0, 1]

    def on(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        values = self.values
        if images.shape[1] == 1 and len(values) == 3:
            values = (sum(share * value for share, value in zip(LUMA, values, strict=True)),)
        if len(values) != images.shape[1]:
            raise UsageError(
                f"the patch has {len(values)} colour values, the images {images.shape[1]} channels; give one each"
            )
        colour = torch.tensor(values, dtype=images.dtype, device=images.device)
        return colour[None, :, None, None].expand_as(images)


@dataclass(frozen=True)
class RandomPixels(What):
    """Pixels drawn once, uniformly in [0, 1], the same for all images."""

    seed: int = 0

    def on(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        pixels = np.random.default_rng(self.seed).random(tuple(images.shape[1:]))
        return torch.from_numpy(pixels).to(images).expand_as(images)


@dataclass(frozen=True)
class Checks(What):
    """Squares of two colours in turn."""

    side: int = 1  # pixels
    first: tuple[float, ...] = WHITE  # of the square in the image's upper left corner
    second: tuple[float, ...] = (0.0, 0.0, 0.0)

    def on(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        height, width = images.shape[-2:]
        rows, columns = torch.arange(height) // self.side, torch.arange(width) // self.side
        odd = ((rows[:, None] + columns[None]) % 2).bool().to(images.device)
        first, second = (Colour(colour).on(images, generator) for colour in (self.first, self.second))
        return torch.where(odd, second, first)


@dataclass(frozen=True)
class Grid(What):
    """The image with every n-th pixel of every n-th row made brighter: a static perturbation."""

    step: int = 2  # pixels from one to the next
    amount: float = 10 / 255  # Liao et al. 2018: at most 10 of 255

    def on(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        pattern = torch.zeros(images.shape[-2:], dtype=images.dtype, device=images.device)
        pattern[:: self.step, :: self.step] = self.amount
        return (images + pattern).clamp(0, 1)


@dataclass(frozen=True)
class Sinusoid(What):
    """The image with vertical waves of brightness over it (SIG)."""

    amount: float = 20 / 255  # Barni et al. 2019: 20 of 255
    frequency: float = 6.0  # Barni et al. 2019: waves across the image

    def on(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        width = images.shape[-1]
        columns = torch.arange(width, dtype=torch.float64)
        wave = self.amount * torch.sin(2 * torch.pi * columns * self.frequency / width)
        return (images + wave.to(images)).clamp(0, 1)


@dataclass(frozen=True)
class Picture(What):
    """A picture of the image's size, the same for all images."""

    pixels: tuple[tuple[tuple[float, ...], ...], ...]  # channels, rows, columns in [0, 1]

    def on(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        picture = torch.tensor(self.pixels, dtype=images.dtype, device=images.device)
        if picture.shape != images.shape[1:]:
            raise UsageError(
                f"the picture is {tuple(picture.shape)}, the images {tuple(images.shape[1:])}; give one of their size"
            )
        return picture.expand_as(images)
