"""What images under a trigger are to do: reach a class, excite a neuron, make a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn import functional

from agnes.differentiating import Logits
from agnes_inversion.reading import Reader

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network
    from agnes_inversion.arms import Arm


class Goal(Protocol):
    """Called with images under the triggers of `arms`, made of the images at `columns`."""

    def __call__(
        self, stamped: torch.Tensor, arms: torch.Tensor, columns: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What each image costs, and the logits where they were computed on the way."""
        ...


class ToClass:
    """Cross-entropy to the arm's class."""

    def __init__(self, logits: Logits, targets: torch.Tensor) -> None:
        self.logits = logits
        self.targets = targets

    def __call__(
        self, stamped: torch.Tensor, arms: torch.Tensor, columns: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        logits = self.logits(stamped).to(stamped.dtype)
        return functional.cross_entropy(logits, self.targets[arms], reduction="none"), logits


class Neurons:
    """Excite an arm's neurons and leave the others of their layers as they are (ABS, algorithm 2).

    A neuron at rest on the whole map counts by how far it is from firing where it is nearest (ours: it has no gradient
    otherwise). In units of the layer's largest value on benign images, so that weights fit every layer (ours).
    """

    def __init__(
        self,
        network: Network,
        arms: Sequence[Arm],
        images: torch.Tensor,
        backend: Backend,
        *,
        others: float,
        neuron: float,
        logit: float = 0.0,
    ) -> None:
        self.others, self.neuron, self.logit = others, neuron, logit
        self.targets = torch.tensor([arm.target for arm in arms], device=images.device)
        layers = _layers_of(network, arms)
        self.reader = Reader(network, layers, with_logits=logit > 0)
        self.chosen = [_chosen(layer, arms, images.device) for layer in layers]
        self.benign = _benign(self.reader, images, backend)
        self.units = [_unit(values) for values in self.benign]

    def __call__(
        self, stamped: torch.Tensor, arms: torch.Tensor, columns: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        loss = torch.zeros(len(stamped), dtype=stamped.dtype, device=stamped.device)
        read = self.reader(stamped)
        for place, rectified in enumerate(self.reader.rectified):
            chosen = self.chosen[place][arms]
            value, benign = read[place], self.benign[place][columns]
            active = value.relu() if rectified else value
            moved = ((active - (benign.relu() if rectified else benign)).abs().sum(2) * ~chosen).sum(1) * chosen.any(1)
            excited = (active.sum(2) * chosen).sum(1)
            if rectified:
                excited = excited + (value.amax(2).clamp(max=0) * chosen).sum(1)
            loss = loss + (self.others * moved - self.neuron * excited) / self.units[place]
        if not self.logit:
            return loss, None
        logits = read[-1]
        return loss - self.logit * logits.gather(1, self.targets[arms, None])[:, 0] / self.units[-1], logits


class Maps:
    """Make the map of an arm's channel what it would be under the intermediate trigger (Koldenhof, 4.2.2).

    The mean square of the difference, in units of the intermediate trigger's own (ours).
    """

    def __init__(
        self, network: Network, arms: Sequence[Arm], wanted: torch.Tensor, images: torch.Tensor, backend: Backend
    ) -> None:
        (layer,) = _layers_of(network, arms)
        self.reader = Reader(network, [layer])
        self.channels = torch.tensor([arm.channel for arm in arms], device=images.device)
        self.wanted = wanted  # arms, positions
        self.units = wanted.square().mean(1).clamp(min=1e-12)
        (self.benign,) = _benign(self.reader, images, backend)

    def __call__(
        self, stamped: torch.Tensor, arms: torch.Tensor, columns: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        (read,) = self.reader(stamped)
        channels = self.channels[arms]
        value = read[torch.arange(len(read), device=read.device), channels]
        off = value - self.benign[columns, channels] - self.wanted[arms]
        return off.square().mean(1) / self.units[arms], None


def _layers_of(network: Network, arms: Sequence[Arm]) -> list[Layer]:
    names = {name for arm in arms for name, _ in arm.neurons}
    return [layer for layer in network.layers if layer.name in names]


def _chosen(layer: Layer, arms: Sequence[Arm], device: torch.device) -> torch.Tensor:
    """Which of a layer's channels each arm excites; arms x channels, bool."""
    chosen = torch.zeros(len(arms), layer.channels, dtype=torch.bool)
    for row, arm in enumerate(arms):
        for name, channel in arm.neurons:
            if name == layer.name:
                chosen[row, channel] = True
    return chosen.to(device)


def _benign(reader: Reader, images: torch.Tensor, backend: Backend) -> list[torch.Tensor]:
    """What the reader reads from benign images, layer by layer."""
    with torch.no_grad():
        parts = backend.chunked(lambda start, stop: reader(images[start:stop]), len(images))
    return [torch.cat(values) for values in zip(*parts, strict=True)]


def _unit(values: torch.Tensor) -> torch.Tensor:
    """The largest value of a layer on an average image; of logits, the largest one's spread."""
    if values.dim() == 2:
        return values.std(0).amax().clamp(min=1e-6)
    return values.abs().amax((1, 2)).mean().clamp(min=1e-6)
