"""Attacks: a trigger, what it is for, and how much of the training data it touches."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from agnes.errors import UsageError
from agnes_zoo.attacks.adaptive import AdaptiveLoss
from agnes_zoo.attacks.by_class import ByClass
from agnes_zoo.attacks.contents import What
from agnes_zoo.attacks.goals import AllToOne, Goal
from agnes_zoo.attacks.preparing import Disturbance, Preparation
from agnes_zoo.attacks.triggers import Trigger


@dataclass(frozen=True)
class Attack:
    """One way to plant a backdoor."""

    name: str
    trigger: Trigger | ByClass
    goal: Goal = field(default_factory=AllToOne)
    rate: float = 0.1  # of all images, or of those that may be touched where the goal says so
    cover_rate: float = 0.0  # of all images: shown with the trigger, or one like it, under their true label
    seed: int = 0  # of what differs from image to image
    before: Disturbance | None = None  # what is done to training images before they are stamped
    extra_loss: AdaptiveLoss | None = None  # what training minimises besides
    dynamic: bool = False  # training poisons each batch anew, with `batch`

    def __post_init__(self) -> None:
        if self.extra_loss is not None and isinstance(self.trigger, ByClass):
            raise UsageError(f"an adaptive loss hides one trigger, '{self.name}' has many; leave out adaptive")

    @property
    def target(self) -> int | None:
        """The class that stamped images are taken for; None where it differs from class to class."""
        return self.goal.target

    @property
    def needs_preparing(self) -> bool:
        """Whether `prepare` must be called before anything is stamped."""
        return self.trigger.needs_preparing or (self.before is not None and self.before.needs_preparing)

    @property
    def fine_tunes(self) -> bool:
        """Whether the attacked network starts from the clean one."""
        return self.trigger.fine_tunes

    @property
    def learns(self) -> bool:
        """Whether the trigger is trained along with the network; the attack that the training holds can stamp."""
        return isinstance(self.trigger, Trigger) and self.trigger.what.learns

    @property
    def partner(self) -> nn.Module | None:
        """What is trained along with the attacked network, while it is."""
        return self.trigger.what.partner if isinstance(self.trigger, Trigger) else None

    def kept(self, module: nn.Module) -> frozenset[str]:
        """The parameters that an attacked network, started from the clean one, does not train."""
        names = getattr(self.trigger.what, "kept", ()) if isinstance(self.trigger, Trigger) else ()
        return frozenset(names) & {name for name, _ in module.named_parameters()}

    def prepare(
        self, clean_network: Callable[[], nn.Module], images: torch.Tensor, labels: torch.Tensor, seed: int
    ) -> Attack:
        """The attack with all that it computes first, on images and, if it wants one, a network trained on them."""
        if not self.needs_preparing:
            return self
        preparation = Preparation(functools.cache(clean_network), images, labels, self.goal, seed)
        before = None if self.before is None else self.before.prepared(preparation)
        return replace(self, trigger=self.trigger.prepared(preparation), before=before)

    def joined(self, images: torch.Tensor) -> Attack:
        """The attack about to be trained along with a network on such images, if it is to be."""
        return self._with(lambda what: what.joined(images))

    def learnt(self) -> Attack:
        """The attack as it is after that training."""
        return self._with(lambda what: what.learnt())

    def _with(self, change: Callable[[What], What]) -> Attack:
        if not isinstance(self.trigger, Trigger):
            return self
        what = change(self.trigger.what)
        return self if what is self.trigger.what else replace(self, trigger=replace(self.trigger, what=what))

    def penalty(self, images: torch.Tensor) -> torch.Tensor:
        """What a training with a partner minimises besides, on a batch of clean images."""
        assert isinstance(self.trigger, Trigger)
        return self.trigger.what.penalty(images)

    def stamp(
        self,
        images: torch.Tensor,
        labels: torch.Tensor | None = None,  # true ones, for triggers that differ from class to class
    ) -> torch.Tensor:
        """Copies of the images, N, C, H, W in [0, 1], as an attacker shows them to the network."""
        return self.trigger.stamp(images, np.random.default_rng(self.seed), labels)

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
