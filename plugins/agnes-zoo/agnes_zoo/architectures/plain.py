"""Networks whose layers follow each other: those of the AGNES, overactivation and ABS papers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

_SIGNS = (3, 32, 32)
_DIGITS = (1, 28, 28)


class Plain(nn.Module):
    """Layers, one after the other."""

    def __init__(self, input_shape: tuple[int, int, int], *layers: nn.Module) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.layers = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


def fc1(class_count: int) -> nn.Module:
    """FC1 of AGNES: 3,072,155 parameters at 43 classes."""
    return Plain(_SIGNS, nn.Flatten(), *_dense(3072, 864, 400, 160), nn.Linear(160, class_count))


def fc2(class_count: int) -> nn.Module:
    """FC2 of AGNES: 3,987,691 parameters at 43 classes."""
    return Plain(_SIGNS, nn.Flatten(), *_dense(3072, 864, 864, 512, 256), nn.Linear(256, class_count))


def fc3(class_count: int) -> nn.Module:
    """FC3 of AGNES: 4,877,387 parameters at 43 classes."""
    return Plain(_SIGNS, nn.Flatten(), *_dense(3072, 864, 864, 864, 512, 512), nn.Linear(512, class_count))


def nn1(class_count: int) -> nn.Module:
    """NN1 of AGNES: 80,243 parameters at 43 classes; five convolutions without pooling."""
    first = (nn.Conv2d(3, 8, 7, stride=2, padding=1), nn.ReLU())  # to 14x14
    later = [_conv(before, after, 3) for before, after in ((8, 16), (16, 32), (32, 16), (16, 8))]
    return Plain(_SIGNS, *first, *_flat(later), nn.Flatten(), nn.Linear(8 * 14 * 14, class_count))


def lenet(class_count: int) -> nn.Module:
    """LeNet of AGNES: 123,883 parameters at 43 classes."""
    maps = (nn.Conv2d(3, 6, 11), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2))  # to 3x3
    dense = (*_dense(16 * 3 * 3, 400, 120), nn.Dropout(), *_dense(120, 80), nn.Dropout(), nn.Linear(80, class_count))
    return Plain(_SIGNS, *maps, nn.Flatten(), *dense)


def alexnet(class_count: int) -> nn.Module:
    """AlexNet of AGNES: 1,264,295 parameters at 43 classes."""
    maps = (*_conv(3, 9, 3), nn.MaxPool2d(3, 2), *_conv(9, 32, 3), nn.MaxPool2d(3, 2))
    later = (*_conv(32, 48, 3), *_conv(48, 64, 3), *_conv(64, 96, 3), nn.MaxPool2d(3, 2))  # to 3x3
    dense = (*_dense(96 * 3 * 3, 864, 400), nn.Dropout(), *_dense(400, 160), nn.Dropout(), nn.Linear(160, class_count))
    return Plain(_SIGNS, *maps, *later, nn.Flatten(), *dense)


def vgg(class_count: int) -> nn.Module:
    """VGG of AGNES: 1,893,451 parameters at 43 classes."""
    layers: list[nn.Module] = []
    channels = 3
    for index, width in enumerate((16, 32, 64, 64, 128, 64)):
        halving = index < 3  # 32, 15, 7, 3: after that there is nothing left to halve
        pool = nn.MaxPool2d(3, 2) if halving else nn.MaxPool2d(3, 1, padding=1)
        layers += [*_conv(channels, width, 3 if index else 5), pool]
        channels = width
    return Plain(_SIGNS, *layers, nn.Flatten(), *_dense(64 * 3 * 3, 1024, 1024), nn.Linear(1024, class_count))


def mnist_2conv(class_count: int) -> nn.Module:
    """MNIST's and FashionMNIST's 2 conv and 1 dense of overactivation: 18,378 parameters at 10 classes."""
    maps = (nn.Conv2d(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2))  # to 4x4
    return Plain(_DIGITS, *maps, nn.Flatten(), nn.Linear(32 * 4 * 4, class_count))


def gtsrb_5conv(class_count: int) -> nn.Module:
    """GTSRB's 5 conv of overactivation: 547,051 parameters at 43 classes."""
    widths = ((3, 32), (32, 64), (64, 128), (128, 128), (128, 256))
    blocks = [(*_conv(before, after, 3), nn.MaxPool2d(2)) for before, after in widths]  # to 1x1
    return Plain(_SIGNS, *_flat(blocks), nn.Flatten(), nn.Linear(256, class_count))


def abs_lenet(class_count: int) -> nn.Module:
    """LeNet of ABS, Neural Cleanse's network for GTSRB: 571,723 parameters at 43 classes."""
    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 128)):
        layers += [*_conv(before, after, 3), nn.Conv2d(after, after, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.2)]
    return Plain(_SIGNS, *layers, nn.Flatten(), *_dense(512, 512), nn.Dropout(), nn.Linear(512, class_count))


def nin(class_count: int) -> nn.Module:
    """NiN of ABS: 966,986 parameters at 10 classes."""
    first = (*_conv(3, 192, 5), *_conv(192, 160, 1), *_conv(160, 96, 1), nn.MaxPool2d(3, 2, padding=1), nn.Dropout())
    second = (*_conv(96, 192, 5), *_conv(192, 192, 1), *_conv(192, 192, 1), nn.MaxPool2d(3, 2, padding=1), nn.Dropout())
    third = (*_conv(192, 192, 3), *_conv(192, 192, 1), nn.Conv2d(192, class_count, 1))
    return Plain(_SIGNS, *first, *second, *third, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def mobilenet(class_count: int) -> nn.Module:
    """A small MobileNet: depthwise and pointwise convolutions in turn, all normalised."""
    layers: list[nn.Module] = [*_normed(3, 16, 3)]
    for before, after, stride in ((16, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)):
        layers += [*_normed(before, before, 3, stride, groups=before), *_normed(before, after, 1)]
    return Plain(_SIGNS, *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, class_count))


def _conv(before: int, after: int, side: int) -> tuple[nn.Module, ...]:
    """A convolution that keeps the map's size, and its activation."""
    return nn.Conv2d(before, after, side, padding=side // 2), nn.ReLU()


def _normed(before: int, after: int, side: int, stride: int = 1, groups: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(before, after, side, stride, side // 2, groups=groups, bias=False)
    return convolution, nn.BatchNorm2d(after), nn.ReLU6()


def _dense(before: int, *widths: int) -> tuple[nn.Module, ...]:
    """Dense layers, each with its activation."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(before, width), nn.ReLU()]
        before = width
    return tuple(layers)


def _flat(groups: Sequence[Sequence[nn.Module]]) -> list[nn.Module]:
    return [layer for group in groups for layer in group]
