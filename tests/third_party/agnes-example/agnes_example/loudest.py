"""loudest: the channels that stand out on one image, turned up further."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.results import Candidate

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network
    from agnes.samples import Samples


@dataclass(frozen=True)
class Loudest(Method):
    """Turn up the channels that are loud on one image and quiet on most, and see which class they lead to."""

    per_layer: int = 3  # channels looked at in each layer
    factor: float = 4.0  # by which a channel is turned up beyond the loudest it was

    @hookimpl
    def stimulate(self, network: Network, samples: Samples, backend: Backend) -> list[Candidate]:
        found = []
        with torch.no_grad(), backend.progress("loudest", len(network.layers)) as tick:
            for layer in network.layers:
                loudness = backend.map(partial(_loudness, network, layer), samples.images)
                standing_out = loudness.amax(0) - loudness.median(0).values
                for channel in standing_out.topk(min(self.per_layer, layer.channels)).indices.tolist():
                    value = self.factor * max(float(loudness[:, channel].amax()), 1e-3)
                    found.append(_candidate(network, layer, channel, value, samples.images, backend))
                tick(1)
        return sorted(found, key=lambda candidate: -candidate.score)


def _loudness(network: Network, layer: Layer, images: torch.Tensor) -> torch.Tensor:
    """The largest value of each channel on each image: images, channels."""
    return layer.by_channel(network.read(images, [layer])[layer.name]).amax(2)


def _candidate(
    network: Network, layer: Layer, channel: int, value: float, images: torch.Tensor, backend: Backend
) -> Candidate:
    """What the channel does to the logits when all of its map is set to the value."""

    def both(part: torch.Tensor) -> torch.Tensor:
        state = network.until(layer, part)
        louder = state.value.clone()
        louder[layer.channel_index(channel)] = value
        return torch.stack([network.after(layer, state), network.after(layer, state, louder)], 1)

    before, after = backend.map(both, images).unbind(1)  # images, classes
    elevations = (after - before).mean(0)
    target = int(elevations.argmax())
    first, second = elevations.topk(2).values.tolist()
    wins = bool((after.argmax(1) == target).all())
    low = value if wins else value + 1  # low > high: on no value does the target win
    return Candidate(layer.name, channel, target, first - second, low, value, tuple(elevations.tolist()))
