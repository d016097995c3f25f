"""A network as a search runs it: quick to compute, and to differentiate by its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from agnes.network import Network

Logits = Callable[[torch.Tensor], torch.Tensor]


def quick(network: Network) -> Network:
    """A copy that is quick to differentiate: BatchNorm folded, channels last."""
    folded = network.fold_batch_norm()
    folded.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # our own copy
    return folded


def logits_of(network: Network) -> Logits:
    """A quick network as a function."""
    return lambda images: network.module(images.contiguous(memory_format=torch.channels_last))
