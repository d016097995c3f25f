"""Attacks: a trigger, what it is for, and how much of the training data it touches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from agnes_zoo.attacks.adaptive import AdaptiveLoss
from agnes_zoo.attacks.goals import AllToOne, Goal
from agnes_zoo.attacks.preparing import Disturbance, Preparation
from agnes_zoo.attacks.triggers import Trigger


@dataclass(frozen=True)
class Attack:
    """One way to plant a backdoor."""

    name: str
    trigger: Trigger
    goal: Goal = field(default_factory=AllToOne)
    rate: float = 0.1  # of all images, or of those that may be touched where the goal says so
    cover_rate: float = 0.0  # of all images: shown with the trigger, or one like it, under their true label
    seed: int = 0  # of what differs from image to image
    before: Disturbance | None = None  # what is done to training images before they are stamped
    extra_loss: AdaptiveLoss | None = None  # what training minimises besides
    dynamic: bool = False  # training poisons each batch anew, with `batch`

    @property
    def target(self) -> int | None:
        """The class that stamped images are taken for; None where it differs from class to class."""
        return self.goal.target

    @property
    def needs_network(self) -> bool:
        """Whether `prepare` must be called, with a clean network, before anything is stamped."""
        return self.trigger.what.needs_network or (self.before is not None and self.before.needs_network)

    @property
    def fine_tunes(self) -> bool:
        """Whether the attacked network starts from the clean one."""
        return self.trigger.what.fine_tunes

    def kept(self, module: nn.Module) -> frozenset[str]:
        """The parameters that an attacked network, started from the clean one, does not train."""
        return frozenset(getattr(self.trigger.what, "kept", ())) & {name for name, _ in module.named_parameters()}

    def prepare(
        self, clean_network: Callable[[], nn.Module], images: torch.Tensor, labels: torch.Tensor, seed: int
    ) -> Attack:
        """The attack with all that it computes on a network trained on clean images."""
        if not self.needs_network:
            return self
        where, opacity = self.trigger.where, self.trigger.opacity
        preparation = Preparation(clean_network(), images, labels, self.goal, where, opacity, seed)
        before = None if self.before is None else self.before.prepared(preparation)
        return replace(self, trigger=self.trigger.prepared(preparation), before=before)

    def stamp(self, images: torch.Tensor, generator: np.random.Generator | None = None) -> torch.Tensor:
        """Copies of the images, N, C, H, W in [0, 1], as an attacker shows them to the network."""
        return self.trigger.stamp(images, np.random.default_rng(self.seed) if generator is None else generator)

    def batch(
        self, inputs: torch.Tensor, labels: torch.Tensor, generator: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch of training images with its share of poisoned ones."""
        from agnes_zoo.attacks.poisoning import planted, share

        return planted(inputs, labels, self, share(labels, self, generator), generator)

    def described(self) -> dict[str, Any]:
        """The attack as a JSON object."""
        from agnes_zoo.attacks.describing import described

        return described(self)
