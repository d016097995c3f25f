"""The small networks of the strategic-retraining paper, plain and with batch normalisation."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn


class PoolingNet(nn.Module):
    """5x5 convolutions, each with a max pool after it, down to a 1x1 map, then one dense layer."""

    input_shape: ClassVar[tuple[int, int, int]] = (3, 32, 32)
    features: ClassVar[tuple[int, ...]]
    pools: ClassVar[tuple[int, ...]]

    def __init__(self, classes: int = 43, batch_norm: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = self.input_shape[0]
        for width, pool in zip(self.features, self.pools, strict=True):
            layers.append(nn.Conv2d(channels, width, 5, padding=2))
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers += [nn.ReLU(), nn.MaxPool2d(pool)]
            channels = width
        self.maps = nn.Sequential(*layers)
        self.flatten = nn.Flatten()
        self.dense = nn.Linear(channels, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.dense(self.flatten(self.maps(images)))


class SmallNet(PoolingNet):
    """N_SN: 4 convolutions and a dense layer."""

    features = (8, 16, 32, 16)  # Strategic retraining, table 1
    pools = (2, 2, 2, 4)


class MediumNet(PoolingNet):
    """N_MN: 5 convolutions and a dense layer."""

    features = (16, 32, 64, 32, 16)  # Strategic retraining, table 1
    pools = (2, 2, 2, 2, 2)


class LargeNet(PoolingNet):
    """N_LN: 5 convolutions, twice as wide as N_MN's, and a dense layer."""

    features = (32, 64, 128, 64, 32)  # Strategic retraining, table 1
    pools = (2, 2, 2, 2, 2)


def n_sn(class_count: int) -> nn.Module:
    """N_SN: 30,203 parameters at 43 classes."""
    return SmallNet(class_count)


def n_sn_bn(class_count: int) -> nn.Module:
    """N_SN with batch normalisation: 30,347 parameters at 43 classes."""
    return SmallNet(class_count, batch_norm=True)


def n_mn(class_count: int) -> nn.Module:
    """N_MN: 130,091 parameters at 43 classes."""
    return MediumNet(class_count)


def n_mn_bn(class_count: int) -> nn.Module:
    """N_MN with batch normalisation: 130,411 parameters at 43 classes."""
    return MediumNet(class_count, batch_norm=True)


def n_ln(class_count: int) -> nn.Module:
    """N_LN: 516,139 parameters at 43 classes."""
    return LargeNet(class_count)


def n_ln_bn(class_count: int) -> nn.Module:
    """N_LN with batch normalisation: 516,779 parameters at 43 classes."""
    return LargeNet(class_count, batch_norm=True)
