"""What a trained network is able to do, and what was put into it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from agnes_zoo.attacks import Attack

_BATCH = 512  # images measured at once


def predictions(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The class each image is given, with the module in eval mode; its mode is put back."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            return torch.cat([module(part).argmax(1) for part in images.split(_BATCH)])
    finally:
        module.train(was_training)


def accuracy(module: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of images classified right."""
    return float((predictions(module, images) == labels).float().mean())


def attack_success(
    module: nn.Module, images: torch.Tensor, labels: torch.Tensor, attack: Attack | Any, target: int | None = None
) -> float:
    """The share of images on which the attack succeeds; a bare trigger is told where it is to lead."""
    from agnes_zoo.attacks import success, success_rate

    if target is not None:
        return success_rate(predictions(module, attack.stamp(images)), labels, target)
    return success(predictions(module, attack.stamp(images, labels)), labels, attack)
