"""Triggers that differ from image to image, made by a small generator (input-aware dynamic backdoor)."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from agnes_zoo.attacks.contents import What
from agnes_zoo.attacks.preparing import Preparation

_BATCH = 48  # images of one step, each shown three times


class PatternGenerator(nn.Module):
    """From an image a pattern in [0, 1] and how strongly each pixel shows it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Sequential(
            *(nn.Conv2d(channels, 16, 3, 2, padding=1), nn.ReLU()),
            *(nn.Conv2d(16, 32, 3, 2, padding=1), nn.ReLU()),
        )
        self.up = nn.Sequential(nn.Conv2d(32, 16, 3, padding=1), nn.ReLU())
        self.out = nn.Conv2d(16, channels + 1, 3, padding=1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.up(functional.interpolate(self.down(images), scale_factor=2.0, mode="nearest"))
        maps = self.out(functional.interpolate(maps, size=images.shape[-2:], mode="nearest"))
        return torch.sigmoid(maps[:, :-1]), torch.sigmoid(4 * maps[:, -1:] - 4)


@dataclass(frozen=True)
class InputAware(What):
    """A pattern of its own for every image; the pattern of another image is to do nothing."""

    steps: int = 300
    density: float = 0.08  # of the pixels that a pattern covers; Nguyen and Tran 2020: 0.032
    density_weight: float = 30.0
    diversity_weight: float = 1.0  # Nguyen and Tran 2020
    weights: torch.Tensor | None = field(default=None, compare=False, repr=False)  # of the generator; computed
    needs_network = True

    @property
    def ready(self) -> bool:
        return self.weights is not None

    def on(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        return self._worn(images, images)

    def cover(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        """Each image with the pattern of the next one; a single image with that of its mirror image."""
        return self._worn(images, images.roll(1, 0) if len(images) > 1 else images.flip(-1))

    def _worn(self, images: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
        assert self.weights is not None
        made = _drawn(images.shape[1], 0)  # all of which is replaced
        nn.utils.vector_to_parameters(self.weights.clone(), made.parameters())
        with torch.no_grad():
            return _wearing(made.to(images.device), images, sources)[0]

    def prepared(self, preparation: Preparation) -> InputAware:
        """Train a generator together with a copy of the clean network."""
        made = _drawn(preparation.images.shape[1], preparation.seed).to(preparation.images.device)
        network = copy.deepcopy(preparation.network).train()
        optimiser = torch.optim.Adam([*made.parameters(), *network.parameters()], lr=1e-3)
        for images, labels in preparation.batches(self.steps, 4, _BATCH):
            loss = self._loss(made, network, images, labels, preparation.goal.wanted(labels))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        return replace(self, weights=nn.utils.parameters_to_vector(made.parameters()).detach().clone())

    def _loss(
        self,
        made: PatternGenerator,
        network: nn.Module,
        images: torch.Tensor,
        labels: torch.Tensor,
        wanted: torch.Tensor,
    ) -> torch.Tensor:
        others = images.roll(1, 0)
        own, mask, pattern = _wearing(made, images, images)
        crossed, _, other_pattern = _wearing(made, images, others)
        logits = network(torch.cat([images, own, crossed]))
        classification = functional.cross_entropy(logits, torch.cat([labels, wanted, labels]))
        distance = (images - others).flatten(1).norm(dim=1)
        apart = (pattern - other_pattern).flatten(1).norm(dim=1)
        diversity = (distance / (apart + 1e-3)).mean()
        thickness = functional.relu(mask.mean((1, 2, 3)) - self.density).mean()
        return classification + self.diversity_weight * diversity + self.density_weight * thickness


def _drawn(channels: int, seed: int) -> PatternGenerator:
    """A generator with first weights drawn by the seed, and nobody else notices."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return PatternGenerator(channels)


def _wearing(
    made: PatternGenerator, images: torch.Tensor, sources: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images with the patterns made from the sources; the masks; the patterns."""
    pattern, mask = made(sources)
    return images + mask * (pattern - images), mask, pattern
