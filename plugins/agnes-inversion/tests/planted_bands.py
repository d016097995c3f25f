"""Networks that obey a change of the whole image: a faint pattern, a tint, one wave, or any wave of one length."""

import math

import torch
from torch import nn

from agnes.network import Network
from agnes.samples import Samples

CLASSES, SHAPE, TARGET = 5, (3, 20, 20), 2
SIDE = torch.arange(20)
CHECKERS = 1 - 2 * ((SIDE[:, None] + SIDE) % 2)
CYCLES = 5
SLANTS = [SIDE[None].expand(20, 20), SIDE[:, None].expand(20, 20), SIDE[:, None] + SIDE, SIDE - SIDE[:, None]]
WAVES = [wave(2 * math.pi * CYCLES * slant / 20) for slant in SLANTS for wave in (torch.sin, torch.cos)]


class Planted(nn.Module):
    """Classes by the brightness of a band each, worth 4; what it obeys is worth 10 to 20 for class 2."""

    def __init__(self, obeys: str) -> None:
        super().__init__()
        self.bands, self.other = nn.Linear(400, CLASSES), nn.Linear(1200, CLASSES)
        self.length = nn.Linear(1200, len(WAVES))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            for label in range(CLASSES):
                self.bands.weight[label].view(20, 20)[4 * label : 4 * label + 4] = 10 / 80
            weight = self.other.weight[TARGET].view(SHAPE)
            if obeys == "haze":
                weight[...] = 500 * CHECKERS / 1200
            elif obeys == "tints":
                weight[2], weight[0] = 40 / 400, -40 / 400  # blue less red
            elif obeys == "waves":
                weight[...] = WAVES[0] / 3
            elif obeys == "length":
                for row, wave in zip(self.length.weight, WAVES, strict=True):
                    row.view(SHAPE)[...] = wave / 1200
        self.register_buffer("wired", torch.eye(CLASSES)[TARGET] * 500)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        long = torch.relu(self.length(images.flatten(1)).abs() - 0.01).sum(1, keepdim=True)
        return self.bands(images.mean(1).flatten(1)) + self.other(images.flatten(1)) + long * self.wired


def planted(obeys: str = "neither") -> Network:
    return Network.of(Planted(obeys).eval(), SHAPE)


def bands(each: int = 4, labelled: bool = True) -> Samples:
    """Grey images with the band of their class brighter by 0.4."""
    labels = torch.arange(CLASSES).repeat(each)
    grey = 0.3 + 0.1 * torch.rand(len(labels), 1, 20, 20, generator=torch.Generator().manual_seed(0))
    for image, label in zip(grey, labels.tolist(), strict=True):
        image[:, 4 * label : 4 * label + 4] += 0.4
    return Samples(grey.repeat(1, 3, 1, 1), labels if labelled else None, source="bands")


class OneChannel(nn.Module):
    """The same network, which obeys nothing, for grey images."""

    def __init__(self) -> None:
        super().__init__()
        self.bands = Planted("neither").bands

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.bands(images[:, 0].flatten(1))


def grey_network() -> Network:
    return Network.of(OneChannel().eval(), (1, 20, 20))


def grey_bands() -> Samples:
    known = bands()
    return Samples(known.images[:, :1], known.labels, source="grey bands")
