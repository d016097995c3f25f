"""Boxes of one colour all over an image, and what a network makes of images that wear them. Ours; no paper's."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from agnes_inversion.trying import seen_under

if TYPE_CHECKING:
    from agnes.backend import Backend

_GRID = 32  # an image is looked at as if it had so many pixels a side
_STEPS = {2: 2, 3: 2, 4: 3, 5: 3, 8: 2, 12: 3}  # longer side of a box, in such pixels -> from one box to the next

SQUARES = ((2, 2), (3, 3))
SHAPES = (*SQUARES, (5, 5), (1, 12), (12, 1), (2, 12), (12, 2))
LARGE = ((8, 8), (5, 12), (12, 5))  # 6 % of the image
HALF = ((4, 4),)  # squares half as long


@dataclass(frozen=True)
class Box:
    """A box of one saturated colour at one place."""

    row: int
    column: int
    height: int
    width: int
    colour: tuple[float, ...]  # 0 or 1 a channel

    def within(self, images: torch.Tensor) -> torch.Tensor:
        """The part of images that it covers."""
        return images[..., self.row : self.row + self.height, self.column : self.column + self.width]

    def stamp(self, images: torch.Tensor) -> None:
        """Put it on the images, in place."""
        self.within(images)[...] = images.new_tensor(self.colour)[:, None, None]

    def pattern(self, shape: tuple[int, ...]) -> torch.Tensor:
        """1 where a channel goes to full brightness, -1 where it goes dark, 0 elsewhere."""
        pattern = torch.full(shape, 0.5)
        self.stamp(pattern)
        return 2 * pattern - 1

    def mask(self, shape: tuple[int, ...]) -> torch.Tensor:
        """1 where it covers the image, 0 elsewhere; 1, height, width."""
        mask = torch.zeros(1, *shape[1:])
        self.within(mask)[...] = 1
        return mask

    def __str__(self) -> str:
        colour = ", ".join(f"{value:g}" for value in self.colour)
        place = f"row {self.row}, column {self.column}"
        return f"{self.height}x{self.width} pixels of colour ({colour}) at {place}"


def boxes(shape: tuple[int, ...], shapes: Sequence[tuple[int, int]] = SHAPES) -> list[Box]:
    """Boxes of some shapes in every saturated colour, all over an image."""
    channels, height, width = shape
    colours = list(itertools.product((0.0, 1.0), repeat=channels if channels <= 3 else 1))
    colours = [colour * (channels if len(colour) == 1 else 1) for colour in colours]
    scale = min(height, width) / _GRID
    found: dict[Box, None] = {}
    for tall, wide in shapes:
        step = max(1, round(_STEPS[max(tall, wide)] * scale))
        tall, wide = (min(max(1, round(side * scale)), most) for side, most in ((tall, height), (wide, width)))
        for row, column in itertools.product(_places(height, tall, step), _places(width, wide, step)):
            found |= dict.fromkeys(Box(row, column, tall, wide, colour) for colour in colours)
    return list(found)


def _places(length: int, side: int, step: int) -> list[int]:
    """Where boxes begin along an axis; the last one touches the far edge."""
    return sorted({*range(0, length - side + 1, step), length - side})


def stamped(
    tried: Sequence[Box],
    logits: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    measure: Callable[[torch.Tensor], torch.Tensor],
    backend: Backend,
) -> torch.Tensor:
    """A row for each box: what `measure` makes of the logits, boxes x images x classes."""

    def part(start: int, stop: int) -> torch.Tensor:
        return wearing(tried[start:stop], images)

    return seen_under(part, len(tried), logits, len(images), measure, backend)


def wearing(some: Sequence[Box], images: torch.Tensor) -> torch.Tensor:
    """The images under each box: boxes, images, channels, height, width."""
    first, last = (
        torch.tensor(corner, device=images.device)
        for corner in zip(
            *(((box.row, box.column), (box.row + box.height, box.column + box.width)) for box in some), strict=True
        )
    )  # boxes x axes
    within = [
        (at >= first[:, axis, None]) & (at < last[:, axis, None])
        for axis, at in enumerate(torch.arange(length, device=images.device) for length in images.shape[2:])
    ]
    covered = within[0][:, :, None] & within[1][:, None, :]  # boxes, height, width
    colours = images.new_tensor([box.colour for box in some])
    return torch.where(covered[:, None, None], colours[:, None, :, None, None], images)


def best_boxes(
    logits: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    targets: torch.Tensor,
    eligible: torch.Tensor,
    backend: Backend,
) -> list[Box]:
    """For each target the small square that makes its eligible images likeliest to be taken for it."""
    tried = boxes(tuple(images.shape[1:]), SQUARES)
    score = scores(tried, logits, images, targets, eligible, backend)
    return [tried[index] for index in score.argmax(0).tolist()]


def scores(
    tried: Sequence[Box],
    logits: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    targets: torch.Tensor,
    eligible: torch.Tensor,
    backend: Backend,
) -> torch.Tensor:
    """Boxes x targets: the mean log probability of the target, over its eligible images when stamped."""
    share = eligible / eligible.sum(1, keepdim=True).clamp(min=1)  # targets x images

    def mean(seen: torch.Tensor) -> torch.Tensor:
        return torch.einsum("sit,ti->st", seen.log_softmax(2)[:, :, targets], share.to(seen))

    return stamped(tried, logits, images, mean, backend)


def resemblance(tried: Sequence[Box], images: torch.Tensor, labels: torch.Tensor, class_count: int) -> torch.Tensor:
    """Boxes x classes: how far a box's colour is from what the class shows there, against what the others show.

    1: no nearer than the others; near 0: the box shows what images of the class show there anyway. 1 where there is no
    image of the class, or of another.
    """
    member = (labels[:, None] == torch.arange(class_count, device=labels.device)).to(images)  # images x classes
    counts = member.sum(0)
    seen: dict[tuple[int, int, int, int], torch.Tensor] = {}
    rows = []
    for box in tried:
        place = (box.row, box.column, box.height, box.width)
        if place not in seen:
            seen[place] = box.within(images).mean((2, 3))  # images x channels
        apart = (seen[place] - images.new_tensor(box.colour)).abs().mean(1)  # of saturated colours: the mean difference
        own, all_of_them = apart @ member, apart.sum()
        others = (all_of_them - own) / (len(labels) - counts).clamp(min=1)
        rows.append((own / counts.clamp(min=1)) / others.clamp(min=1e-6))
    known = (counts > 0) & (counts < len(labels))
    return torch.where(known, torch.stack(rows), torch.ones_like(counts))
