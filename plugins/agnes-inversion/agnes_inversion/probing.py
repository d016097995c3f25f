"""Where a small square of one colour moves all images: starting points for the search. Ours; no paper's."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from agnes.backend import Backend

_GRID = 32  # an image is looked at as if it had so many pixels a side
_SIDES = (2, 3)  # of the squares, in such pixels
_STEP = 2  # from one square to the next, in such pixels
_AT_ONCE_ON_CPU = 128  # images; more at once is slower there


@dataclass(frozen=True)
class Square:
    """A square of one saturated colour at one place."""

    row: int
    column: int
    side: int
    colour: tuple[float, ...]  # 0 or 1 a channel

    def stamp(self, images: torch.Tensor) -> None:
        """Put it on the images, in place."""
        window = images[..., self.row : self.row + self.side, self.column : self.column + self.side]
        window[...] = images.new_tensor(self.colour)[:, None, None]

    def pattern(self, shape: tuple[int, ...]) -> torch.Tensor:
        """1 where a channel goes to full brightness, -1 where it goes dark, 0 elsewhere."""
        pattern = torch.full(shape, 0.5)
        self.stamp(pattern)
        return 2 * pattern - 1


def squares(shape: tuple[int, ...]) -> list[Square]:
    """Two sizes of square in every saturated colour, all over an image."""
    channels, height, width = shape
    colours = list(itertools.product((0.0, 1.0), repeat=channels if channels <= 3 else 1))
    colours = [colour * (channels if len(colour) == 1 else 1) for colour in colours]
    scale = min(height, width) / _GRID
    found = []
    for side in dict.fromkeys(max(1, round(side * scale)) for side in _SIDES):
        step = max(1, round(_STEP * scale))
        rows, columns = _places(height, side, step), _places(width, side, step)
        found += [Square(row, column, side, colour) for row in rows for column in columns for colour in colours]
    return found


def _places(length: int, side: int, step: int) -> list[int]:
    """Where squares begin along an axis; the last one touches the far edge."""
    return sorted({*range(0, length - side + 1, step), length - side})


def best_squares(
    logits: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    targets: torch.Tensor,
    eligible: torch.Tensor,
    backend: Backend,
) -> list[Square]:
    """For each target the square that makes its eligible images likeliest to be taken for it."""
    tried = squares(tuple(images.shape[1:]))
    score = scores(tried, logits, images, targets, eligible, backend)
    return [tried[index] for index in score.argmax(0).tolist()]


def scores(
    tried: list[Square],
    logits: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    targets: torch.Tensor,
    eligible: torch.Tensor,
    backend: Backend,
) -> torch.Tensor:
    """Squares x targets: the mean log probability of the target, over its eligible images when stamped."""
    share = eligible / eligible.sum(1, keepdim=True).clamp(min=1)  # targets x images

    def mean(likely: torch.Tensor) -> torch.Tensor:
        return torch.einsum("sit,ti->st", likely[:, :, targets], share.to(likely))

    return stamped(tried, logits, images, mean, backend)


def stamped(
    tried: Sequence[Square],
    logits: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    measure: Callable[[torch.Tensor], torch.Tensor],
    backend: Backend,
) -> torch.Tensor:
    """A row for each square: what `measure` makes of the log probabilities, squares x images x classes."""
    together = max(1, _AT_ONCE_ON_CPU // len(images)) if backend.device.type == "cpu" else 1

    def block(number: int) -> torch.Tensor:
        part = tried[number * together : (number + 1) * together]
        copies = images[None].repeat(len(part), 1, 1, 1, 1)
        for square, of_square in zip(part, copies, strict=True):
            square.stamp(of_square)
        with torch.no_grad():
            return measure(logits(copies.flatten(0, 1)).float().log_softmax(1).view(len(part), len(images), -1))

    def work(start: int, stop: int) -> torch.Tensor:
        return torch.cat([block(number) for number in range(start, stop)])

    return torch.cat(backend.chunked(work, -(-len(tried) // together), what="probing squares"))
