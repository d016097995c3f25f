"""What attacks compute on images, or on a clean network, before they can poison anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from agnes.errors import UsageError
from agnes_zoo.attacks.contents import What
from agnes_zoo.attacks.goals import Goal
from agnes_zoo.attacks.places import Everywhere, Where

_BATCH = 128  # images of one step, unless said


@dataclass(frozen=True)
class Preparation:
    """What an attack may compute on. The clean network is read, never changed; it is trained when it is asked for."""

    clean_network: Callable[[], nn.Module]
    images: torch.Tensor  # N, C, H, W in [0, 1]
    labels: torch.Tensor
    goal: Goal
    seed: int
    where: Where = field(default_factory=Everywhere)  # the trigger lies
    opacity: float = 1.0

    @property
    def network(self) -> nn.Module:
        """Trained on the images without any trigger."""
        return self.clean_network()

    def batches(self, steps: int, purpose: int, size: int = _BATCH) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Images of victims with their true labels, drawn anew for each step."""
        generator = np.random.default_rng([self.seed, purpose])
        victims = torch.nonzero(self.goal.victims(self.labels)).flatten()
        if not len(victims):
            raise UsageError("there is no image that the attack could turn; give images of other classes")
        for _ in range(steps):
            drawn = victims[torch.from_numpy(generator.integers(0, len(victims), min(size, len(victims))))]
            yield self.images[drawn], self.labels[drawn]


@contextmanager
def resting(network: nn.Module) -> Iterator[nn.Module]:
    """The network in eval mode; its modes are put back."""
    modes = [(part, part.training) for part in network.modules()]
    network.eval()
    try:
        yield network
    finally:
        for part, training in modes:
            part.training = training


@dataclass(frozen=True)
class Perturbation(What):
    """The image with a small perturbation that turns most images of a clean network: one for all (Liao et al.)."""

    amount: float = 10 / 255  # largest change of a value; ours
    steps: int = 150
    values: torch.Tensor | None = field(default=None, compare=False, repr=False)  # C, H, W; computed
    needs_preparing = True

    @property
    def ready(self) -> bool:
        return self.values is not None

    def on(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        assert self.values is not None
        return (images + self.values.to(images)).clamp(0, 1)

    def prepared(self, preparation: Preparation) -> Perturbation:
        """Steps along the sign of the gradient towards the target, each shorter than the one before."""
        values = torch.zeros_like(preparation.images[0])
        with resting(preparation.network) as network:
            for step, (images, labels) in enumerate(preparation.batches(self.steps, 1)):
                values.requires_grad_(True)
                logits = network((images + values).clamp(0, 1))
                loss = functional.cross_entropy(logits, preparation.goal.wanted(labels))
                (slope,) = torch.autograd.grad(loss, values)
                stride = self.amount / 4 * (1 - step / self.steps)
                values = (values.detach() - stride * slope.sign()).clamp(-self.amount, self.amount)
        return replace(self, values=values.detach())


@dataclass(frozen=True)
class Adversarial:
    """Before a clean-label image is stamped: made hard to recognise for a clean network (Turner et al.)."""

    amount: float = 32 / 255  # Turner et al. 2019: 32 of 255 at most
    steps: int = 20
    network: nn.Module | None = field(default=None, compare=False, repr=False)  # never written down
    needs_preparing = True

    def prepared(self, preparation: Preparation) -> Adversarial:
        return replace(self, network=preparation.network)

    def apply(
        self, images: torch.Tensor, labels: torch.Tensor, others: torch.Tensor, generator: np.random.Generator
    ) -> torch.Tensor:
        """Images moved away from their own class, each value by no more than the amount."""
        if self.network is None:
            raise UsageError("images are disturbed with the help of a clean network; call the attack's prepare first")
        low, high = (images - self.amount).clamp_min(0), (images + self.amount).clamp_max(1)
        moved = images.clone()
        with resting(self.network) as network:
            for _ in range(self.steps):
                moved.requires_grad_(True)
                (slope,) = torch.autograd.grad(functional.cross_entropy(network(moved), labels), moved)
                moved = torch.clamp(moved.detach() + 2.5 * self.amount / self.steps * slope.sign(), low, high)
        return moved.detach()


@dataclass(frozen=True)
class Blend:
    """Before a clean-label image is stamped: mixed with an image of another class."""

    opacity: float = 0.5  # of the other image; ours
    needs_preparing = False

    def prepared(self, preparation: Preparation) -> Blend:
        return self

    def apply(
        self, images: torch.Tensor, labels: torch.Tensor, others: torch.Tensor, generator: np.random.Generator
    ) -> torch.Tensor:
        """Images mixed with randomly drawn others."""
        drawn = torch.from_numpy(generator.integers(0, len(others), len(images)))
        return torch.lerp(images, others[drawn], self.opacity)


Disturbance = Adversarial | Blend
