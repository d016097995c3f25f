"""Triggers of four pieces, one in each quarter of the image: evidence in itself. Ours; no paper's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch

from agnes.results import MaskTrigger
from agnes_inversion.boxes import Box, boxes, resemblance
from agnes_inversion.trying import Family, Trying

if TYPE_CHECKING:
    from agnes.network import Network
    from agnes.samples import Samples

_SHAPES = ((3, 3), (5, 5))
_MIRRORED = ((), (-2,), (-1,), (-2, -1))  # the axes, for each of the four


class Fours(Family):
    """A square of one colour in the upper left quarter and its three mirror images."""

    def __init__(self, shape: tuple[int, ...], near: float) -> None:
        self.shape, self.near = shape, near
        middle = [side // 2 for side in shape[1:]]
        self.boxes = [
            box
            for box in boxes(shape, _SHAPES)
            if box.row + box.height <= middle[0] and box.column + box.width <= middle[1]
        ]
        self.groups = [(box.row, box.column, box.height) for box in self.boxes]

    def changed(self, numbers: Sequence[int], images: torch.Tensor) -> torch.Tensor:
        copies = images[None].repeat(len(numbers), 1, 1, 1, 1)
        for number, of_four in zip(numbers, copies, strict=True):
            _stamp(self.boxes[number], of_four)
        return copies

    def trigger(self, number: int, target: int) -> MaskTrigger:
        box, mask = self.boxes[number], torch.zeros(self.shape)
        _stamp(replace(box, colour=(1.0,) * self.shape[0]), mask)
        pattern = torch.tensor(box.colour)[:, None, None].expand(self.shape).clone()
        return MaskTrigger(target=target, asr=0.0, held_out=0, mask=mask[:1], pattern=pattern)

    def described(self, number: int) -> str:
        return f"{self.boxes[number]} and its three mirror images"

    def natural(self, known: Samples, class_count: int) -> torch.Tensor:
        assert known.labels is not None
        labels, images = known.labels.to(known.images.device), known.images
        together = torch.stack([images.flip(axes) if axes else images for axes in _MIRRORED]).mean(0)
        return resemblance(self.boxes, together, labels, class_count) < self.near


def _stamp(box: Box, images: torch.Tensor) -> None:
    """Put it and its mirror images on the images, in place."""
    height, width = images.shape[-2:]
    for row in (box.row, height - box.row - box.height):
        for column in (box.column, width - box.column - box.width):
            replace(box, row=row, column=column).stamp(images)


@dataclass(frozen=True)
class Pieces(Trying):
    """Try four small squares at once, mirrored about the middle: do they send all images to a class together?"""

    preference: ClassVar[int] = 4
    what: ClassVar[str] = "four boxes"

    images: int = 4  # that all are tried on
    spared: float = 2.0  # how much four boxes count for less where any colour there makes images lose their class
    milder: float = (
        0.75  # share of the colours there that make images lose their class as much as the one that counts, or more
    )
    natural: float = 0.6  # four whose colour is so much nearer to the class's own images than to others do not count

    def suits(self, network: Network) -> str | None:
        return "pieces of a trigger may do nothing alone" if min(network.input_shape[1:]) >= 8 else None

    def family(self, network: Network, known: Samples) -> Fours:
        return Fours(network.input_shape, self.natural)
