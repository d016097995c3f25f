"""Neuron stimulation functions: the logits when positions of one channel are set to a value (ABS, section 4.1)."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from agnes.memory import MemoryMeter
from agnes_stimulation.passes import Pass

if TYPE_CHECKING:
    from torch import fx

    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network
    from agnes_stimulation.passes import Begun

    Take = Callable[[slice, slice, torch.Tensor], None]  # channels and images of a block, and its logits

_CACHE = 12 << 20  # bytes that a chunk may take on a CPU: beyond its caches it is slower by half and more


@dataclass(frozen=True)
class Curves:
    """The stimulation functions of some channels of a layer."""

    layer: Layer
    channels: torch.Tensor = field(compare=False, repr=False)  # their numbers
    values: torch.Tensor = field(compare=False, repr=False)  # channels, values
    logits: torch.Tensor = field(compare=False, repr=False)  # channels, values, images, classes


class Stimulation:
    """A layer ready for stimulation: what it holds on every image, computed once where memory allows."""

    def __init__(self, network: Network, layer: Layer, images: torch.Tensor, backend: Backend) -> None:
        self.network = network
        self.layer = layer
        self.images = images
        self.backend = backend
        self._pass = Pass(network, layer)
        with torch.no_grad(), MemoryMeter(images.device) as meter:
            self._pass.begin(network.until(layer, images[:1]))
        self._part = max(1, backend.memory // 4 // max(1, meter.peak))
        self._whole: Begun | None = None
        self._measured: dict[int, float] = {}  # values -> bytes

    def of(self, images: torch.Tensor) -> Stimulation:
        """The same layer for other images, or the same in another order: planned and measured already."""
        other = copy.copy(self)
        other.images = images
        other._whole = None
        return other

    def begun(self) -> Iterator[tuple[slice, Begun]]:
        """The state of all images in order, in parts of at most a quarter of the memory."""
        for start in range(0, len(self.images), self._part):
            images = slice(start, min(start + self._part, len(self.images)))
            if self._whole is not None:
                yield images, self._whole
                continue
            with torch.no_grad():
                begun = self._pass.begin(self.network.until(self.layer, self.images[images]))
            if self._part >= len(self.images):
                self._whole = begun
            yield images, begun

    def largest(self) -> float:
        """The largest activation of the layer over all images; where none is positive, the largest magnitude."""
        bounds = [torch.stack(begun.state.value.float().aminmax()) for _, begun in self.begun()]
        lowest, highest = torch.stack(bounds).amin(0)[0], torch.stack(bounds).amax(0)[1]
        return float(highest if highest > 0 else -lowest)

    def channels(self, positions: torch.Tensor | None) -> torch.Tensor:
        """The numbers of the channels that have positions to set."""
        where = by_channel(self.layer, positions)
        return where.reshape(len(where), -1).any(1).nonzero().flatten().to(self.images.device)

    def curves(self, values: torch.Tensor, positions: torch.Tensor | None = None) -> Iterator[Curves]:
        """The functions of every channel that has positions to set, some channels at a time.

        `positions` is of the layer's shape, true where the value is set; None: everywhere. `values` are the same for
        all channels, or one row for each channel of the layer.
        """
        each = 4 * values.shape[-1] * len(self.images) * self.network.class_count
        channels = self.channels(positions)
        for some in channels.split(max(1, self.backend.memory // 8 // each)) if len(channels) else ():
            yield self.functions(some, values if values.dim() == 1 else values[some], positions)

    def functions(self, channels: torch.Tensor, values: torch.Tensor, positions: torch.Tensor | None = None) -> Curves:
        """The functions of some channels, all at once; `values` the same for all or a row for each of them."""
        values = values.expand(len(channels), values.shape[-1])
        shape = (*values.shape, len(self.images), self.network.class_count)
        logits = torch.empty(shape, device=self.images.device)

        def take(rows: slice, images: slice, part: torch.Tensor) -> None:
            logits[rows, :, images] = part

        self.stimulate(channels, values, take, positions)
        return Curves(self.layer, channels, values, logits)

    def hidden(self, channels: torch.Tensor, values: torch.Tensor, node: fx.Node, images: slice) -> torch.Tensor:
        """What a node after the layer holds on some images, in rows: channels, values, images, then its shape."""
        values = values.expand(len(channels), values.shape[-1])
        parts = []
        for part, begun in self.begun():
            first, end = max(part.start, images.start) - part.start, min(part.stop, images.stop) - part.start
            if first < end:
                with torch.no_grad():
                    parts.append(self._pass.rows(begun, channels, slice(first, end), values, None, node))
        return torch.cat(parts, 2)

    def stimulate(
        self,
        channels: torch.Tensor,
        values: torch.Tensor,  # channels, values
        take: Take,
        positions: torch.Tensor | None = None,
        images: slice | None = None,  # of all; they are counted from its start
    ) -> None:
        """Hand over the logits, channels x values x images x classes, block by block as memory allows."""
        wanted = images or slice(0, len(self.images))
        where = None if positions is None else by_channel(self.layer, positions).to(self.images.device)[channels]
        memory = self.backend.memory // 2  # the other half holds the layer's state and what is kept of the results
        if self.backend.device.type == "cpu":
            memory = min(memory, _CACHE)
        backend = replace(self.backend, memory=memory)
        for part, begun in self.begun():
            first, end = max(part.start, wanted.start), min(part.stop, wanted.stop)
            if first < end:
                block = _Block(self._pass, begun, channels, values, where, first - part.start, end - first)
                place = first - wanted.start
                work = functools.partial(block.run, take, place)
                with torch.no_grad():
                    backend.chunked(work, len(channels) * block.images, each=self._each(block, values.shape[1]))

    def _each(self, block: _Block, values: int) -> float:
        """Bytes that one channel of one image takes at so many values, measured once."""
        if values not in self._measured:
            with MemoryMeter(self.images.device) as meter:
                block.run(lambda *_: None, 0, 0, 1)
            self._measured[values] = meter.peak
        return self._measured[values]


@dataclass(frozen=True)
class _Block:
    """Some channels on some images of a state, and how to run a chunk of them."""

    plan: Pass
    begun: Begun
    channels: torch.Tensor
    values: torch.Tensor
    where: torch.Tensor | None
    first: int  # image of the state
    images: int

    def run(self, take: Take, place: int, start: int, stop: int) -> None:
        """Channels and images start..stop, counted channel by channel; `place` is what the first image is called."""
        for rows, images in rectangles(start, stop, self.images):
            where = None if self.where is None else self.where[rows]
            some = slice(self.first + images.start, self.first + images.stop)
            logits = self.plan.logits(self.begun, self.channels[rows], some, self.values[rows], where)
            take(rows, slice(place + images.start, place + images.stop), logits)


def rectangles(start: int, stop: int, width: int) -> Iterator[tuple[slice, slice]]:
    """The cells start..stop of a table so wide, counted row by row, as blocks of rows and columns."""
    while start < stop:
        row, column = divmod(start, width)
        if column or stop - start < width:
            end = min(stop, (row + 1) * width)
            yield slice(row, row + 1), slice(column, column + end - start)
        else:
            end = start + (stop - start) // width * width
            yield slice(row, end // width), slice(0, width)
        start = end


def by_channel(layer: Layer, positions: torch.Tensor | None) -> torch.Tensor:
    """Positions of a layer with the channel first; all of them where none are given."""
    chosen = torch.ones(layer.shape, dtype=torch.bool) if positions is None else positions
    return chosen.movedim(layer.channel_dim, 0)
