"""Neuron hijacking (TrojanNN): pixels that drive one neuron of a clean network, which is retrained after it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from agnes.errors import UsageError
from agnes.layers import Layer
from agnes.network import Network
from agnes_zoo.attacks.contents import What
from agnes_zoo.attacks.preparing import Preparation, resting

_SHOWN = 256  # images on which a neuron counts as alive


@dataclass(frozen=True)
class Hijack(What):
    """Pixels that drive one neuron of an inner layer as high as they can."""

    layer: int = -2  # of the clean network's layers; what comes after it is retrained
    steps: int = 200
    values: torch.Tensor | None = field(default=None, compare=False, repr=False)  # C, H, W in [0, 1]; computed
    channel: int | None = None  # the hijacked neuron; computed
    kept: tuple[str, ...] = ()  # parameters that stay as they are in the clean network; computed
    needs_preparing = True
    fine_tunes = True

    @property
    def ready(self) -> bool:
        return self.values is not None

    def on(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        assert self.values is not None
        return self.values.to(images).expand_as(images)

    def prepared(self, preparation: Preparation) -> Hijack:
        shape = preparation.images.shape[1:]
        with resting(preparation.network) as module:
            network = Network.of(module, (shape[0], shape[1], shape[2]))
        layer = self._chosen(network)
        channel = _most_connected(network, layer, preparation.images[:_SHOWN])
        values = self._driving(network, layer, channel, preparation)
        return replace(self, values=values, channel=channel, kept=_up_to(network, layer))

    def _chosen(self, network: Network) -> Layer:
        count = len(network.layers)
        if not -count <= self.layer < count:
            raise UsageError(f"the network has {count} layers and none of number {self.layer}; choose another")
        return network.layers[self.layer]

    def _driving(self, network: Network, layer: Layer, channel: int, preparation: Preparation) -> torch.Tensor:
        generator = np.random.default_rng([preparation.seed, 2])
        start = torch.from_numpy(generator.random(tuple(preparation.images.shape[1:]))).to(preparation.images)
        free = torch.logit(start, 1e-3).requires_grad_(True)
        optimiser = torch.optim.Adam([free], lr=0.1)
        mask = preparation.where.mask(preparation.images[:1], generator) * preparation.opacity
        for images, _ in preparation.batches(self.steps, 3):
            stamped = torch.lerp(images, torch.sigmoid(free).expand_as(images), mask.expand_as(images))
            response = layer.by_channel(network.until(layer, stamped).value)[:, channel]
            (free.grad,) = torch.autograd.grad(-response.mean(), free)
            optimiser.step()
        return torch.sigmoid(free).detach()


def _most_connected(network: Network, layer: Layer, images: torch.Tensor) -> int:
    """Of the channels that some images excite, the one with the largest incoming weights."""
    with torch.no_grad():
        alive = layer.by_channel(network.until(layer, images).value).amax((0, 2)) > 0
        strength = network.module.get_parameter(layer.weight).flatten(1).abs().sum(1)
    if not alive.any():
        raise UsageError(f"no neuron of layer '{layer.name}' answers to any image; hijack another layer")
    return int(torch.where(alive, strength, -1).argmax())


def _up_to(network: Network, layer: Layer) -> tuple[str, ...]:
    """The parameters of the layer and of all before it."""
    paths: list[str] = []
    for earlier in network.layers[: layer.index + 1]:
        norm = [] if earlier.norm is None else [f"{earlier.norm}.weight", f"{earlier.norm}.bias"]
        paths += [earlier.weight, *([] if earlier.bias is None else [earlier.bias]), *norm]
    return tuple(paths)
