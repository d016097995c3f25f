"""What is kept of stimulation functions as images pass: never the functions of all images at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from agnes.layers import Layer
    from agnes_stimulation.nsf import Curves

_UNSEEN, _SPLIT = -1, -2  # in place of a class: no image yet, or images that disagree


@dataclass(frozen=True)
class Benign:
    """The images, their classes, and what the network says of them undisturbed."""

    images: torch.Tensor = field(repr=False)
    classes: torch.Tensor = field(repr=False)
    logits: torch.Tensor = field(repr=False)

    def __len__(self) -> int:
        return len(self.images)

    def part(self, images: slice | torch.Tensor) -> Benign:
        return Benign(self.images[images], self.classes[images], self.logits[images])

    @property
    def own(self) -> torch.Tensor:
        """Images x classes: which class each image is of."""
        return torch.nn.functional.one_hot(self.classes, self.logits.shape[1]).bool()


@dataclass(frozen=True)
class Summary:
    """Of some channels, over some images: all that a score, a target and a range need."""

    layer: Layer
    channels: torch.Tensor = field(repr=False)  # their numbers
    values: torch.Tensor = field(repr=False)  # channels, values
    lowest: torch.Tensor = field(repr=False)  # channels, classes: the elevation on the image that is lifted least
    margins: torch.Tensor = field(repr=False)  # channels, classes: least lead of a class's lift over any other's
    winners: torch.Tensor = field(repr=False)  # channels, values: the class that wins on all images, or none
    means: torch.Tensor = field(repr=False)  # channels, values | 0, classes: the logits' mean over the images
    images: int = 0

    @classmethod
    def joined(cls, parts: Sequence[Summary]) -> Summary:
        """Channels of one layer over the same images."""
        names = ("channels", "values", *_KEPT)
        return replace(parts[0], **{name: torch.cat([getattr(part, name) for part in parts]) for name in names})

    def of(self, rows: torch.Tensor) -> Summary:
        """Some of the channels."""
        parts = {name: getattr(self, name)[rows] for name in ("channels", "values", *_KEPT)}
        return replace(self, **parts)

    def with_images(self, other: Summary) -> Summary:
        """The same channels over the images of both."""
        count = self.images + other.images
        means = self.means + (other.means - self.means) * (other.images / count)
        winners = _agreed(self.winners, other.winners)
        lowest, margins = self.lowest.minimum(other.lowest), self.margins.minimum(other.margins)
        return replace(self, lowest=lowest, margins=margins, winners=winners, means=means, images=count)


_KEPT = ("lowest", "margins", "winners", "means")


class Tally:
    """Takes logits block by block, and keeps of each image how far each class was lifted."""

    def __init__(
        self, layer: Layer, channels: torch.Tensor, values: torch.Tensor, benign: Benign, means: bool = True
    ) -> None:
        count, sampled, classes = len(channels), values.shape[-1], benign.logits.shape[1]
        device = benign.logits.device
        self.layer, self.channels, self.benign = layer, channels, benign
        self.values = values.expand(count, sampled)
        self._lifts = torch.empty(count, len(benign), classes, device=device)
        self._winners = torch.full((count, sampled), _UNSEEN, device=device)
        self._sums = torch.zeros(count, sampled if means else 0, classes, device=device)

    @staticmethod
    def size(values: int, images: int, classes: int) -> int:
        """Bytes for one channel, with what the summary makes of it."""
        return 4 * (3 * images * classes + 2 * values * classes + 2 * values)

    def take(self, rows: slice, images: slice, logits: torch.Tensor) -> None:
        """Logits of channels x values x images x classes."""
        self._lifts[rows, images] = logits.amax(1) - self.benign.logits[images]
        if self._sums.numel():
            self._sums[rows] += logits.sum(2)
        won = logits.argmax(3)
        agreed = won[..., 0].masked_fill((won != won[..., :1]).any(2), _SPLIT)
        self._winners[rows] = _agreed(self._winners[rows], agreed)

    @property
    def largest(self) -> float:
        """The largest lift or fall of any class on any image."""
        return float(self._lifts.abs().amax()) if self._lifts.numel() else 0.0

    def leads(self, targets: torch.Tensor) -> torch.Tensor:
        """By how much each channel's target is lifted more than any other class on each image: channels, images."""
        at = targets[:, None, None].expand(-1, self._lifts.shape[1], 1)
        others = self._lifts.scatter(2, at, -torch.inf).amax(2)
        return self._lifts.gather(2, at)[..., 0] - others

    def summary(self, quantile: float = 0.0) -> Summary:
        """What came of it; of the elevations, a quantile over the images in place of the lowest."""
        own = self.benign.own
        lowest = elevations(self._lifts, own, quantile)
        means = self._sums / len(self.benign)
        margins = least_leads(self._lifts, own)
        return Summary(self.layer, self.channels, self.values, lowest, margins, self._winners, means, len(self.benign))


def summary_of(curves: Curves, benign: Benign, quantile: float = 0.0) -> Summary:
    """What a score needs of functions that are there as a whole."""
    tally = Tally(curves.layer, curves.channels, curves.values, benign)
    tally.take(slice(None), slice(None), curves.logits)
    return tally.summary(quantile)


def elevations(lifts: torch.Tensor, own: torch.Tensor, quantile: float = 0.0) -> torch.Tensor:
    """How far each channel lifts each class on the image it lifts least: channels, classes (ABS, algorithm 1).

    Images of a class do not count for that class. A class that all images are of was not measured: inf.
    """
    lifts = lifts.masked_fill(own, float("inf"))
    return lifts.amin(1) if quantile == 0 else _quantile(lifts, (~own).sum(0), quantile)


def least_leads(lifts: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """By how much each class is lifted more than every other, on the image where that is least: channels, classes."""
    two = lifts.topk(2, dim=-1)
    largest, second = two.values.unbind(-1)
    leads = lifts - largest[..., None]
    leads.scatter_(-1, two.indices[..., :1], (largest - second)[..., None])
    return leads.masked_fill_(own, float("inf")).amin(1)


def _agreed(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The class that wins on both sides."""
    agreed = torch.where(one == other, one, torch.full_like(one, _SPLIT))
    return torch.where(one == _UNSEEN, other, torch.where(other == _UNSEEN, one, agreed))


def _quantile(lifts: torch.Tensor, counts: torch.Tensor, quantile: float) -> torch.Tensor:
    """A quantile over the images that count for each class, between neighbours by proportion."""
    ordered = lifts.sort(1).values
    place = quantile * (counts.clamp(min=1) - 1)
    below = place.floor().long()
    above = place.ceil().long()
    lower = ordered.gather(1, below.expand(len(lifts), 1, -1))[:, 0]
    upper = ordered.gather(1, above.expand(len(lifts), 1, -1))[:, 0]
    return torch.lerp(lower, upper, (place - below).to(lower.dtype)).where(counts > 0, torch.inf)
