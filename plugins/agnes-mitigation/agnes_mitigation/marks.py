"""Marks as nobody planted them: patches, lines, patterns, tints and waves drawn at random, each image its own."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from agnes_mitigation.training import moves, taken

PIECES = 3  # patches or lines on an image at most
REACH = 10  # a trigger is moved by up to a side divided by this
LOCAL = 0.25  # of the image: a trigger that changes more has no place to be moved from
WEAKEST, STRONGEST = 0.6, 1.6  # times what a trigger changes
COLOURS = 0.3  # spread of what each colour of that is multiplied with


def marked(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image under a mark: half of them patches or lines, the others a pattern blended in, a tint or a wave."""
    kind = torch.randint(6, (len(images), 1, 1, 1), generator=generator).to(images.device)
    found = torch.where(kind < 3, _patched(images, kind == 2, generator), _blended(images, generator))
    found = torch.where(kind == 4, _tinted(images, generator), found)
    return torch.where(kind == 5, _waved(images, generator), found).clamp(0, 1)


def varied(images: torch.Tensor, stamped: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images under a trigger, half of them with the trigger moved, weaker or stronger, in other colours.

    What was found is seldom quite what was planted: a network that has unlearnt the one obeys the other.
    """
    count, channels, height, width = images.shape
    change = stamped - images

    def places(length: int) -> torch.Tensor:
        return (torch.arange(length) + moves(count, length // REACH, generator)) % length

    moved = taken(change, places(height), places(width))
    local = (change.abs().amax(1) > 1 / 255).float().mean((1, 2)) < LOCAL
    moved = torch.where(local[:, None, None, None], moved, change)
    strength = WEAKEST + (STRONGEST - WEAKEST) * torch.rand(count, 1, 1, 1, generator=generator)
    colours = 1 + COLOURS * torch.randn(count, channels, 1, 1, generator=generator)
    found = (images + (strength * colours).to(images) * moved).clamp(0, 1)
    return torch.where(_chance(count, 0.5, generator).to(images.device), found, stamped)


def _patched(images: torch.Tensor, lines: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Up to three patches, to a quarter of a side long, or thin lines, of a colour or of noise, solid or half clear."""
    count, channels, height, width = images.shape
    mask = torch.zeros(count, 1, height, width)
    pieces = torch.randint(1, PIECES + 1, (count, 1, 1, 1), generator=generator)
    for number in range(PIECES):
        boxes = _boxes(count, height, width, lines.cpu().flatten(), generator)
        mask = torch.where(boxes & (number < pieces), torch.ones(()), mask)

    def drawn(*shape: int) -> torch.Tensor:
        values = torch.rand(count, channels, *shape, generator=generator)
        return torch.where(_chance(count, 0.5, generator), values.round(), values)

    fill = torch.where(_chance(count, 0.6, generator), drawn(1, 1), drawn(height, width))
    clear = 0.3 + 0.7 * torch.rand(count, 1, 1, 1, generator=generator)
    mask = (mask * torch.where(_chance(count, 0.6, generator), torch.ones(()), clear)).to(images)
    return images * (1 - mask) + fill.to(images) * mask


def _boxes(count: int, height: int, width: int, lines: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Where a box lies in each image: small ones far likelier than large ones, or lines of a quarter of a side on."""

    def small(length: int) -> torch.Tensor:
        return torch.rand(count, generator=generator).mul(math.log(max(2, length // 4))).exp().round().long()

    def long(length: int) -> torch.Tensor:
        return torch.randint(max(1, length // 4), length + 1, (count,), generator=generator)

    flat = torch.rand(count, generator=generator) < 0.5
    thin = torch.randint(1, 3, (count,), generator=generator)
    high = torch.where(lines, torch.where(flat, thin, long(height)), small(height))
    wide = torch.where(lines, torch.where(flat, long(width), thin), small(width))

    def within(length: int, size: torch.Tensor) -> torch.Tensor:
        first = (torch.rand(count, generator=generator) * (length - size + 1)).long()[:, None]
        place = torch.arange(length)
        return (place >= first) & (place < first + size[:, None])

    return (within(height, high)[:, :, None] & within(width, wide)[:, None, :]).unsqueeze(1)


def _blended(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A pattern of coarse or fine grain, mixed in by 5 to 30 %."""
    count, channels, height, width = images.shape
    grains = [
        functional.interpolate(torch.rand(count, channels, side, side, generator=generator), (height, width), mode=mode)
        for side, mode in ((2, "bilinear"), (4, "bilinear"), (8, "bilinear"), (16, "bilinear"), (32, "nearest"))
    ]
    chosen = torch.randint(len(grains), (count,), generator=generator)
    pattern = torch.stack(grains)[chosen, torch.arange(count)]
    pattern = torch.where(_chance(count, 0.5, generator), pattern, (3 * pattern - 1).clamp(0, 1))
    share = (0.05 + 0.25 * torch.rand(count, 1, 1, 1, generator=generator)).to(images)
    return (1 - share) * images + share * pattern.to(images)


def _tinted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Colours mixed and shifted as a filter does."""
    count, channels, _, _ = images.shape
    mix = torch.eye(channels) + 0.25 * torch.randn(count, channels, channels, generator=generator)
    shift = 0.15 * torch.randn(count, channels, 1, generator=generator)
    return (mix.to(images) @ images.flatten(2) + shift.to(images)).view_as(images)


def _waved(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A plane wave of one to nine periods added."""
    count, _, height, width = images.shape
    angle, periods, strength = (torch.rand(count, 1, 1, 1, generator=generator) for _ in range(3))
    angle = 2 * math.pi * angle
    down, right = torch.arange(height)[:, None] / height, torch.arange(width)[None, :] / width
    phase = 2 * math.pi * (1 + 8 * periods) * (angle.cos() * right + angle.sin() * down) + 3 * angle
    return images + ((0.03 + 0.2 * strength) * phase.sin()).to(images)


def _chance(count: int, share: float, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(count, 1, 1, 1, generator=generator) < share
