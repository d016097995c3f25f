"""Pooling, global and over windows, and reductions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from agnes_onnx.folding import axes_of
from agnes_onnx.operators.table import Unsupported, converts
from agnes_onnx.operators.weighted import pads_of, pair, torch_padding

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from torch import fx

    from agnes_onnx.graph import Builder, Operation


class InsideAverage(nn.Module):
    """Average pooling with uneven padding that does not count."""

    agnes_kind = "avg_pool"

    def __init__(self, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, ...]) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        inside = torch.ones_like(images[:1, :1])
        sums, counts = (
            functional.avg_pool2d(functional.pad(part, self.padding), self.kernel, self.stride)
            for part in (images, inside)
        )
        return sums / counts


@converts("GlobalAveragePool")
def global_average_pool(op: Operation, graph: Builder) -> fx.Node:
    return _global(op, graph, nn.AdaptiveAvgPool2d(1))


@converts("GlobalMaxPool")
def global_max_pool(op: Operation, graph: Builder) -> fx.Node:
    return _global(op, graph, nn.AdaptiveMaxPool2d(1))


def _global(op: Operation, graph: Builder, module: nn.Module) -> fx.Node:
    images = graph.node(op.inputs[0])
    if graph.rank(images) != 4:
        raise Unsupported("its input is not images")
    return graph.module(op, module, images)


@converts("MaxPool")
def max_pool(op: Operation, graph: Builder) -> fx.Node:
    images, kernel, stride, pads = _window(op, graph)
    if pads[:2] != pads[2:] or any(2 * p > k for p, k in zip(pads, kernel, strict=False)):
        images = graph.module(op, nn.ConstantPad2d(torch_padding(pads), -math.inf), images)
        pads = [0] * 4
    dilation = pair(op.attributes.get("dilations", (1, 1)))
    ceil = bool(op.attributes.get("ceil_mode", 0))
    return graph.module(op, nn.MaxPool2d(kernel, stride, pair(pads[:2]), dilation, ceil_mode=ceil), images)


@converts("AveragePool")
def average_pool(op: Operation, graph: Builder) -> fx.Node:
    images, kernel, stride, pads = _window(op, graph)
    counted, ceil = bool(op.attributes.get("count_include_pad", 0)), bool(op.attributes.get("ceil_mode", 0))
    if any(d != 1 for d in op.attributes.get("dilations", (1, 1))):
        raise Unsupported("its window is dilated")
    if pads[:2] == pads[2:] and all(2 * p <= k for p, k in zip(pads, kernel, strict=False)):
        return graph.module(op, nn.AvgPool2d(kernel, stride, pair(pads[:2]), ceil, counted), images)
    if ceil:
        raise Unsupported("it rounds its size up and pads unevenly")
    if not counted:
        return graph.module(op, InsideAverage(kernel, stride, torch_padding(pads)), images)
    return graph.module(op, nn.AvgPool2d(kernel, stride), graph.module(op, nn.ZeroPad2d(torch_padding(pads)), images))


def _window(op: Operation, graph: Builder) -> tuple[fx.Node, tuple[int, int], tuple[int, int], list[int]]:
    images = graph.node(op.inputs[0])
    kernel = list(op.attributes["kernel_shape"])
    if graph.rank(images) != 4 or len(kernel) != 2:
        raise Unsupported("its input is not images")
    pads = pads_of(op, graph.shapes(images)[0][2:], kernel)
    return images, pair(kernel), pair(op.attributes.get("strides", (1, 1))), pads


def _reduce(op: Operation, graph: Builder, function: Callable[..., Any]) -> fx.Node:
    values = graph.node(op.inputs[0])
    axes = axes_of(op.attributes, graph.needed(op.input(1), "axes"))
    if axes is None and op.attributes.get("noop_with_empty_axes", 0):
        return values
    dims = tuple(sorted(axis % graph.rank(values) for axis in axes or range(graph.rank(values))))
    if graph.batch_dim(values) in dims:
        raise Unsupported("it mixes the images of a batch")
    keep = bool(op.attributes.get("keepdims", 1))
    if function is torch.mean and dims == (2, 3) and keep and graph.rank(values) == 4:
        return graph.module(op, nn.AdaptiveAvgPool2d(1), values)
    return graph.call(function, values, dims, keep)


@converts("ReduceMean")
def reduce_mean(op: Operation, graph: Builder) -> fx.Node:
    return _reduce(op, graph, torch.mean)


@converts("ReduceSum")
def reduce_sum(op: Operation, graph: Builder) -> fx.Node:
    return _reduce(op, graph, torch.sum)


@converts("ReduceMax")
def reduce_max(op: Operation, graph: Builder) -> fx.Node:
    return _reduce(op, graph, torch.amax)


@converts("LRN")
def local_response_norm(op: Operation, graph: Builder) -> fx.Node:
    attributes = op.attributes
    module = nn.LocalResponseNorm(
        attributes["size"], attributes.get("alpha", 1e-4), attributes.get("beta", 0.75), attributes.get("bias", 1.0)
    )
    return graph.module(op, module, graph.node(op.inputs[0]))
