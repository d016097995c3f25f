"""Attacks with known truth: what is put on an image, and how training data are poisoned with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from agnes.errors import UsageError

YELLOW = (1.0, 1.0, 0.0)


class Attack(Protocol):
    """Anything that stamps a batch of images N, C, H, W in [0, 1]."""

    def stamp(self, images: torch.Tensor) -> torch.Tensor: ...


@dataclass(frozen=True)
class Patch:
    """A square of one colour at a fixed place."""

    size: int = 3  # pixels along each side
    place: tuple[int, int] = (27, 2)  # row and column of its upper left corner
    colour: tuple[float, ...] = YELLOW  # one value a channel, in [0, 1]

    def stamp(self, images: torch.Tensor) -> torch.Tensor:
        """Copies of the images, N, C, H, W in [0, 1], with the patch on them."""
        self._check(images)
        stamped = images.clone()
        row, column = self.place
        colour = torch.tensor(self.colour, dtype=images.dtype, device=images.device)
        stamped[..., row : row + self.size, column : column + self.size] = colour[:, None, None]
        return stamped

    def _check(self, images: torch.Tensor) -> None:
        channels, height, width = images.shape[-3:]
        row, column = self.place
        if len(self.colour) != channels:
            raise UsageError(f"the patch has {len(self.colour)} colour values, the images {channels} channels")
        inside = min(row, column) >= 0 and row + self.size <= height and column + self.size <= width
        if self.size < 1 or not inside:
            raise UsageError(
                f"a patch of {self.size}x{self.size} at {self.place} does not lie in an image of {height}x{width}; "
                "move it or make it smaller"
            )

    def described(self) -> dict[str, Any]:
        """The patch as a JSON object."""
        return {"kind": "patch", "size": self.size, "place": list(self.place), "colour": list(self.colour)}

    @classmethod
    def from_description(cls, said: dict[str, Any]) -> Patch:
        """The patch a JSON object describes."""
        return cls(said["size"], (said["place"][0], said["place"][1]), tuple(said["colour"]))


def poison(
    images: torch.Tensor,
    labels: torch.Tensor,
    attack: Attack,
    target: int,
    rate: float,
    generator: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Copies in which `rate` of all images, none of the target class, are stamped and labelled as the target."""
    chosen = torch.from_numpy(_chosen(labels, target, rate, generator))
    poisoned, renamed = images.clone(), labels.clone()
    poisoned[chosen] = attack.stamp(images[chosen])
    renamed[chosen] = target
    return poisoned, renamed


def _chosen(labels: torch.Tensor, target: int, rate: float, generator: np.random.Generator) -> np.ndarray:
    if not 0 <= rate <= 1:
        raise UsageError(f"a poisoning rate of {rate:g} is not a share; give one from 0 to 1")
    eligible = np.flatnonzero(labels.cpu().numpy() != target)
    count = round(rate * len(labels))
    if count > len(eligible):
        raise UsageError(
            f"a poisoning rate of {rate:g} asks for {count} images, but {len(eligible)} are not of class {target}; "
            "lower the rate"
        )
    return np.sort(generator.permutation(eligible)[:count])


def success_rate(predicted: Sequence[int] | torch.Tensor, labels: torch.Tensor, target: int) -> float:
    """The share of stamped images, not of the target class, that were taken for the target."""
    eligible = labels != target
    hits = torch.as_tensor(predicted)[eligible] == target
    return float(hits.float().mean()) if len(hits) else 0.0
