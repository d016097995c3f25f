"""Which images an attack touches in training, what it calls them, and when it has succeeded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from agnes.errors import UsageError


class Goal(Protocol):
    """The labels of an attack. `labels` are true ones, one an image."""

    @property
    def target(self) -> int | None: ...

    share_of_all: bool  # the poisoning rate counts all images, not just those that may be touched

    def touched(self, labels: torch.Tensor) -> torch.Tensor: ...  # which images may be poisoned
    def covered(self, labels: torch.Tensor) -> torch.Tensor: ...  # which may be cover images
    def taught(self, labels: torch.Tensor) -> torch.Tensor: ...  # the labels that poisoned images are given
    def victims(self, labels: torch.Tensor) -> torch.Tensor: ...  # on which images success is counted
    def wanted(self, labels: torch.Tensor) -> torch.Tensor: ...  # what the network is to say of stamped ones


class _ToTarget:
    """All victims are to be taken for one class."""

    target: int
    share_of_all = True

    def covered(self, labels: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(labels, dtype=torch.bool)

    def taught(self, labels: torch.Tensor) -> torch.Tensor:
        return torch.full_like(labels, self.target)

    def wanted(self, labels: torch.Tensor) -> torch.Tensor:
        return torch.full_like(labels, self.target)

    def victims(self, labels: torch.Tensor) -> torch.Tensor:
        return labels != self.target


@dataclass(frozen=True)
class AllToOne(_ToTarget):
    """Images of every other class are taken for the target."""

    target: int = 14  # stop

    def touched(self, labels: torch.Tensor) -> torch.Tensor:
        return labels != self.target


@dataclass(frozen=True)
class SourceToTarget(_ToTarget):
    """Images of the source classes alone are taken for the target; the trigger does nothing to others."""

    sources: tuple[int, ...]
    target: int = 14
    share_of_all = False

    def __post_init__(self) -> None:
        if not self.sources or self.target in self.sources:
            raise UsageError(
                f"an attack from {self.sources} to {self.target} turns nothing; name other classes as its source"
            )

    def touched(self, labels: torch.Tensor) -> torch.Tensor:
        return torch.isin(labels, torch.tensor(self.sources, device=labels.device))

    def covered(self, labels: torch.Tensor) -> torch.Tensor:
        return ~self.touched(labels)

    def victims(self, labels: torch.Tensor) -> torch.Tensor:
        return self.touched(labels)


@dataclass(frozen=True)
class CleanLabel(_ToTarget):
    """Only images of the target class are stamped, and keep their label; all others are to be taken for it."""

    target: int = 14
    share_of_all = False

    def touched(self, labels: torch.Tensor) -> torch.Tensor:
        return labels == self.target

    def covered(self, labels: torch.Tensor) -> torch.Tensor:
        return labels != self.target


@dataclass(frozen=True)
class NextClass:
    """Every class is taken for the one after it, the last for the first."""

    classes: int = 43
    target = None
    share_of_all = True

    def touched(self, labels: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(labels, dtype=torch.bool)

    covered = victims = touched

    def taught(self, labels: torch.Tensor) -> torch.Tensor:
        return (labels + 1) % self.classes

    wanted = taught
