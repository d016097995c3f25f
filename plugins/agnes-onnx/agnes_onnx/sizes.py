"""The sizes of values by rule, where torch's way of finding them without data would import its compiler first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from agnes.layers import BATCH_NORMS

_KEEPING = (*BATCH_NORMS, nn.LayerNorm, nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Hardswish, nn.SiLU, nn.GELU, nn.Softmax)
_REDUCING = (torch.mean, torch.sum, torch.amax)
_BROADCASTING = (torch.add, torch.sub, torch.mul, torch.div, torch.pow, torch.maximum, torch.minimum)


def by_rule(target: Any, args: Sequence[Any]) -> torch.Tensor | None:
    """What a module or function gives for meta tensors, as a meta tensor; None where no rule is known."""
    if isinstance(target, _KEEPING):
        return args[0]
    if isinstance(target, nn.Conv2d):
        return _convolved(target, args[0])
    if target in _BROADCASTING:
        shapes = [value.shape for value in args if isinstance(value, torch.Tensor)]
        return torch.empty(np.broadcast_shapes(*shapes), dtype=torch.result_type(*args), device="meta")
    if target in _REDUCING:
        return _reduced(*args)
    return None


def _reduced(value: torch.Tensor, dims: Sequence[int], keep: bool) -> torch.Tensor:
    kept = [1 if d in dims else size for d, size in enumerate(value.shape) if keep or d not in dims]
    return torch.empty(kept, device="meta")


def _convolved(conv: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
    if images.shape[1] != conv.in_channels:
        raise ValueError(f"it takes {conv.in_channels} channels and is given {images.shape[1]}")
    if conv.groups < 1 or conv.in_channels % conv.groups or conv.out_channels % conv.groups or min(conv.stride) < 1:
        raise ValueError("its groups or strides do not fit its channels")
    settings = zip(images.shape[2:], conv.kernel_size, conv.stride, conv.padding, conv.dilation, strict=True)
    sizes = [(size + 2 * int(pad) - dilation * (k - 1) - 1) // stride + 1 for size, k, stride, pad, dilation in settings]
    if min(sizes) < 1:
        raise ValueError("its input is smaller than its kernel")
    return torch.empty(images.shape[0], conv.out_channels, *sizes, device="meta")
