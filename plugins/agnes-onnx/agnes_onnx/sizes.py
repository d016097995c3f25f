"""The sizes of values by rule, where torch's way of finding them without data would import its compiler first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from agnes.layers import BATCH_NORMS

_KEEPING = (
    *BATCH_NORMS, nn.LayerNorm, nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Hardswish, nn.SiLU, nn.GELU, nn.Mish, nn.Softplus,
    nn.Sigmoid, nn.Hardsigmoid, nn.Tanh, nn.LeakyReLU, nn.ELU, nn.SELU, nn.Softmax, nn.LogSoftmax,
)  # fmt: skip
_POOLS = (nn.MaxPool2d, nn.AvgPool2d)
_GLOBAL_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_REDUCING = (torch.mean, torch.sum, torch.amax)
_BROADCASTING = (torch.add, torch.sub, torch.mul, torch.div, torch.pow, torch.maximum, torch.minimum)


def by_rule(target: Any, args: Sequence[Any]) -> torch.Tensor | None:
    """What a module or function gives for meta tensors, as a meta tensor; None where no rule is known."""
    if isinstance(target, _KEEPING):
        return args[0]
    if isinstance(target, nn.Conv2d):
        return _convolved(target, args[0])
    if isinstance(target, _POOLS):
        return _pooled(target, args[0])
    if isinstance(target, _GLOBAL_POOLS) and target.output_size == 1:
        return _empty(*args[0].shape[:2], 1, 1)
    if isinstance(target, nn.Linear) and args[0].shape[-1] == target.in_features:
        return _empty(*args[0].shape[:-1], target.out_features)
    if target in _BROADCASTING:
        shapes = [value.shape for value in args if isinstance(value, torch.Tensor)]
        return torch.empty(np.broadcast_shapes(*shapes), dtype=torch.result_type(*args), device="meta")
    if target in _REDUCING:
        return _reduced(*args)
    return None


def _empty(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def _reduced(value: torch.Tensor, dims: Sequence[int], keep: bool) -> torch.Tensor:
    return _empty(*(1 if d in dims else size for d, size in enumerate(value.shape) if keep or d not in dims))


def _convolved(conv: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
    if images.shape[1] != conv.in_channels:
        raise ValueError(f"it takes {conv.in_channels} channels and is given {images.shape[1]}")
    sizes = [_slid(*each) for each in zip(images.shape[2:], *_window(conv), (False, False), strict=True)]
    return _checked(images.shape[0], conv.out_channels, *sizes)


def _pooled(pool: nn.MaxPool2d | nn.AvgPool2d, images: torch.Tensor) -> torch.Tensor:
    sizes = [_slid(*each) for each in zip(images.shape[2:], *_window(pool), (pool.ceil_mode,) * 2, strict=True)]
    return _checked(*images.shape[:2], *sizes)


def _window(module: Any) -> tuple[Sequence[int], ...]:
    """Kernel, stride, padding and dilation over height and width."""
    given = module.kernel_size, module.stride, module.padding, getattr(module, "dilation", 1)
    return tuple(each if isinstance(each, tuple) else (each, each) for each in given)


def _slid(size: int, kernel: int, stride: int, pad: int, dilation: int, up: bool) -> int:
    """How often a window fits; rounded up, it must still begin inside the image or the padding before it."""
    if min(kernel, stride, dilation) < 1 or pad < 0:
        raise ValueError("its kernel, stride, padding or dilation is not a positive number")
    free = size + 2 * pad - dilation * (kernel - 1) - 1
    steps = -(-free // stride) if up else free // stride
    return steps if up and steps * stride >= size + pad else steps + 1


def _checked(*shape: int) -> torch.Tensor:
    if min(shape) < 1:
        raise ValueError("its input is smaller than its window")
    return _empty(*shape)
