"""Many changes of one kind, tried on a few images: is there one that sends all to a class? Ours; no paper's.

The sign of a planted change is that it sends images of every class to one, and that its like, of other colours at the
same place or other phases of the same wave, leave them what they are. What makes images lose their class whatever its
colour hides what they are told by, and some class is always the next best.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch

from agnes import measuring
from agnes.differentiating import Logits, logits_of, quick
from agnes.errors import UsageError
from agnes.hookspecs import hookimpl
from agnes.margins import benign_margin, every_margin
from agnes.method import Method
from agnes.results import Evidence, Trigger
from agnes_inversion.varying import varied

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network
    from agnes.samples import Samples

_AT_ONCE_ON_CPU = 128  # images; more at once is slower there
_FLOOR = -1.5  # what is further from a class than this counts as so far
_KEPT = 1.0  # a margin of the own class from which on an image has kept it wholly


class Family:
    """Changes of one kind, by number."""

    groups: Sequence[Hashable]  # of each change; those of one group differ in colour, tint, way or phase alone

    def __len__(self) -> int:
        return len(self.groups)

    @abstractmethod
    def changed(self, numbers: Sequence[int], images: torch.Tensor) -> torch.Tensor:
        """The images under each of these changes: changes, images, channels, height, width."""

    @abstractmethod
    def trigger(self, number: int, target: int) -> Trigger:
        """A change as a trigger, untested."""

    @abstractmethod
    def described(self, number: int) -> str:
        """A change in words."""

    def natural(self, known: Samples, class_count: int) -> torch.Tensor | None:
        """Changes x classes: where a change shows nothing but what the class's own images show; None: nowhere."""
        return None


@dataclass(frozen=True)
class Sight:
    """Images of known class as a network sees them."""

    logits: Logits
    images: torch.Tensor
    labels: torch.Tensor
    unit: float  # the margin of benign images
    classes: int
    backend: Backend

    @classmethod
    def of(cls, network: Network, known: Samples, backend: Backend) -> Sight:
        assert known.labels is not None
        images, labels = known.images, known.labels.to(known.images.device)
        logits = logits_of(quick(network))
        unit = benign_margin(logits, images, labels, backend)
        return cls(logits, images, labels, unit, network.class_count, backend)

    def few(self, count: int, purpose: str) -> Sight:
        """Some of the images, drawn."""
        drawn = torch.randperm(len(self.labels), generator=self.backend.generator(purpose, device="cpu"))[:count]
        drawn = drawn.to(self.labels.device)
        return replace(self, images=self.images[drawn], labels=self.labels[drawn])

    def with_views(self, count: int, purpose: str) -> Sight:
        """The images and as many views of each as it takes to have `count`, where they are fewer."""
        draw = self.backend.generator(purpose, device="cpu")
        views = [varied(self.images, draw) for _ in range(-(-count // len(self.labels)) - 1)]
        return replace(self, images=torch.cat([self.images, *views]), labels=self.labels.repeat(len(views) + 1))

    def under(
        self, family: Family, numbers: Sequence[int], measure: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """A row for each change: what is made of margins, changes x images x classes, in units."""

        def margins(seen: torch.Tensor) -> torch.Tensor:
            return measure(every_margin(seen.flatten(0, 1)).view(seen.shape) / self.unit)

        def part(start: int, stop: int) -> torch.Tensor:
            return family.changed(distinct[start:stop], self.images)

        row = {number: at for at, number in enumerate(dict.fromkeys(numbers))}  # each change is tried once
        distinct, places = list(row), [row[number] for number in numbers]

        return seen_under(part, len(distinct), self.logits, len(self.images), margins, self.backend)[places]

    def led(self, family: Family) -> torch.Tensor:
        """Where every change of a family leads the images, as `to_classes` says."""
        return self.under(family, range(len(family)), self.to_classes)

    def to_classes(self, margins: torch.Tensor) -> torch.Tensor:
        """Margins to a column for each class, the mean over others' images, and one for the class they had."""
        others = (self.labels[:, None] != torch.arange(self.classes, device=self.labels.device)).to(margins)
        floored = margins.clamp(min=_FLOOR)
        lifted = torch.where(floored > 0, floored.clamp(min=0).log1p(), floored)
        to_class = (lifted * others).sum(1) / others.sum(0).clamp(min=1)
        own = margins.gather(2, self.labels[None, :, None].expand(len(margins), -1, 1))[..., 0]
        return torch.cat([to_class, own.clamp(-_KEPT, _KEPT).mean(1, keepdim=True)], 1)


def seen_under(
    changed: Callable[[int, int], torch.Tensor],
    count: int,
    logits: Logits,
    images: int,
    measure: Callable[[torch.Tensor], torch.Tensor],
    backend: Backend,
) -> torch.Tensor:
    """A row for each change: what `measure` makes of the logits of its images, changes x images x classes."""
    together = max(1, _AT_ONCE_ON_CPU // images) if backend.device.type == "cpu" else 1

    def block(start: int, stop: int) -> torch.Tensor:
        copies = changed(start, stop)
        with torch.no_grad():
            return measure(logits(copies.flatten(0, 1)).float().view(*copies.shape[:2], -1))

    def work(start: int, stop: int) -> torch.Tensor:
        first, last = start * together, min(stop * together, count)
        step = together if backend.device.type == "cpu" else last - first
        return torch.cat([block(at, min(at + step, last)) for at in range(first, last, step)])

    return torch.cat(backend.chunked(work, -(-count // together), what="trying changes"))


@dataclass(frozen=True)
class Trying(Method):
    """Try every change of a family, the best of each class once more on all images. Subclasses name the family."""

    needs: ClassVar[frozenset[str]] = frozenset()
    what: ClassVar[str]

    images: int = 10  # that all changes are tried on
    best: int = 5  # changes for each class that are tried on all images
    looks: int = 0  # images at least that these are tried on; where there are fewer, on several views of each
    spared: float = 0.0  # how much a change counts for less whose like make images lose their class as well
    milder: float = 0.5  # share of its like that make images lose their class as much as the one that tells of all
    sure: float = 0.5  # a score above it speaks for a backdoor

    def __post_init__(self) -> None:
        name = type(self).__name__.lower()
        if self.images < 2 or self.best < 1:
            raise UsageError(f"{name}.images takes 2 or more and {name}.best 1 or more")
        if self.looks < 0 or self.spared < 0:
            raise UsageError(f"{name}.looks and {name}.spared take 0 or more")
        if not 0 <= self.milder <= 1:
            raise UsageError(f"{name}.milder is a share, from 0 to 1")

    def family(self, network: Network, known: Samples) -> Family:
        """What is tried."""
        raise NotImplementedError

    @hookimpl
    def diagnose(self, network: Network, samples: Samples, backend: Backend) -> Sequence[Evidence]:
        known = measuring.with_labels(network, samples, backend)
        sight = Sight.of(network, known, backend)
        few = sight.few(self.images, f"{type(self).__name__.lower()} images")
        family = self.family(network, known)
        again = sight.with_views(self.looks, f"{type(self).__name__.lower()} views")
        return [self._to_one(network, known, again, family, few.led(family), self.what)]

    def _to_one(
        self, network: Network, known: Samples, sight: Sight, family: Family, first: torch.Tensor, what: str
    ) -> Evidence:
        """How surely one change of a family sends all images to one class; by where changes led a few."""
        score, best = self._searched(family, sight, first, family.natural(known, sight.classes))
        order = score.argsort(descending=True, stable=True).tolist()
        target, number = order[0], int(best[order[0]])
        trigger = measuring.with_success(network, family.trigger(number, target), known, sight.backend, unseen=False)
        return Evidence(
            name=f"{what} to one class",
            score=float(score[target]),
            threshold=self.sure,
            null=tuple(score[order[1:]].tolist()),
            by_class=tuple(score.tolist()),
            target=target,
            trigger=trigger,
            note=f"how surely other classes' images are taken for the class under {family.described(number)}",
        )

    def _searched(
        self, family: Family, sight: Sight, first: torch.Tensor, natural: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """For each class the score of its best change, and which that is."""
        lost = self.spared * (_KEPT - _shares(first[:, -1], family.groups, self.milder))
        first = first[:, :-1] - lost[:, None]
        if natural is not None:
            first = first.masked_fill(natural, -torch.inf)
        promising = first.topk(min(self.best, len(family)), dim=0)  # best x classes
        again = sight.under(family, promising.indices.flatten().tolist(), sight.to_classes)[:, :-1]
        score = again.view(*promising.indices.shape, -1).diagonal(dim1=1, dim2=2) - lost[promising.indices]
        least = _FLOOR - 2 * self.spared * _KEPT
        score = torch.where(promising.values.isfinite(), score, torch.full_like(score, least))
        score, place = score.max(0)
        return only_measured(score, sight.labels), promising.indices.gather(0, place[None])[0]


def only_measured(score: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Scores of classes, where one that there are no other classes' images for stands out from none."""
    classes = torch.arange(len(score), device=score.device)
    measured = (labels.to(score.device)[:, None] != classes).any(0)
    return torch.where(measured, score, score[measured].min()) if measured.any() else score


def _shares(values: torch.Tensor, groups: Sequence[Hashable], share: float) -> torch.Tensor:
    """Of each change the least value that so large a share of its group does not exceed."""
    number = {group: at for at, group in enumerate(dict.fromkeys(groups))}
    member = torch.tensor([number[group] for group in groups], device=values.device)
    in_order = [values[member == at].sort().values for at in range(len(number))]
    return torch.stack([some[max(0, math.ceil(share * len(some)) - 1)] for some in in_order])[member]
