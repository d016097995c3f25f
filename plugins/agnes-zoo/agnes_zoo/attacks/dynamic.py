"""Triggers that differ from image to image, made by generators, one of which learns with the network (input-aware)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from agnes.errors import UsageError
from agnes_zoo.attacks.contents import What
from agnes_zoo.attacks.preparing import Preparation

_BATCH = 48  # images of one step of the generator of masks
_LEAST = 1e-4  # of a distance


class Generator(nn.Module):
    """From an image, for each of its pixels, so many values in [0, 1]."""

    def __init__(self, channels: int, values: int) -> None:
        super().__init__()
        self.down = nn.Sequential(
            *(nn.Conv2d(channels, 16, 3, 2, padding=1), nn.ReLU()),
            *(nn.Conv2d(16, 32, 3, 2, padding=1), nn.ReLU()),
        )
        self.up = nn.Sequential(nn.Conv2d(32, 16, 3, padding=1), nn.ReLU())
        self.out = nn.Conv2d(16, values, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.up(functional.interpolate(self.down(images), scale_factor=2.0, mode="nearest"))
        return torch.sigmoid(self.out(functional.interpolate(maps, size=images.shape[-2:], mode="nearest")))


@dataclass(frozen=True)
class InputAware(What):
    """A pattern of its own for every image; the pattern of another image is to do nothing."""

    steps: int = 300  # of the generator of masks, which is trained first
    density: float = 0.032  # Nguyen and Tran 2020: of an image, how much a mask covers without being held back
    density_weight: float = 100.0  # Nguyen and Tran 2020
    diversity_weight: float = 1.0  # Nguyen and Tran 2020
    masks: torch.Tensor | None = field(default=None, compare=False, repr=False)  # weights of their generator
    patterns: torch.Tensor | None = field(default=None, compare=False, repr=False)  # weights of their generator
    ready: bool = False  # both have been trained
    partner: Generator | None = field(default=None, compare=False, repr=False)  # that of patterns, while it learns
    needs_preparing = True
    learns = True

    def on(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        return self._worn(images, images)

    def cover(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        """Each image with the pattern of the next one; a single image with that of its mirror image."""
        return self._worn(images, images.roll(1, 0) if len(images) > 1 else images.flip(-1))

    def _worn(self, images: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
        channels = images.shape[1]
        with torch.no_grad():
            mask = _sharp(_made(self.masks, channels, 1).to(images.device)(sources))
        if self.partner is not None:
            return torch.lerp(images, self.partner(sources), mask.expand_as(images))
        with torch.no_grad():
            pattern = _made(self.patterns, channels, channels).to(images.device)(sources)
        return torch.lerp(images, pattern, mask.expand_as(images))

    def prepared(self, preparation: Preparation) -> InputAware:
        """The generator of masks trained by itself, that of patterns as it begins."""
        channels = preparation.images.shape[1]
        made = _drawn(channels, 1, preparation.seed).to(preparation.images.device)
        optimiser = torch.optim.Adam(made.parameters(), lr=3e-3)
        for images, _ in preparation.batches(self.steps, 4, _BATCH):
            masks = _sharp(made(images))
            covered = functional.relu(masks.mean((1, 2, 3)) - self.density).mean()
            loss = self.density_weight * covered + self.diversity_weight * _sameness(masks, images)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        patterns = _drawn(channels, channels, preparation.seed + 1)
        return replace(self, masks=_weights(made), patterns=_weights(patterns))

    def joined(self, images: torch.Tensor) -> InputAware:
        if self.patterns is None:
            raise UsageError("the masks of this trigger are made first; call the attack's prepare")
        if self.ready:
            return self
        channels = images.shape[1]
        return replace(self, partner=_made(self.patterns, channels, channels).to(images.device), ready=True)

    def learnt(self) -> InputAware:
        return self if self.partner is None else replace(self, patterns=_weights(self.partner), partner=None)

    def penalty(self, images: torch.Tensor) -> torch.Tensor:
        """Large where patterns are alike though their images are not."""
        assert self.partner is not None
        return self.diversity_weight * _sameness(self.partner(images), images)


def _sharp(values: torch.Tensor) -> torch.Tensor:
    """Nearly 0 or nearly 1 (Nguyen and Tran 2020)."""
    return torch.sigmoid(40 * values - 20)


def _sameness(made: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """How far images lie apart over how far what is made of them does, for each and the next one, mean."""
    return (_apart(images) / (_apart(made) + _LEAST)).mean()


def _apart(values: torch.Tensor) -> torch.Tensor:
    return ((values - values.roll(1, 0)).square().mean((1, 2, 3)) + _LEAST**2).sqrt()


def _drawn(channels: int, values: int, seed: int) -> Generator:
    """A generator with first weights drawn by the seed, and nobody else notices."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Generator(channels, values)


def _made(weights: torch.Tensor | None, channels: int, values: int) -> Generator:
    """A generator with these weights."""
    assert weights is not None
    made = _drawn(channels, values, 0)  # all of which is replaced
    nn.utils.vector_to_parameters(weights.clone(), made.parameters())
    return made


def _weights(made: Generator) -> torch.Tensor:
    return nn.utils.parameters_to_vector(made.parameters()).detach().clone()
