"""Triggers of which each class has its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from agnes.errors import UsageError
from agnes_zoo.attacks.contents import BLUE, RED, YELLOW, Colour
from agnes_zoo.attacks.places import Cell
from agnes_zoo.attacks.triggers import Trigger

_COLOURS = (YELLOW, RED, BLUE, (0.0, 1.0, 0.0), (0.0, 1.0, 1.0), (1.0, 0.0, 1.0))
_ACROSS = 4  # cells along each side; more where classes are many


@dataclass(frozen=True)
class ByClass:
    """A trigger for each class, worn by images of that class alone."""

    triggers: tuple[Trigger, ...]  # of class 0, 1, ...

    fine_tunes = needs_preparing = has_cover = False

    def stamp(
        self,
        images: torch.Tensor,
        generator: np.random.Generator | None = None,
        labels: torch.Tensor | None = None,  # true ones
    ) -> torch.Tensor:
        """Copies of the images, N, C, H, W in [0, 1], each with the trigger of its class on it."""
        generator = np.random.default_rng(0) if generator is None else generator
        if labels is None:
            raise UsageError("each class has a trigger of its own; say of which class the images are")
        stamped = images.clone()
        for label in labels.unique().tolist():
            if not 0 <= label < len(self.triggers):
                raise UsageError(f"there is a trigger for {len(self.triggers)} classes, none for class {label}")
            mine = labels == label
            stamped[mine] = self.triggers[label].stamp(images[mine], generator)
        return stamped

    def cover(
        self, images: torch.Tensor, generator: np.random.Generator, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Copies of cover images, which are to keep their labels."""
        return self.stamp(images, generator, labels)

    def prepared(self, preparation: object) -> ByClass:
        return self


def squares(size: int = 8, opacity: float = 1.0, classes: int = 43) -> ByClass:
    """For each class a square; no two of one place and one colour."""
    across = max(_ACROSS, math.ceil(math.sqrt(classes / len(_COLOURS))))
    across += across % 2  # with an even one the colours of a cell come round as the last
    return ByClass(tuple(_square(number, across, size, opacity) for number in range(classes)))


def _square(number: int, across: int, size: int, opacity: float) -> Trigger:
    """Neighbours in number lie apart and differ in colour."""
    cells = across * across
    cell = number * (across + 1) % cells  # the next one down and to the right
    colour = _COLOURS[(number + number // cells) % len(_COLOURS)]
    return Trigger(Colour(colour), Cell(*divmod(cell, across), across, size), opacity)
