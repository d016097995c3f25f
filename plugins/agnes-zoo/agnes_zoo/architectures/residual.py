"""Pre-activation residual networks for small images, as ABS takes them for CIFAR-10 and GTSRB."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn


class PreActivationBlock(nn.Module):
    """Twice normalisation, activation and a 3x3 convolution; the shortcut leaves after the first activation."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.projection = nn.Conv2d(channels, width, 1, stride) if stride > 1 else None

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        active = self.relu1(self.bn1(maps))
        inner = self.conv2(self.relu2(self.bn2(self.conv1(active))))
        return inner + (maps if self.projection is None else self.projection(active))


class PreActivationResNet(nn.Module):
    """Three groups of blocks, 16, 32 and 64 channels wide."""

    input_shape: ClassVar[tuple[int, int, int]] = (3, 32, 32)

    def __init__(self, depth: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.group1 = _group(16, 16, depth, 1)
        self.group2 = _group(16, 32, depth, 2)
        self.group3 = _group(32, 64, depth, 2)
        self.bn = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dense = nn.Linear(64, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.group3(self.group2(self.group1(self.conv(images))))
        return self.dense(torch.flatten(self.pool(self.relu(self.bn(maps))), 1))


def resnet8(class_count: int) -> nn.Module:
    """A pre-activation ResNet of 8 layers, for tests of repair."""
    return PreActivationResNet(1, class_count)


def resnet32(class_count: int) -> nn.Module:
    """ResNet32 of ABS: 467,946 parameters at 10 classes, 470,218 with the statistics of normalisation."""
    return PreActivationResNet(5, class_count)


def resnet110(class_count: int) -> nn.Module:
    """ResNet110 of ABS: 1,734,666 parameters at 10 classes, 1,742,762 with the statistics of normalisation."""
    return PreActivationResNet(18, class_count)


def _group(channels: int, width: int, depth: int, stride: int) -> nn.Sequential:
    """Blocks of one width, of which the first takes the stride."""
    first = PreActivationBlock(channels, width, stride)
    return nn.Sequential(first, *(PreActivationBlock(width, width, 1) for _ in range(depth - 1)))
