"""How far images of other classes are pushed to a class by one faint pattern: evidence in itself. Ours; no paper's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from agnes import measuring
from agnes.differentiating import Logits, logits_of, quick
from agnes.errors import UsageError
from agnes.hookspecs import hookimpl
from agnes.margins import benign_margin, every_margin, margin
from agnes.method import Method
from agnes.results import AdditiveTrigger, Evidence
from agnes_inversion.arms import Parts, divide
from agnes_inversion.trying import only_measured
from agnes_inversion.varying import several, varied

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network
    from agnes.samples import Samples

_AT_ONCE_ON_CPU = 128  # images; more at once is slower there
_VIEWS = 24  # images at least that a change is made on
_HELD_OUT_VIEWS = 4  # of each image that it is measured on
_MOMENTS = 0.8, 0.95  # of Adam
_STRIDE = 6  # steps from nothing to the bound


@dataclass(frozen=True)
class Haze(Method):
    """Push images to each class by a faint pattern over all pixels: is one class much easier to reach than others?"""

    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})
    preference: ClassVar[int] = 7

    bound: float = 0.04  # of full brightness, for every pixel and colour; about ten of 255 levels
    steps: int = 40  # of the ascent
    batch: int = 8  # images a class sees in one step, each time moved, turned and lit another way
    share: float = 0.7  # of the images, to make changes on; the rest tests them
    sure: float = 1.0  # a mean margin above it, in margins of benign images, speaks for a backdoor

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise UsageError("haze.steps and haze.batch must be 1 or more")
        if not self.bound > 0 or not 0 < self.share < 1:
            raise UsageError("haze.bound must be above 0, and haze.share between 0 and 1")

    def suits(self, network: Network) -> str | None:
        return "waves and blended patterns are faint and everywhere"

    @hookimpl
    def diagnose(self, network: Network, samples: Samples, backend: Backend) -> Evidence:
        parts = divide(samples, network, self.share, len(samples.test or samples), backend)
        logits = logits_of(quick(network))
        unit = benign_margin(logits, parts.made_on.images, parts.labels, backend)
        patterns = self._climbed(network, logits, parts, backend)
        held_out = measuring.with_labels(network, parts.held_out, backend)
        assert held_out.labels is not None
        score = only_measured(self._measured(logits, patterns, held_out, backend) / unit, held_out.labels)
        order = score.argsort(descending=True, stable=True).tolist()
        trigger = AdditiveTrigger(target=order[0], asr=0.0, held_out=0, delta=patterns[order[0]].detach())
        return Evidence(
            name="faint pattern to one class",
            score=float(score[order[0]]),
            threshold=self.sure,
            null=tuple(score[order[1:]].tolist()),
            by_class=tuple(score.tolist()),
            target=order[0],
            trigger=measuring.with_success(network, trigger, held_out, backend, unseen=False),  # they chose the class
            note=f"mean margin of the class on other classes' images, under a pattern of up to {self.bound:g}",
        )

    def _climbed(self, network: Network, logits: Logits, parts: Parts, backend: Backend) -> torch.Tensor:
        """For every class its pattern; Adam, each number of it kept within the bound."""
        classes, made_on = network.class_count, several(parts.made_on, _VIEWS)
        images, draw = made_on.images, backend.generator("Haze", device="cpu")
        assert made_on.labels is not None
        labels, targets = made_on.labels.to(images.device), torch.arange(classes, device=images.device)
        patterns = images.new_zeros(classes, *network.input_shape)
        mean, square = torch.zeros_like(patterns), torch.zeros_like(patterns)
        with backend.progress("pushing images", self.steps) as tick:
            for step in range(1, self.steps + 1):
                views = varied(images, draw)
                seen = torch.stack([torch.randperm(len(views), generator=draw)[: self.batch] for _ in range(classes)])
                seen = seen.to(images.device)
                gradient = self._gradient(logits, patterns, views, seen, labels, targets, backend)
                mean = _MOMENTS[0] * mean + (1 - _MOMENTS[0]) * gradient
                square = _MOMENTS[1] * square + (1 - _MOMENTS[1]) * gradient.square()
                deviation = (square / (1 - _MOMENTS[1] ** step)).sqrt() + 1e-12
                stride = self.bound / _STRIDE * (1 - (step - 1) / self.steps) / (1 - _MOMENTS[0] ** step)
                patterns = (patterns + stride * mean / deviation).clamp(-self.bound, self.bound)
                tick(1)
        return patterns

    def _gradient(
        self,
        logits: Logits,
        patterns: torch.Tensor,
        views: torch.Tensor,
        seen: torch.Tensor,
        labels: torch.Tensor,
        targets: torch.Tensor,
        backend: Backend,
    ) -> torch.Tensor:
        """Of each class's summed margin on the images it sees, those of its own left out."""
        at_once = max(1, _AT_ONCE_ON_CPU // seen.shape[1]) if backend.device.type == "cpu" else len(patterns)

        def block(start: int, stop: int) -> torch.Tensor:
            with torch.enable_grad():
                part, of_part = patterns[start:stop].clone().requires_grad_(), seen[start:stop]
                wanted = targets[start:stop, None].expand_as(of_part)
                changed = _hazy(part, views[of_part]).flatten(0, 1)
                margins = margin(logits(changed).float(), wanted.flatten()).view_as(wanted)
                counted = (labels[of_part] != wanted).to(margins)
                return torch.autograd.grad((margins * counted).sum(), part)[0]

        def work(start: int, stop: int) -> torch.Tensor:
            return torch.cat([block(at, min(at + at_once, stop)) for at in range(start, stop, at_once)])

        return torch.cat(backend.chunked(work, len(patterns)))

    def _measured(self, logits: Logits, patterns: torch.Tensor, held_out: Samples, backend: Backend) -> torch.Tensor:
        """Per class the mean margin on views of images that its pattern was not made on."""
        draw = backend.generator("Haze", "held out", device="cpu")
        views = torch.cat([held_out.images, *(varied(held_out.images, draw) for _ in range(_HELD_OUT_VIEWS - 1))])
        assert held_out.labels is not None
        labels = held_out.labels.to(views.device).repeat(_HELD_OUT_VIEWS)

        def work(start: int, stop: int) -> torch.Tensor:
            return torch.stack([of_class(target) for target in range(start, stop)])

        def of_class(target: int) -> torch.Tensor:
            others = views[labels != target]
            if not len(others):
                return views.new_zeros(())
            with torch.no_grad():
                changed = _hazy(patterns[target : target + 1], others[None])[0]
                return every_margin(logits(changed).float())[:, target].mean()

        return torch.cat(backend.chunked(work, len(patterns)))


def _hazy(patterns: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Patterns x images under them: patterns, images, channels, height, width."""
    return (images + patterns[:, None]).clamp(0, 1)
