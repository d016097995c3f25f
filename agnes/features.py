"""Triggers in feature space: a filter that mixes each pixel's colours with those around it (ABS, section 4.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from agnes.results import Trigger


@dataclass(frozen=True, kw_only=True)
class FeatureTrigger(Trigger):
    """x' = clip(mix · [x, maxpool x, minpool x, avgpool x, 1])."""

    mix: torch.Tensor = field(compare=False, repr=False)  # channels, 4 x channels + 1
    window: int = 3  # side of the pools' window
    changed: torch.Tensor = field(compare=False, repr=False)  # height, width: the mean over images it was made on

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        mix = self.mix.to(images)
        return mixed(images, mix.expand(len(images), *mix.shape), self.window)

    @property
    def channels(self) -> int:
        return len(self.mix)

    def change(self) -> torch.Tensor:
        return self.changed

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        return {
            "mix": self.mix.detach().cpu().numpy(),
            "window": np.array(self.window),
            "changed": self.changed.detach().cpu().numpy(),
        }


def mixed(images: torch.Tensor, mix: torch.Tensor, window: int) -> torch.Tensor:
    """Each image under the mix of its row, inside [0, 1]."""
    weights, constant = mix[:, :, :-1], mix[:, :, -1]
    return (torch.einsum("nck,nkhw->nchw", weights, pooled(images, window)) + constant[..., None, None]).clamp(0, 1)


def pooled(images: torch.Tensor, window: int) -> torch.Tensor:
    """An image beside the largest, the least and the mean of what lies around each pixel; 4 x channels."""
    margin = window // 2
    most = functional.max_pool2d(images, window, 1, margin)
    least = -functional.max_pool2d(-images, window, 1, margin)
    mean = functional.avg_pool2d(images, window, 1, margin, count_include_pad=False)
    return torch.cat([images, most, least, mean], 1)


def identity(channels: int) -> torch.Tensor:
    """The mix that changes nothing."""
    return torch.eye(channels, 4 * channels + 1)
