"""Values in which one channel differs from what it was, and what becomes of them in the next operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from agnes_stimulation.preparing import TinyMapConv2d

Layout = Literal["first", "last", "flat"]  # of the channels in a value: first, last, or first and then flattened


@dataclass(frozen=True)
class Touched:
    """A value per channel k, value v and image x: the plain one of x, but for what channel k holds.

    What channel k holds is the sum of the parts, each of values | 1, images | 1, channels, then the map's shape.
    """

    layout: Layout
    plain: torch.Tensor = field(repr=False)  # images, then the value's shape
    channels: torch.Tensor = field(repr=False)  # their numbers
    parts: tuple[torch.Tensor, ...] = field(repr=False)
    total: int = 0  # channels of the value

    @property
    def own(self) -> torch.Tensor:
        """What the channels hold without stimulation: 1, images, channels, then the map's shape."""
        return self.by_channel(self.plain)[:, self.channels][None]

    def by_channel(self, value: torch.Tensor) -> torch.Tensor:
        """A view with the channels in the second dimension."""
        if self.layout == "flat":
            return value.unflatten(1, (self.total, -1))
        return value.movedim(-1, 1) if self.layout == "last" else value

    def whole(self) -> torch.Tensor:
        """What the channels hold, as one part."""
        held = self.parts[0]
        for part in self.parts[1:]:
            held = held + part
        return held

    def through(self, function: Callable[[torch.Tensor], torch.Tensor], plain: torch.Tensor, linear: bool) -> Touched:
        """After an operation that works on each channel alone; `plain` is what it makes of the plain value."""
        parts = self.parts if linear else (self.whole(),)
        return replace(self, plain=plain, parts=tuple(_over_maps(function, part) for part in parts))

    def flattened(self, plain: torch.Tensor) -> Touched:
        """After flattening, each channel a run of numbers."""
        return replace(self, layout="flat", plain=plain, parts=tuple(part.flatten(3) for part in self.parts))

    def spread(self, values: int) -> torch.Tensor:
        """The value itself: channels * values * images rows."""
        rows = repeated(self.plain, len(self.channels) * values)
        shaped = rows.unflatten(0, (len(self.channels), values, len(self.plain)))
        places = _channel_view(shaped, self.layout, self.total)
        places[torch.arange(len(self.channels), device=rows.device), :, :, self.channels] = (
            self.whole().movedim(2, 0).expand(-1, values, len(self.plain), *self.parts[0].shape[3:]).to(rows.dtype)
        )
        return shaped.flatten(0, 2)

    def added_to(self, rows: torch.Tensor, values: int) -> torch.Tensor:
        """Rows plus the value, without writing the value out."""
        shaped = rows.unflatten(0, (len(self.channels), values, len(self.plain))) + self.plain
        places = _channel_view(shaped, self.layout, self.total)
        places[torch.arange(len(self.channels), device=rows.device), :, :, self.channels] += (
            (self.whole() - self.own).movedim(2, 0).expand(-1, values, len(self.plain), *self.parts[0].shape[3:])
        ).to(shaped.dtype)
        return shaped.flatten(0, 2)

    def mixed(self, mixer: Mixer, plain: torch.Tensor, values: int) -> torch.Tensor:
        """After a linear operation over all channels: what it makes of the plain value, plus what changed (rows)."""
        count = len(self.plain)
        moved = plain.movedim(1, -1).contiguous() if mixer.maps else plain  # its channels last
        terms = [mixer(part, self.channels).contiguous() for part in (*self.parts, -self.own)]
        made = moved[None, None] + terms[-1]  # channels, values | 1, images, the shape
        for term in sorted(terms[:-1], key=torch.Tensor.numel):
            made = made + term
        made = made.expand(-1, values, count, *moved.shape[1:]).reshape(-1, *moved.shape[1:])
        return made.movedim(-1, 1) if mixer.maps else made

    def kept_apart(self, conv: nn.Conv2d, plain: torch.Tensor) -> Touched:
        """After a convolution of each map alone."""
        weight = conv.weight[self.channels]

        def alone(part: torch.Tensor) -> torch.Tensor:
            return functional.conv2d(
                part, weight, None, conv.stride, conv.padding, conv.dilation, groups=len(self.channels)
            )

        parts = [_over_maps(alone, part) for part in (*self.parts, -self.own)]
        made = replace(self, plain=plain, parts=())
        return replace(made, parts=(made.own + parts[-1], *parts[:-1]))


@dataclass(frozen=True)
class Mixer:
    """A convolution or linear operation, applied to one input channel at a time."""

    module: nn.Module
    layout: Layout  # of what it is given
    total: int  # channels of what it is given

    @property
    def maps(self) -> bool:
        return isinstance(self.module, nn.Conv2d)

    def __call__(self, part: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
        """Values, images, channels, map -> channels, values, images, then the output's shape, its channels last."""
        values, images = part.shape[:2]
        if self.maps and not isinstance(self.module, TinyMapConv2d):
            return self._convolved(part.flatten(0, 1), channels).unflatten(1, (values, images))
        if self.layout == "last":
            weight = self.module.weight[:, channels].T  # type: ignore[index]
            held = part.movedim(2, 0).unsqueeze(-1)
            return held * weight.reshape(len(channels), *[1] * (held.dim() - 2), -1)
        held = part.flatten(3).flatten(0, 1).transpose(0, 1)  # channels, rows, positions
        made = torch.bmm(held.to(self._matrices(channels).dtype), self._matrices(channels))
        made = made.unflatten(1, (values, images))
        return made.unflatten(-1, (*self.module.made, -1)) if isinstance(self.module, TinyMapConv2d) else made

    def _matrices(self, channels: torch.Tensor) -> torch.Tensor:
        """Channels, positions, outputs."""
        if isinstance(self.module, TinyMapConv2d):
            return self.module.of_channels(channels)
        weight: torch.Tensor = self.module.weight  # type: ignore[assignment]
        return weight.unflatten(1, (self.total, -1))[:, channels].permute(1, 2, 0)

    def _convolved(self, maps: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
        """Rows, channels, height, width -> channels, rows, height, width, outputs."""
        conv: nn.Conv2d = self.module  # type: ignore[assignment]
        weight = conv.weight[:, channels].transpose(0, 1).flatten(0, 1).unsqueeze(1)
        made = functional.conv2d(
            maps,
            weight,
            None,
            conv.stride,
            conv.padding,
            conv.dilation,
            groups=len(channels),  # type: ignore[arg-type]
        )
        return made.unflatten(1, (len(channels), -1)).permute(1, 0, 3, 4, 2)


def repeated(value: torch.Tensor, times: int) -> torch.Tensor:
    """The whole batch, `times` over, in the memory format it has."""
    if value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last):
        return value.permute(0, 2, 3, 1).repeat(times, 1, 1, 1).permute(0, 3, 1, 2)
    return value.repeat(times, *[1] * (value.dim() - 1))


def _channel_view(shaped: torch.Tensor, layout: Layout, total: int) -> torch.Tensor:
    """Channels, values, images, then the value's own channels, then the rest of its shape."""
    if layout == "flat":
        return shaped.unflatten(3, (total, -1))
    return shaped.movedim(-1, 3) if layout == "last" else shaped


def _over_maps(function: Callable[[torch.Tensor], torch.Tensor], part: torch.Tensor) -> torch.Tensor:
    """A function of rows, channels, map over the first two dimensions of a part."""
    return function(part.flatten(0, 1)).unflatten(0, part.shape[:2])
