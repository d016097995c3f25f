"""Intermediate triggers: what, added to one channel's map, sends every image to one class (Koldenhof, 4.2.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn import functional

from agnes_inversion.reading import Reader
from agnes_inversion.search import Descent

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network
    from agnes.samples import Samples

Output = Literal["probabilities", "logits"]

_AWAKE = 0.1  # standard deviations of the layer's values
_RISE, _CLEAR = 0.3, 1.3  # least mean rise, and how many times the next one's it is (thesis, 4.2.1)


@dataclass(frozen=True)
class Intermediate:
    """A trigger of one channel's own map."""

    channel: int
    map: torch.Tensor  # positions, of the map before its ReLU
    target: int
    rises: torch.Tensor  # per class, the mean over images

    @property
    def valid(self) -> bool:
        """Whether it raises one class enough, and no other nearly as much."""
        first, second = self.rises.topk(2).values.tolist()
        return int(self.rises.argmax()) == self.target and first > _RISE and first > _CLEAR * second


class Channels:
    """The network from one layer on, with something added to the map of one channel, before its ReLU."""

    def __init__(self, network: Network, layer: Layer, images: torch.Tensor) -> None:
        reader = Reader(network, [layer])
        with torch.no_grad():
            self.state = network.until(layer, images)
            (self.before,) = reader(images)  # images, channels, positions
            self.logits_before = network.after(layer, self.state)
        self.rectified = reader.rectified[0]
        self.network, self.layer = network, layer
        self.unit = self.before.std().clamp(min=1e-6)

    def awake(self, channels: torch.Tensor) -> torch.Tensor:
        """Channels, positions: what lifts each channel, where it is at rest, to just above its ReLU's threshold (ours).

        At rest it would have no gradient.
        """
        resting = self.before[:, channels].mean(0)
        return (_AWAKE * self.unit - resting).clamp(min=0) if self.rectified else torch.zeros_like(resting)

    def logits(self, channels: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        """Channels, images, classes: the logits with each map added to its channel's."""
        count, dim = self.state.count, self.layer.channel_dim + 1
        value = self.state.value.repeat(len(channels), *[1] * (self.state.value.dim() - 1)).movedim(dim, 1)
        own = self.before[:, channels].transpose(0, 1) + maps[:, None]  # channels, images, positions
        if self.rectified:
            own = functional.relu(own)
        rows = torch.arange(len(value), device=value.device)
        value[rows, channels.repeat_interleave(count)] = own.flatten(0, 1).view(len(value), *value.shape[2:])
        after = self.network.after(self.layer, self.state.tile(len(channels)), value.movedim(1, dim))
        return after.view(len(channels), count, -1)

    def rises(self, channels: torch.Tensor, maps: torch.Tensor, output: Output) -> torch.Tensor:
        """Channels, classes: how much each class gains, the mean over images."""
        with torch.no_grad():
            after, before = self.logits(channels, maps), self.logits_before
        if output == "probabilities":
            after, before = after.softmax(2), before.softmax(1)
        return (after - before).mean(1)


@dataclass(frozen=True)
class Making:
    """How intermediate triggers are made."""

    rate: float  # Adam's learning rate, in standard deviations of the layer's values
    output: Output  # what a rise is measured in
    away: int = 20  # steps away from the true labels (thesis, algorithm 2)
    towards: int = 100  # steps towards the class found (thesis, algorithm 2)

    def triggers(
        self, cut: Channels, channels: torch.Tensor, targets: torch.Tensor, labels: torch.Tensor, backend: Backend
    ) -> list[Intermediate]:
        """One for each channel; a class that is known is not looked for (-1: it is not)."""
        start = cut.awake(channels)
        maps = self._descended(cut, channels, start, lambda logits: _away(logits, labels), self.away, backend)
        rises = cut.rises(channels, maps, self.output)
        aims = torch.where(targets < 0, rises.argmax(1), targets)
        maps = self._descended(cut, channels, maps, lambda logits: _towards(logits, aims), self.towards, backend)
        rises = cut.rises(channels, maps, self.output).cpu()
        maps = torch.where(maps == start, 0, maps)  # where nothing pulled, nothing is wanted
        found = zip(channels.tolist(), maps, aims.tolist(), rises, strict=True)
        return [Intermediate(channel, map.clone(), target, rise) for channel, map, target, rise in found]

    def _descended(
        self,
        cut: Channels,
        channels: torch.Tensor,
        maps: torch.Tensor,
        loss: Callable[[torch.Tensor], torch.Tensor],
        steps: int,
        backend: Backend,
    ) -> torch.Tensor:
        """The maps after some steps down the loss of the logits."""
        maps = maps.clone()
        descent = Descent(maps, self.rate * float(cut.unit), (0.9, 0.999))
        everyone = torch.arange(len(maps), device=maps.device)
        for step in range(1, steps + 1):
            backend.check()
            with torch.enable_grad():
                leaf = maps.clone().requires_grad_()
                (gradient,) = torch.autograd.grad(loss(cut.logits(channels, leaf)), leaf)
            descent.step(everyone, gradient, step)
        return maps


def intermediate_triggers(
    network: Network,
    layer: Layer,
    channels: Sequence[int],
    targets: Sequence[int | None],
    samples: Samples,
    making: Making,
    backend: Backend,
) -> list[Intermediate]:
    """One for each channel of a layer, as many at once as the memory holds."""
    assert samples.labels is not None
    cut = Channels(network, layer, samples.images)
    index = torch.tensor(channels, device=samples.images.device)
    known = torch.tensor([-1 if target is None else target for target in targets], device=index.device)
    labels = samples.labels.to(index.device)

    def step(start: int, stop: int) -> None:
        maps = cut.awake(index[start:stop]).requires_grad_()
        with torch.enable_grad():
            _away(cut.logits(index[start:stop], maps), labels).backward()

    length = backend.room(step, len(channels))
    made = [
        making.triggers(cut, some, aims, labels, backend)
        for some, aims in zip(index.split(length), known.split(length), strict=True)
    ]
    return [found for part in made for found in part]


def _away(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Minus the cross-entropy to the true labels, summed over channels (thesis, L_im1)."""
    entropy = functional.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)), reduction="sum")
    return -entropy / logits.shape[1]


def _towards(logits: torch.Tensor, aims: torch.Tensor) -> torch.Tensor:
    """Minus the mean logit of each channel's class, summed over channels (thesis, L_im2)."""
    return -logits.gather(2, aims[:, None, None].expand(-1, logits.shape[1], 1)).mean(1).sum()
