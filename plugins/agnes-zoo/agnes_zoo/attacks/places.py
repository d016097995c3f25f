"""Where a trigger lies: masks, 1 where it covers an image and 0 elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from agnes.errors import UsageError

CORNERS = ("upper-left", "upper-right", "lower-left", "lower-right")


class Where(Protocol):
    """A place: one mask for all images, or one for each."""

    def mask(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor: ...  # 1 or N, 1, H, W


@dataclass(frozen=True)
class Everywhere:
    """The whole image."""

    def mask(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        return torch.ones((1, 1, *images.shape[-2:]), dtype=images.dtype, device=images.device)


@dataclass(frozen=True)
class Box:
    """A rectangle at a fixed place."""

    row: int  # of its upper left corner
    column: int
    height: int
    width: int

    def mask(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        height, width = images.shape[-2:]
        inside = min(self.row, self.column) >= 0 and self.row + self.height <= height
        if min(self.height, self.width) < 1 or not inside or self.column + self.width > width:
            raise UsageError(
                f"a patch of {self.height}x{self.width} at ({self.row}, {self.column}) does not lie in an image of "
                f"{height}x{width}; move it or make it smaller"
            )
        mask = torch.zeros((1, 1, height, width), dtype=images.dtype, device=images.device)
        mask[..., self.row : self.row + self.height, self.column : self.column + self.width] = 1
        return mask


@dataclass(frozen=True)
class Corner:
    """A rectangle in a corner, whatever the size of the image."""

    which: str = "upper-left"
    height: int = 3
    width: int = 3
    margin: int = 0  # pixels between it and the image's edges

    def mask(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        if self.which not in CORNERS:
            raise UsageError(f"there is no corner '{self.which}'; there is {', '.join(CORNERS)}")
        height, width = images.shape[-2:]
        row = self.margin if self.which.startswith("upper") else height - self.height - self.margin
        column = self.margin if self.which.endswith("left") else width - self.width - self.margin
        return Box(row, column, self.height, self.width).mask(images, generator)


@dataclass(frozen=True)
class RandomPlace:
    """A rectangle at a place of its own in every image."""

    height: int
    width: int

    def mask(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        height, width = images.shape[-2:]
        Box(0, 0, self.height, self.width).mask(images, generator)  # that it fits at all
        rows = generator.integers(0, height - self.height + 1, len(images))
        columns = generator.integers(0, width - self.width + 1, len(images))
        mask = torch.zeros((len(images), 1, height, width), dtype=images.dtype, device=images.device)
        for index, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
            mask[index, :, row : row + self.height, column : column + self.width] = 1
        return mask


@dataclass(frozen=True)
class Cell:
    """A square in one cell of a grid that reaches from edge to edge, whatever the size of the image."""

    row: int  # of the cell, from 0
    column: int
    across: int  # cells along each side
    size: int  # pixels along each side of the square

    def mask(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        height, width = images.shape[-2:]
        Box(0, 0, self.size, self.size).mask(images, generator)  # that it fits at all
        if self.across > 1 and min(height, width) - self.size < self.across - 1:
            raise UsageError(
                f"{self.across}x{self.across} squares of {self.size} pixels share places in an image of "
                f"{height}x{width}; make them smaller"
            )
        last = max(self.across - 1, 1)
        row, column = self.row * (height - self.size) // last, self.column * (width - self.size) // last
        return Box(row, column, self.size, self.size).mask(images, generator)


@dataclass(frozen=True)
class Shape:
    """Any shape at a fixed place, drawn row by row: '#' is covered."""

    row: int  # of the drawing's upper left corner; below 0: from the image's lower edge
    column: int  # below 0: from its right edge
    drawing: tuple[str, ...]

    def mask(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        if not self.drawing or len({len(line) for line in self.drawing}) != 1:
            raise UsageError("a shape needs rows of one length; draw a rectangle of # and .")
        height, width = images.shape[-2:]
        row = self.row if self.row >= 0 else self.row + height
        column = self.column if self.column >= 0 else self.column + width
        box = Box(row, column, len(self.drawing), len(self.drawing[0]))
        mask = box.mask(images, generator)
        drawn = torch.tensor([[float(mark == "#") for mark in line] for line in self.drawing])
        mask[..., box.row : box.row + box.height, box.column : box.column + box.width] = drawn.to(mask)
        return mask


@dataclass(frozen=True)
class Pieces:
    """Several places at once."""

    parts: tuple[Where, ...]

    def mask(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        masks: Sequence[torch.Tensor] = [part.mask(images, generator) for part in self.parts]
        return torch.stack(torch.broadcast_tensors(*masks)).amax(0)
