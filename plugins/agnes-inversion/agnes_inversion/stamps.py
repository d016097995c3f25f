"""Small boxes of one colour that move every image: evidence in itself. Ours; no paper's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch.nn import functional

from agnes import measuring
from agnes.differentiating import Logits, logits_of, quick
from agnes.errors import UsageError
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.results import Evidence, MaskTrigger, Trigger
from agnes_inversion.boxes import Box, boxes, resemblance, stamped
from agnes_inversion.margins import benign_margin, every_margin, margin

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network
    from agnes.samples import Samples

_LOOKED_AT = 24  # boxes for each class, of which those that bear its own mark are left out
_DONORS = 4  # images whose pixels are shown in their place


@dataclass(frozen=True)
class Stamps(Method):
    """Try thousands of small boxes on a few images: is there one that sends all to a class, or away from theirs?"""

    needs: ClassVar[frozenset[str]] = frozenset()
    preference: ClassVar[int] = 8

    images: int = 4  # that all boxes are tried on
    best: int = 5  # boxes for each class that are tried on all images
    sure: float = 1.0  # a mean margin above it, in margins of benign images, speaks for a backdoor
    natural: float = 0.6  # a box whose colour is so much nearer to the class's own images than to others does not count
    mark: float = (
        0.33  # nor one where the class's own images lose so much of their margin when shown other images there
    )

    def __post_init__(self) -> None:
        if self.images < 2 or self.best < 1:
            raise UsageError("stamps.images takes 2 or more and stamps.best 1 or more")

    def suits(self, network: Network) -> str | None:
        return "forward passes alone tell what a patch or a bar does"

    @hookimpl
    def diagnose(self, network: Network, samples: Samples, backend: Backend) -> Sequence[Evidence]:
        known = measuring.with_labels(network, samples, backend)
        assert known.labels is not None
        images, labels = known.images, known.labels.to(known.images.device)
        logits, tried = logits_of(quick(network)), boxes(network.input_shape)
        unit = benign_margin(logits, images, labels, backend)
        draw = backend.generator("stamps images", device="cpu")
        few = torch.randperm(len(labels), generator=draw)[: self.images].to(labels.device)

        def scores(tried: Sequence[Box], which: torch.Tensor) -> torch.Tensor:
            return stamped(tried, logits, images[which], _measure(labels[which], unit), backend)

        first, classes = scores(tried, few), network.class_count
        own = resemblance(tried, images, labels, classes) < self.natural
        first[:, :classes] = first[:, :classes].masked_fill(own, -math.inf)
        looked_at = first[:, : classes + 1].topk(min(_LOOKED_AT, len(tried)), dim=0)  # boxes x (classes, away)
        sites = self._sites(tried, looked_at.indices[:, :classes], logits, images, labels, unit, backend)
        kept = looked_at.values.masked_fill(functional.pad(sites, (0, 1)), -math.inf)
        order = kept.topk(min(self.best, len(kept)), dim=0).indices
        promising = looked_at.indices.gather(0, order)  # best x (classes, away)
        every = torch.arange(len(labels), device=labels.device)
        again = scores([tried[index] for index in promising.flatten().tolist()], every)
        score = again.view(*promising.shape, -1)[..., : classes + 1].diagonal(dim1=1, dim2=2)
        score = torch.where(kept.gather(0, order).isfinite(), score, looked_at.values[-1:])  # no other box did better
        score, place = score.max(0)
        best = [tried[index] for index in promising.gather(0, place[None])[0].tolist()]
        return [
            self._to_class(score[:-1], best, self._trigger(network, known, int(score[:-1].argmax()), best, backend)),
            self._away(float(score[-1]), f"each wearing {best[-1]}", "box away from every class"),
            self._away(float(first[:, classes + 1 :].amax(0).mean()), "each wearing its own", "boxes, one an image"),
        ]

    def _sites(
        self,
        tried: Sequence[Box],
        chosen: torch.Tensor,
        logits: Logits,
        images: torch.Tensor,
        labels: torch.Tensor,
        unit: float,
        backend: Backend,
    ) -> torch.Tensor:
        """Which boxes lie where the class's own images bear its mark: shown other images there, they lose their class.

        `chosen` holds indices of boxes, some for each class; bool of the same shape.
        """
        natural = torch.zeros_like(chosen, dtype=torch.bool)
        draw = backend.generator("stamps donors", device="cpu")
        for target in range(chosen.shape[1]):
            backend.check()
            mine = (labels == target).nonzero()[:_DONORS, 0]
            others = (labels != target).nonzero()[:, 0]
            if not len(mine) or not len(others):
                continue
            donors = others[torch.randint(len(others), (_DONORS,), generator=draw).to(others.device)]
            whole = images[mine].repeat_interleave(len(donors), 0)
            covered = whole[None].repeat(len(chosen), 1, 1, 1, 1)
            for row, index in enumerate(chosen[:, target].tolist()):
                tried[index].within(covered[row])[...] = tried[index].within(images[donors]).repeat(len(mine), 1, 1, 1)
            wanted = torch.full((len(whole) * (len(chosen) + 1),), target, device=images.device)
            with torch.no_grad():
                seen = margin(logits(torch.cat([whole, covered.flatten(0, 1)])).float(), wanted).view(-1, len(whole))
            natural[:, target] = (seen[:1] - seen[1:]).mean(1) > self.mark * unit
        return natural

    def _trigger(self, network: Network, known: Samples, target: int, best: Sequence[Box], backend: Backend) -> Trigger:
        mask, pattern = best[target].mask(network.input_shape), best[target].pattern(network.input_shape)
        trigger = MaskTrigger(target=target, asr=0.0, held_out=0, mask=mask, pattern=(pattern + 1) / 2)
        return measuring.tested(network, trigger, known, backend)

    def _to_class(self, score: torch.Tensor, best: Sequence[Box], trigger: Trigger) -> Evidence:
        order = score.argsort(descending=True, stable=True).tolist()
        return Evidence(
            name="box to one class",
            score=float(score[order[0]]),
            threshold=self.sure,
            null=tuple(score[order[1:]].tolist()),
            by_class=tuple(score.tolist()),
            target=order[0],
            trigger=trigger,
            note=f"mean margin of the class on other classes' images that wear {best[order[0]]}",
        )

    def _away(self, score: float, how: str, name: str) -> Evidence:
        return Evidence(name, score, self.sure, note=f"mean margin of other classes over the image's own, {how}")


def _measure(labels: torch.Tensor, unit: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Logits, boxes x images x classes, to a row of margins for each box: to every class; away; away, by image."""

    def measure(seen: torch.Tensor) -> torch.Tensor:
        tried, count, classes = seen.shape
        margins = every_margin(seen.flatten(0, 1)).view(tried, count, classes) / unit
        others = (labels[:, None] != torch.arange(classes, device=labels.device)).to(margins)  # images x classes
        to_class = (margins * others).sum(1) / others.sum(0).clamp(min=1)
        away = -margins.gather(2, labels[None, :, None].expand(tried, -1, 1))[..., 0]  # boxes x images
        return torch.cat([to_class, away.mean(1, keepdim=True), away], 1)

    return measure
