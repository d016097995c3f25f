"""VGG-11 and 16, plain and with batch normalisation, with the weight names of torchvision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

_ELEVEN = ((64,), (128,), (256, 256), (512, 512), (512, 512))  # channels; a max pool after each group
_SIXTEEN = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(nn.Module):
    """Groups of 3x3 convolutions, then three dense layers over a 7x7 map."""

    input_shape: ClassVar[tuple[int, int, int]] = (3, 224, 224)

    def __init__(self, groups: Sequence[Sequence[int]], classes: int, batch_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for group in groups:
            for width in group:
                norm = [nn.BatchNorm2d(width)] if batch_norm else []
                layers += [nn.Conv2d(channels, width, 3, padding=1), *norm, nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            *(nn.Linear(channels * 49, 4096), nn.ReLU(), nn.Dropout()),
            *(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout()),
            nn.Linear(4096, classes),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(images)), 1))


def vgg11(classes: int) -> nn.Module:
    """VGG-11: 132,863,336 parameters at 1000 classes."""
    return VGG(_ELEVEN, classes, batch_norm=False)


def vgg11_bn(classes: int) -> nn.Module:
    """VGG-11 with batch normalisation: 132,868,840 parameters at 1000 classes."""
    return VGG(_ELEVEN, classes, batch_norm=True)


def vgg16(classes: int) -> nn.Module:
    """VGG-16: 138,357,544 parameters at 1000 classes."""
    return VGG(_SIXTEEN, classes, batch_norm=False)


def vgg16_bn(classes: int) -> nn.Module:
    """VGG-16 with batch normalisation: 138,365,992 parameters at 1000 classes."""
    return VGG(_SIXTEEN, classes, batch_norm=True)
