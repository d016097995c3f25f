"""The sizes of values by rule, where torch's way of finding them without data would import its compiler first."""

from __future__ import annotations

import math
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
_PADS = (nn.ZeroPad2d, nn.ConstantPad2d, nn.ReplicationPad2d)
_UNARY = (
    torch.sqrt, torch.exp, torch.log, torch.erf, torch.abs, torch.neg, torch.reciprocal, torch.floor, torch.sin,
    torch.cos,
)  # fmt: skip
_SCATTERED = 8  # what a number costs beyond one of a dense product
_REDUCING = (torch.mean, torch.sum, torch.amax)
_BROADCASTING = (torch.add, torch.sub, torch.mul, torch.div, torch.pow, torch.maximum, torch.minimum)


def by_rule(target: Any, args: Sequence[Any]) -> torch.Tensor | None:
    """What a module or function gives for meta tensors, as a meta tensor; None where no rule is known."""
    if isinstance(target, _KEEPING) or getattr(target, "keeps_size", False):
        return args[0]
    if isinstance(target, nn.Conv2d):
        return _convolved(target, args[0])
    if isinstance(target, _POOLS):
        return _pooled(target, args[0])
    if isinstance(target, _GLOBAL_POOLS) and target.output_size == 1:
        return _empty(*args[0].shape[:2], 1, 1)
    if isinstance(target, nn.Linear) and args[0].shape[-1] == target.in_features:
        return _empty(*args[0].shape[:-1], target.out_features)
    if isinstance(target, _PADS):
        left, right, top, bottom = target.padding
        height, width = args[0].shape[2:]
        return _checked(*args[0].shape[:2], height + top + bottom, width + left + right)
    if getattr(target, "broadcasts", False):
        return _empty(*np.broadcast_shapes(args[0].shape, *(value.shape for value in target.buffers())))
    return _function_by_rule(target, args)


def _function_by_rule(target: Any, args: Sequence[Any]) -> torch.Tensor | None:
    if target in _UNARY:
        return args[0]
    if target in _BROADCASTING:
        shapes = [value.shape for value in args if isinstance(value, torch.Tensor)]
        return torch.empty(np.broadcast_shapes(*shapes), dtype=torch.result_type(*args), device="meta")
    if target is torch.matmul:
        return _product(*args)
    if target is torch.cat:
        return _joined(*args)
    if target in _REDUCING:
        return _reduced(*args)
    return None


def work(target: Any, args: Sequence[Any], count: int) -> int:
    """About how many multiplications it takes to make `count` numbers; what is no dense product counts as many."""
    read = sum(value.numel() for value in args if isinstance(value, torch.Tensor))
    if isinstance(target, nn.Module):
        weight = getattr(target, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.dim() > 1:
            scattered = _SCATTERED if getattr(target, "groups", 1) > 1 else 1
            return scattered * max(count, read) * max(1, weight[0].numel())
        window = getattr(target, "kernel_size", getattr(target, "size", 1))
        return _SCATTERED * (read + count * (math.prod(window) if isinstance(window, tuple) else _area(window)))
    return count * args[0].shape[-1] if target is torch.matmul else _SCATTERED * (read + count)


def _area(window: Any) -> int:
    return window * window if isinstance(window, int) else 1


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor | None:
    if left.dim() < 2 or right.dim() < 2:
        return None
    if left.shape[-1] != right.shape[-2]:
        raise ValueError(f"it multiplies {left.shape[-1]} columns by {right.shape[-2]} rows")
    return _empty(*np.broadcast_shapes(left.shape[:-2], right.shape[:-2]), left.shape[-2], right.shape[-1])


def _joined(parts: Sequence[torch.Tensor], dim: int) -> torch.Tensor:
    others = {(*part.shape[:dim], *part.shape[dim + 1 :]) for part in parts}
    if len(others) > 1 or len({part.dim() for part in parts}) > 1:
        raise ValueError("the sizes of its inputs differ")
    shape = list(parts[0].shape)
    shape[dim] = sum(part.shape[dim] for part in parts)
    return torch.empty(shape, dtype=parts[0].dtype, device="meta")


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
