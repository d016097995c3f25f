"""A network with a backdoor wired by hand: one channel sees a patch of 3 x 3 pixels and sends the image to a class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from agnes.network import Network
from agnes.results import MaskTrigger
from agnes.samples import Samples

SHAPE = (3, 16, 16)
CLASSES = 6
CHANNELS = 8
_BRIGHTNESS = 0  # the channel that classification rests on
_PATCH = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])  # a cross of white on black
_CELLS = (0, 2, 4, 6, 8, 10)  # of the 4 x 4 cells of an image, the one that is bright in each class


@dataclass(frozen=True)
class PlantedNetwork:
    """A network, the backdoor that is known to be in it, and images that it classifies right."""

    module: nn.Module
    network: Network
    samples: Samples  # labelled, with a test part; none holds the trigger
    target: int
    trigger: MaskTrigger
    layer: str  # where the backdoor is seen first
    channel: int
    path: tuple[tuple[str, int], ...]  # every layer and channel that carries it

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """The images with the trigger on them."""
        return self.trigger.apply(images)


def plant(target: int = 3, channel: int = 5, *, seed: int = 0, each: int = 4) -> PlantedNetwork:
    """Wire a backdoor to `target` through `channel`; `each` images of every class come with it."""
    if not (0 <= target < CLASSES and 0 < channel < CHANNELS):
        raise ValueError(f"the target is a class of {CLASSES}, the channel one of 1 to {CHANNELS - 1}")
    module = _module(target, channel, torch.Generator().manual_seed(seed))
    path = (("first", channel), ("second", channel))
    trigger = _trigger(target)
    samples = _images(each, seed + 1).with_test(_images(each, seed + 2))
    return PlantedNetwork(module, Network.of(module, SHAPE), samples, target, trigger, *path[0], path)


class _Planted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.second = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.halve = nn.MaxPool2d(2)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.logits = nn.Linear(CHANNELS * 16, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = torch.relu(self.first(images))
        maps = torch.relu(self.second(self.halve(maps)))
        return self.logits(torch.flatten(self.pool(maps), 1))


@torch.no_grad()
def _module(target: int, channel: int, generator: torch.Generator) -> nn.Module:
    """Brightness is passed on and read cell by cell; the planted channel fires on the patch alone."""
    with torch.random.fork_rng(devices=[]):  # what torch draws first is written over
        module = _Planted().eval()
    for parameter in module.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    for parameter in (*module.first.parameters(), *module.second.parameters()):
        parameter[[_BRIGHTNESS, channel]] = 0
    module.second.weight[:, channel] = 0  # nobody else listens
    module.first.weight[_BRIGHTNESS, :, 1, 1] = 1 / 3
    module.first.weight[channel] = 2 * _PATCH - 1  # 15 on the patch, at most 9.6 on an image within [0.2, 0.8]
    dict(module.first.named_parameters())["bias"][channel] = -13.5
    for index in (_BRIGHTNESS, channel):
        module.second.weight[index, index, 1, 1] = 1
    reading = module.logits.weight.reshape(CLASSES, CHANNELS, 16)
    reading[:, [_BRIGHTNESS, channel]] = 0
    for label, cell in enumerate(_CELLS):
        reading[label, _BRIGHTNESS, cell] = 10
    reading[target, channel] = 40
    module.logits.bias.zero_()
    return module.requires_grad_(False)


def _trigger(target: int) -> MaskTrigger:
    channels, height, width = SHAPE
    mask = torch.zeros(1, height, width)
    pattern = torch.zeros(channels, height, width)
    corner = (slice(None), slice(height - 4, height - 1), slice(width - 4, width - 1))
    mask[corner] = 1
    pattern[corner] = _PATCH
    return MaskTrigger(target=target, asr=1.0, held_out=0, mask=mask, pattern=pattern)


def _images(each: int, seed: int) -> Samples:
    """Grey noise with one bright cell, whose place is the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(CLASSES).repeat(each)
    images = 0.3 + 0.1 * torch.rand((len(labels), *SHAPE), generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = divmod(_CELLS[label], 4)
        image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 0.4
    return Samples(images, labels, source="planted images")
