"""How far images of other classes can be pushed to a class by one small change of all of them. Ours; no paper's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from agnes import measuring
from agnes.differentiating import Logits, logits_of, quick
from agnes.errors import UsageError
from agnes.features import FeatureTrigger, identity
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.results import AdditiveTrigger, Evidence, Trigger
from agnes_inversion.arms import Parts, divide
from agnes_inversion.margins import benign_margin, every_margin, margin
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
class Push(Method):
    """Make for every class the bounded change that makes the network surest of it. Subclasses say what changes."""

    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})

    bound: float = 0.0  # how far a number of the change may be from none
    steps: int = 40  # of the ascent
    batch: int = 8  # images a class sees in one step, each time moved, turned and lit another way
    share: float = 0.7  # of the images, to make changes on; the rest tests them
    sure: float = 1.0  # a mean margin above it, in margins of benign images, speaks for a backdoor

    what: ClassVar[str]

    def __post_init__(self) -> None:
        name = type(self).__name__.lower()
        if self.steps < 1 or self.batch < 1:
            raise UsageError(f"{name}.steps and {name}.batch must be 1 or more")
        if not self.bound > 0 or not 0 < self.share < 1:
            raise UsageError(f"{name}.bound must be above 0, and {name}.share between 0 and 1")

    def none(self, shape: tuple[int, int, int]) -> torch.Tensor:
        """The numbers of a change that changes nothing."""
        raise NotImplementedError

    def change(self, numbers: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Arms x images, changed: arms, images, channels, height, width."""
        raise NotImplementedError

    def trigger(self, numbers: torch.Tensor, images: torch.Tensor, **facts: Any) -> Trigger:
        """The change of one arm as a trigger, made on these images."""
        raise NotImplementedError

    @hookimpl
    def diagnose(self, network: Network, samples: Samples, backend: Backend) -> Evidence:
        parts = divide(samples, network, self.share, len(samples), backend)
        logits = logits_of(quick(network))
        unit = benign_margin(logits, parts.made_on.images, parts.labels, backend)
        numbers = self._climbed(network, logits, parts, backend)
        held_out = measuring.with_labels(network, parts.held_out, backend)
        score = self._measured(logits, numbers, held_out, backend) / unit
        order = score.argsort(descending=True, stable=True).tolist()
        trigger = self.trigger(numbers[order[0]], parts.made_on.images, target=order[0], asr=0.0, held_out=0)
        return Evidence(
            name=self.what,
            score=float(score[order[0]]),
            threshold=self.sure,
            null=tuple(score[order[1:]].tolist()),
            by_class=tuple(score.tolist()),
            target=order[0],
            trigger=measuring.tested(network, trigger, held_out, backend),
            note=f"mean margin of the class on other classes' images, changed by up to {self.bound:g}",
        )

    def _climbed(self, network: Network, logits: Logits, parts: Parts, backend: Backend) -> torch.Tensor:
        """For every class the numbers of its change; Adam, each number kept within the bound."""
        classes, made_on = network.class_count, several(parts.made_on, _VIEWS)
        images, draw = made_on.images, backend.generator(type(self).__name__, device="cpu")
        assert made_on.labels is not None
        labels, targets = made_on.labels.to(images.device), torch.arange(classes, device=images.device)
        numbers = self.none(network.input_shape).to(images).repeat(classes, *[1] * (len(network.input_shape)))
        mean, square = torch.zeros_like(numbers), torch.zeros_like(numbers)
        with backend.progress(f"pushing images, {self.what}", self.steps) as tick:
            for step in range(1, self.steps + 1):
                views = varied(images, draw)
                seen = torch.stack([torch.randperm(len(views), generator=draw)[: self.batch] for _ in range(classes)])
                seen = seen.to(images.device)
                gradient = self._gradient(logits, numbers, views, seen, labels, targets, backend)
                mean = _MOMENTS[0] * mean + (1 - _MOMENTS[0]) * gradient
                square = _MOMENTS[1] * square + (1 - _MOMENTS[1]) * gradient.square()
                deviation = (square / (1 - _MOMENTS[1] ** step)).sqrt() + 1e-12
                stride = self.bound / _STRIDE * (1 - (step - 1) / self.steps) / (1 - _MOMENTS[0] ** step)
                numbers = (numbers + stride * mean / deviation).clamp(-self.bound, self.bound)
                tick(1)
        return numbers

    def _gradient(
        self,
        logits: Logits,
        numbers: torch.Tensor,
        views: torch.Tensor,
        seen: torch.Tensor,
        labels: torch.Tensor,
        targets: torch.Tensor,
        backend: Backend,
    ) -> torch.Tensor:
        """Of each class's summed margin on the images it sees, those of its own left out."""
        at_once = max(1, _AT_ONCE_ON_CPU // seen.shape[1]) if backend.device.type == "cpu" else len(numbers)

        def block(start: int, stop: int) -> torch.Tensor:
            with torch.enable_grad():
                part, of_part = numbers[start:stop].clone().requires_grad_(), seen[start:stop]
                wanted = targets[start:stop, None].expand_as(of_part)
                changed = self.change(part, views[of_part]).flatten(0, 1)
                margins = margin(logits(changed).float(), wanted.flatten()).view_as(wanted)
                counted = (labels[of_part] != wanted).to(margins)
                return torch.autograd.grad((margins * counted).sum(), part)[0]

        def work(start: int, stop: int) -> torch.Tensor:
            return torch.cat([block(at, min(at + at_once, stop)) for at in range(start, stop, at_once)])

        return torch.cat(backend.chunked(work, len(numbers)))

    def _measured(self, logits: Logits, numbers: torch.Tensor, held_out: Samples, backend: Backend) -> torch.Tensor:
        """Per class the mean margin on views of images that its change was not made on."""
        draw = backend.generator(type(self).__name__, "held out", device="cpu")
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
                changed = self.change(numbers[target : target + 1], others[None])[0]
                return every_margin(logits(changed).float())[:, target].mean()

        return torch.cat(backend.chunked(work, len(numbers)))


@dataclass(frozen=True)
class Haze(Push):
    """Push images to each class by a faint pattern over all pixels: is one class much easier to reach than others?"""

    preference: ClassVar[int] = 7
    what: ClassVar[str] = "faint pattern to one class"

    bound: float = 0.04  # of full brightness, for every pixel and colour; about ten of 255 levels

    def suits(self, network: Network) -> str | None:
        return "waves and blended patterns are faint and everywhere"

    def none(self, shape: tuple[int, int, int]) -> torch.Tensor:
        return torch.zeros(1, *shape)

    def change(self, numbers: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        return (images + numbers[:, None]).clamp(0, 1)

    def trigger(self, numbers: torch.Tensor, images: torch.Tensor, **facts: Any) -> Trigger:
        return AdditiveTrigger(delta=numbers.detach(), **facts)


@dataclass(frozen=True)
class Tints(Push):
    """Push images to each class by a colour filter: is one class much easier to reach than others?"""

    preference: ClassVar[int] = 6
    what: ClassVar[str] = "colour filter to one class"

    bound: float = 0.3  # for every number of the mix of colours, and for what is added
    steps: int = 30  # of the ascent

    def suits(self, network: Network) -> str | None:
        return "photographic filters change colours, not places" if network.input_shape[0] in (1, 3) else None

    def none(self, shape: tuple[int, int, int]) -> torch.Tensor:
        return torch.zeros(1, shape[0], shape[0] + 1, 1)

    def change(self, numbers: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        mix, added = numbers[..., :-1, 0], numbers[:, None, :, -1:, :]
        return (images + torch.einsum("anm,abmhw->abnhw", mix, images) + added).clamp(0, 1)

    def trigger(self, numbers: torch.Tensor, images: torch.Tensor, **facts: Any) -> Trigger:
        channels = len(numbers)
        mix = identity(channels).to(numbers)
        mix[:, :channels] += numbers[:, :-1, 0]
        mix[:, -1] += numbers[:, -1, 0]
        changed = (self.change(numbers[None], images[None])[0] - images).abs().amax(1).mean(0)
        return FeatureTrigger(mix=mix, window=1, changed=changed, **facts)
