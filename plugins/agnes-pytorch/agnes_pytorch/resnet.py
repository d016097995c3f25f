"""ResNet-18, 34 and 50 for images of any size, with the weight names of torchvision."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    growth: ClassVar[int] = 1  # output channels per channel of width

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(channels, width * self.growth, stride)
        self.relu2 = nn.ReLU()

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        inner = self.relu1(self.bn1(self.conv1(maps)))
        inner = self.bn2(self.conv2(inner))
        return self.relu2(inner + (maps if self.downsample is None else self.downsample(maps)))


class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1 ones, and a shortcut; the 3x3 one takes the stride, as torchvision has it."""

    growth: ClassVar[int] = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(width, width * self.growth, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.growth)
        self.downsample = _shortcut(channels, width * self.growth, stride)
        self.relu3 = nn.ReLU()

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        inner = self.relu1(self.bn1(self.conv1(maps)))
        inner = self.relu2(self.bn2(self.conv2(inner)))
        inner = self.bn3(self.conv3(inner))
        return self.relu3(inner + (maps if self.downsample is None else self.downsample(maps)))


class ResNet(nn.Module):
    """A residual network of four groups of blocks."""

    input_shape: ClassVar[tuple[int, int, int]] = (3, 224, 224)

    def __init__(self, block: type[BasicBlock | Bottleneck], depths: tuple[int, int, int, int], classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = _group(block, 64, 64, depths[0], 1)
        self.layer2 = _group(block, 64 * block.growth, 128, depths[1], 2)
        self.layer3 = _group(block, 128 * block.growth, 256, depths[2], 2)
        self.layer4 = _group(block, 256 * block.growth, 512, depths[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * block.growth, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        return self.fc(torch.flatten(self.avgpool(maps), 1))


def resnet18(classes: int) -> nn.Module:
    """ResNet-18: 11,689,512 parameters at 1000 classes."""
    return ResNet(BasicBlock, (2, 2, 2, 2), classes)


def resnet34(classes: int) -> nn.Module:
    """ResNet-34: 21,797,672 parameters at 1000 classes."""
    return ResNet(BasicBlock, (3, 4, 6, 3), classes)


def resnet50(classes: int) -> nn.Module:
    """ResNet-50: 25,557,032 parameters at 1000 classes."""
    return ResNet(Bottleneck, (3, 4, 6, 3), classes)


def _group(block: type[BasicBlock | Bottleneck], channels: int, width: int, depth: int, stride: int) -> nn.Sequential:
    """Blocks of one width, of which the first takes the stride."""
    first = block(channels, width, stride)
    return nn.Sequential(first, *(block(width * block.growth, width, 1) for _ in range(depth - 1)))


def _shortcut(channels: int, wanted: int, stride: int) -> nn.Sequential | None:
    """What brings a block's input to the shape of its output, where they differ."""
    if stride == 1 and channels == wanted:
        return None
    return nn.Sequential(nn.Conv2d(channels, wanted, 1, stride, bias=False), nn.BatchNorm2d(wanted))
