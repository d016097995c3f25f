"""Neuron stimulation functions: the logits when positions of one channel are set to a value (ABS, section 4.1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from agnes.memory import MemoryMeter

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network, State


@dataclass(frozen=True)
class Curves:
    """The stimulation functions of some channels of a layer, sampled at the same values."""

    layer: Layer
    channels: torch.Tensor = field(compare=False, repr=False)  # their numbers
    values: torch.Tensor = field(compare=False, repr=False)
    logits: torch.Tensor = field(compare=False, repr=False)  # channels, values, images, classes


class Stimulation:
    """A layer ready for stimulation: what it holds on every image, computed once where memory allows."""

    def __init__(self, network: Network, layer: Layer, images: torch.Tensor, backend: Backend) -> None:
        self.network = network
        self.layer = layer
        self.images = images
        self.backend = backend
        with torch.no_grad(), MemoryMeter(images.device) as meter:
            network.until(layer, images[:1])
        self._part = max(1, backend.memory // 4 // max(1, meter.peak))
        self._whole: State | None = None

    def states(self) -> Iterator[State]:
        """The state of all images in order, in parts of at most a quarter of the memory."""
        for images in self.images.split(self._part):
            if self._whole is not None:
                yield self._whole
                continue
            with torch.no_grad():
                state = self.network.until(self.layer, images)
            if len(images) == len(self.images):
                self._whole = state
            yield state

    def largest(self) -> float:
        """The largest activation of the layer over all images; where none is positive, the largest magnitude."""
        bounds = [torch.stack(state.value.float().aminmax()) for state in self.states()]
        lowest, highest = torch.stack(bounds).amin(0)[0], torch.stack(bounds).amax(0)[1]
        return float(highest if highest > 0 else -lowest)

    def curves(self, values: torch.Tensor, positions: torch.Tensor | None = None) -> Iterator[Curves]:
        """The functions of every channel that has positions to set, some channels at a time.

        `positions` is of the layer's shape, true where the value is set; None: everywhere.
        """
        where = by_channel(self.layer, positions).to(self.images.device)
        channels = where.reshape(len(where), -1).any(1).nonzero().flatten()
        if not len(channels):
            return
        each = 4 * len(values) * len(self.images) * self.network.class_count
        for some in channels.split(max(1, self.backend.memory // 8 // each)):
            parts = [self._logits(state, where, some, values) for state in self.states()]
            yield Curves(self.layer, some, values, parts[0] if len(parts) == 1 else torch.cat(parts, 2))

    def _logits(self, state: State, where: torch.Tensor, channels: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Channels, values, images, classes, for the images of one state."""
        images = state.count
        shape = (len(channels), len(values), images)

        def work(start: int, stop: int) -> torch.Tensor:
            rows = torch.arange(start, stop, device=values.device)
            channel, value = rows // (len(values) * images), rows // images % len(values)
            return stimulated(self.network, state.take(rows % images), where, channels[channel], values[value])

        with torch.no_grad():
            parts = self.backend.chunked(work, shape[0] * shape[1] * shape[2])
        return torch.cat(parts).reshape(*shape, -1)


def stimulated(
    network: Network, state: State, where: torch.Tensor, channels: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """The logits of each image of a state, its channel set to its value: map * (1 - R) + value * R (AGNES, fig. 4).

    `where` is R for every channel: channels, then the map's shape.
    """
    replaced = state.value.clone()
    maps = replaced.movedim(state.layer.channel_dim + 1, 1)  # a view: images, channels, the map's shape
    rows = torch.arange(len(maps), device=maps.device)
    value = values.to(maps.dtype).reshape(-1, *[1] * (maps.dim() - 2))
    maps[rows, channels] = torch.where(where[channels], value, maps[rows, channels])
    return network.after(state.layer, state, replaced).float()


def by_channel(layer: Layer, positions: torch.Tensor | None) -> torch.Tensor:
    """Positions of a layer with the channel first; all of them where none are given."""
    chosen = torch.ones(layer.shape, dtype=torch.bool) if positions is None else positions
    return chosen.movedim(layer.channel_dim, 0)
