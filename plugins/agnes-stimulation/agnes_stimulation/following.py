"""The lines of a layer's channels and images: which way each layer's are followed, and how many at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import fx, nn

from agnes.layers import kind_of
from agnes_stimulation.lines import Follower, Pieces, TooMany
from agnes_stimulation.nsf import Stimulation

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network
    from agnes_stimulation.tally import Benign

_STRAIGHT = frozenset(("conv", "linear", "batch_norm", "avg_pool", "add", "scale", "flatten", "identity", "dropout"))
_COPIES = 6  # of the slopes of all pieces, that the closed form holds at once


class Lines:
    """One line for each channel of a layer and each image: its whole map set from 0 to the highest value."""

    def __init__(self, network: Network, layer: Layer, benign: Benign, pieces: int, backend: Backend) -> None:
        self.stimulation = Stimulation(network, layer, benign.images, backend)
        self.left_out = 0
        self._network = network
        self._backend = backend
        self._images = len(benign)
        self._classes = benign.logits.shape[1]
        self._follower = Follower(network, layer, pieces, backend.memory // 4)
        self._tail = _Tail.of(network, self.stimulation)

    @torch.no_grad()
    def over(self, highest: float, grid: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Channels, their largest logits (channels, images, classes), and those on a grid (channels, values, ...)."""
        channels = self.stimulation.channels(None)
        each = 8 * self._images * self._classes * (2 * len(grid) + 4)
        for some in channels.split(max(1, self._backend.memory // 4 // each)):
            kept, peaks, logits = [], [], []
            for channel in some:
                self._backend.check()
                try:
                    peak, on_grid = self.read(channel, highest, grid, range(self._images))
                except TooMany:
                    self.left_out += 1
                    continue
                kept.append(channel)
                peaks.append(peak)
                logits.append(on_grid)
            if kept:
                yield torch.stack(kept), torch.stack(peaks), torch.stack(logits)

    def read(
        self, channel: torch.Tensor, highest: float, grid: torch.Tensor, images: range
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One channel's largest logits, images x classes, and those on the grid, values x images x classes."""
        try:
            pieces = self.pieces(channel, highest, images)
            return pieces.highest(len(images)), pieces.at(grid, len(images)).transpose(0, 1)
        except TooMany as error:
            if not error.together:
                raise
        half = len(images) // 2
        one, other = (self.read(channel, highest, grid, part) for part in (images[:half], images[half:]))
        return torch.cat([one[0], other[0]]), torch.cat([one[1], other[1]], 1)

    def pieces(self, channel: torch.Tensor, highest: float, images: range) -> Pieces:
        """The functions of one channel on some images; TooMany where they are more than the memory holds."""
        ends = torch.tensor([0.0, highest], device=channel.device)
        if self._tail is None:
            return self._followed(channel, ends, images)
        if len(images) > 1 and len(images) * self._tail.bytes_of_a_line > self._backend.memory // 4:
            raise TooMany(together=True)
        return self._tail.pieces(channel, ends, images)

    def _followed(self, channel: torch.Tensor, ends: torch.Tensor, images: range) -> Pieces:
        layer = self.stimulation.layer
        state = self._network.until(layer, self.stimulation.images[images.start : images.stop])
        doubled = state.take(torch.arange(len(images)).repeat_interleave(2))
        values = ends.repeat(len(images))
        replaced = doubled.value.clone()
        maps = replaced.movedim(layer.channel_dim + 1, 1)
        maps[:, int(channel)] = values.reshape(-1, *[1] * (maps.dim() - 2)).to(maps.dtype)
        return self._follower.follow(doubled, replaced, values)


class _Tail:
    """What comes after the last layers, in closed form: linear, or linear, ReLU and linear."""

    def __init__(self, stimulation: Stimulation, hidden: fx.Node | None = None, last: nn.Linear | None = None) -> None:
        self._stimulation = stimulation
        self._hidden = hidden  # what the ReLU reads; None: there is none
        self._last = last

    @classmethod
    def of(cls, network: Network, stimulation: Stimulation) -> _Tail | None:
        """None where another way is needed."""
        rest = network.rest(stimulation.layer)
        kinds = [(node, kind_of(network.module, node)) for node in rest.nodes]
        turning = [place for place, (_, kind) in enumerate(kinds) if kind not in _STRAIGHT]
        if not turning:
            return cls(stimulation)
        last = network.module.get_submodule(str(rest.output.target)) if rest.output.op == "call_module" else None
        node, kind = kinds[turning[0]]
        after = [k for _, k in kinds[turning[0] + 1 :]]
        if len(turning) > 1 or kind != "relu" or not isinstance(last, nn.Linear):
            return None
        if after[-1:] == ["linear"] and set(after[:-1]) <= {"dropout", "identity"}:
            return cls(stimulation, node.all_input_nodes[0], last)
        return None

    @property
    def bytes_of_a_line(self) -> int:
        """What the pieces of one line take at most while they are made."""
        if self._last is None:
            return 8 * self._stimulation.network.class_count
        return _COPIES * 4 * (self._last.in_features + 2) * (self._last.out_features + 1)

    def pieces(self, channel: torch.Tensor, ends: torch.Tensor, images: range) -> Pieces:
        """Values at the ends from one pass; between them the crossings of the hidden units, sorted, and prefix sums."""
        if self._last is None or self._hidden is None:
            logits = self._stimulation.functions(channel[None], ends).logits[0, :, images.start : images.stop]
            lines = torch.arange(len(images), device=ends.device).repeat_interleave(2)
            return Pieces(lines, ends.repeat(len(images)), logits.transpose(0, 1).flatten(0, 1))
        some = slice(images.start, images.stop)
        start, end = self._stimulation.hidden(channel[None], ends, self._hidden, some)[0]
        return _closed(start.float(), end.float(), float(ends[1]), self._last)


def _closed(start: torch.Tensor, end: torch.Tensor, highest: float, last: nn.Linear) -> Pieces:
    """The pieces of last(relu(start + (end - start) v / highest))."""
    images = len(start)
    crossing = start * end < 0
    shares = torch.where(crossing, start / (start - end), torch.full_like(start, 2.0))
    shares, order = shares.sort(1)
    most = int(crossing.sum(1).max())
    shares, order = shares[:, :most], order[:, :most]
    rising = (end - start).gather(1, order)
    turned = torch.where(shares < 2, rising.abs(), torch.zeros_like(rising))  # a unit that dies or wakes: slope grows
    weight = last.weight.T.float()  # units, classes
    active = (start > 0) | ((start == 0) & (end > 0))
    slope = ((end - start) * active) @ weight
    slopes = torch.cat([slope[:, None], turned[..., None] * weight[order]], 1).cumsum(1)  # images, pieces, classes
    at = torch.cat([torch.zeros_like(shares[:, :1]), shares.clamp(max=1), torch.ones_like(start[:, :1])], 1)
    logits = torch.relu(start) @ weight + (0 if last.bias is None else last.bias)
    steps = slopes * at.diff(dim=1)[..., None]
    logits = torch.cat([logits[:, None], logits[:, None] + steps.cumsum(1)], 1)
    lines = torch.arange(images, device=start.device)[:, None].expand_as(at)
    return Pieces(lines.flatten(), (at * highest).flatten(), logits.flatten(0, 1))
