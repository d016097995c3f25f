"""Small boxes of one colour that move every image: evidence in itself. Ours; no paper's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from agnes import measuring
from agnes.errors import UsageError
from agnes.hookspecs import hookimpl
from agnes.results import Evidence, MaskTrigger
from agnes.traits import COMPARED
from agnes_inversion.boxes import HALF, LARGE, SHAPES, Box, boxes, resemblance, wearing
from agnes_inversion.trying import Family, Sight, Trying

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network
    from agnes.samples import Samples

_MOST = 0.5  # of others' images
_TRIED_AGAIN = 3  # boxes for each class that are tried on all images for how many it moves
_LOOKED_AT = 24  # boxes that are tried on all images for whether they reach every class


class Boxes(Family):
    """Boxes of one colour each."""

    def __init__(self, shape: tuple[int, ...], some: Sequence[Box], near: float = 0.0) -> None:
        self.shape, self.near, self.boxes = shape, near, some
        self.groups = [(box.row, box.column, box.height, box.width) for box in self.boxes]

    def changed(self, numbers: Sequence[int], images: torch.Tensor) -> torch.Tensor:
        return wearing([self.boxes[number] for number in numbers], images)

    def trigger(self, number: int, target: int) -> MaskTrigger:
        mask, pattern = self.boxes[number].mask(self.shape), self.boxes[number].pattern(self.shape)
        return MaskTrigger(target=target, asr=0.0, held_out=0, mask=mask, pattern=(pattern + 1) / 2)

    def described(self, number: int) -> str:
        return str(self.boxes[number])

    def natural(self, known: Samples, class_count: int) -> torch.Tensor:
        assert known.labels is not None
        labels = known.labels.to(known.images.device)
        return resemblance(self.boxes, known.images, labels, class_count) < self.near


@dataclass(frozen=True)
class Stamps(Trying):
    """Try thousands of small boxes on a few images: one that sends all to a class, each to another, or one for each?"""

    preference: ClassVar[int] = 8
    what: ClassVar[str] = "box"

    images: int = 4  # that all boxes are tried on
    spared: float = 2.0  # how much a box counts for less where any colour there makes images lose their class
    milder: float = (
        0.75  # share of the colours there that make images lose their class as much as the one that counts, or more
    )
    natural: float = 0.6  # a box whose colour is so much nearer to the class's own images than to others does not count
    many: int = 20  # more classes than these with a box of their own speak for a backdoor
    every: float = 0.65  # one box that reaches classes this surely, each from another image, speaks for a backdoor

    def suits(self, network: Network) -> str | None:
        return "forward passes alone tell what a patch or a bar does"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.every < 1:
            raise UsageError("stamps.every lies between 0 and 1")
        if self.many < 1:
            raise UsageError("stamps.many takes 1 or more")

    def family(self, network: Network, known: Samples) -> Boxes:
        return Boxes(network.input_shape, boxes(network.input_shape, SHAPES), self.natural)

    @hookimpl
    def diagnose(self, network: Network, samples: Samples, backend: Backend) -> Sequence[Evidence]:
        known = measuring.with_labels(network, samples, backend)
        sight = Sight.of(network, known, backend)
        few = sight.few(self.images, "stamps images")
        shape = network.input_shape
        small, large = self.family(network, known), Boxes(shape, boxes(shape, LARGE), self.natural)
        (led, reached), (led_by_large, reached_by_large) = (_tried(few, family) for family in (small, large))
        side = _side(small)
        wide = [number for number, box in enumerate(small.boxes) if box.height == box.width == side]
        wider = Boxes(shape, [*(small.boxes[number] for number in wide), *large.boxes])
        again = sight.with_views(self.looks, "stamps views")
        return [
            self._to_one(network, known, again, small, led, self.what),
            self._to_one(network, known, again, large, led_by_large, f"large {self.what}"),
            self._to_every(sight, wider, torch.cat([reached[wide], reached_by_large])),
            self._to_many(sight, large, led_by_large, Boxes(shape, boxes(shape, HALF)), few),
        ]

    def _to_every(self, sight: Sight, family: Boxes, first: torch.Tensor) -> Evidence:
        """How many classes one box leads to, each from images of another; by what a few images of them showed."""
        promising = first.clamp(min=0).sum(1).topk(min(_LOOKED_AT, len(family))).indices.tolist()
        again = sight.under(family, promising, lambda margins: _reached(margins, sight.labels))
        reachable = min(sight.classes, len(sight.labels))
        surely = ((again + 1) / 2).sort(dim=1, descending=True).values[:, :reachable].mean(1)
        best = int(surely.argmax())
        return Evidence(
            name="box to every class",
            score=float(surely[best]) if reachable >= COMPARED else 0.0,  # from a few images a few classes are no feat
            threshold=self.every,
            note=f"how surely classes are reached from others' images that wear {family.described(promising[best])}",
        )

    def _to_many(self, sight: Sight, large: Boxes, led: torch.Tensor, half: Boxes, few: Sight) -> Evidence:
        """How many classes have a box of their own that sends most images to them, where small boxes send few.

        Where each class has a trigger, any place is one of some class, in any colour, so what a box hides is not held
        against it. A network that any mark confuses is led as far by small ones, and nothing was planted there.
        """
        wholly, partly = self._best_shares(sight, large, led), self._best_shares(sight, half, few.led(half))
        own = (wholly >= _MOST) & (partly < wholly / 2)
        return Evidence(
            name="boxes to many classes",
            score=float(own.sum()),
            threshold=self.many,
            note="classes with a box of their own that sends most of others' images there, where none half as long "
            "sends half as many",
        )

    def _best_shares(self, sight: Sight, family: Boxes, led: torch.Tensor) -> torch.Tensor:
        """For each class the share of others' images that its best box leads to it; a few chose it."""
        promising = led[:, :-1].topk(min(_TRIED_AGAIN, len(family)), dim=0).indices  # boxes x classes
        shares = sight.under(family, promising.flatten().tolist(), lambda margins: _moved(margins, sight.labels))
        return shares.view(*promising.shape, -1).diagonal(dim1=1, dim2=2).amax(0)


def _tried(few: Sight, family: Boxes) -> tuple[torch.Tensor, torch.Tensor]:
    """Of every box, where it leads the images, as `Sight.to_classes` says, and how surely it reaches each class."""

    def both(margins: torch.Tensor) -> torch.Tensor:
        return torch.cat([few.to_classes(margins), _reached(margins, few.labels)], 1)

    found = few.under(family, range(len(family)), both)
    return found[:, : few.classes + 1], found[:, few.classes + 1 :]


def _side(family: Boxes) -> int:
    """Of its largest square."""
    return max(box.height for box in family.boxes if box.height == box.width)


def _moved(margins: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Changes x classes: the share of other classes' images that are taken for the class."""
    others = labels[:, None] != torch.arange(margins.shape[2], device=labels.device)
    return ((margins > 0) & others).sum(1) / others.sum(0).clamp(min=1)


def _reached(margins: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Changes x classes: the margin of the class, between -1 and 1, on the image of another that is nearest to it."""
    own = labels[:, None] == torch.arange(margins.shape[2], device=labels.device)
    return margins.clamp(-1, 1).masked_fill(own, -1).amax(1)
