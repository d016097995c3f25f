"""Operators with weights: convolution, matrix product, normalisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from agnes.errors import Refused
from agnes.text import printable
from agnes_onnx.operators.table import Unsupported, converts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import fx

    from agnes_onnx.graph import Builder, Operation


def pads_of(op: Operation, size: tuple[int, ...], kernel: list[int]) -> list[int]:
    """Padding before each dimension, then after each, as ONNX writes it."""
    count = len(kernel)
    auto = op.attributes.get("auto_pad", "NOTSET")
    if auto == "NOTSET":
        return [int(p) for p in op.attributes.get("pads", [0] * 2 * count)]
    if auto == "VALID":
        return [0] * 2 * count
    strides = op.attributes.get("strides", [1] * count)
    dilations = op.attributes.get("dilations", [1] * count)
    before, after = [], []
    for n, k, s, d in zip(size, kernel, strides, dilations, strict=True):
        total = max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
        small, large = total // 2, total - total // 2
        before.append(large if auto == "SAME_LOWER" else small)
        after.append(small if auto == "SAME_LOWER" else large)
    return before + after


def torch_padding(pads: list[int]) -> tuple[int, int, int, int]:
    """ONNX padding of height and width in torch's order: left, right, top, bottom."""
    top, left, bottom, right = pads
    return left, right, top, bottom


def pair(values: Sequence[int]) -> tuple[int, int]:
    """Two numbers, of height and width."""
    height, width = (int(value) for value in values)
    return height, width


@converts("Conv")
def conv(op: Operation, graph: Builder) -> fx.Node:
    images = graph.node(op.inputs[0])
    weight = graph.constant(op.inputs[1])
    if weight is None:
        raise Unsupported("its weight is computed while it runs")
    if weight.ndim != 4 or graph.rank(images) != 4:
        raise Unsupported("it is not a convolution over height and width")
    out_channels, channels, *kernel = weight.shape
    groups = op.attributes.get("group", 1)
    pads = pads_of(op, graph.shapes(images)[0][2:], kernel)
    if pads[:2] != pads[2:]:
        images = graph.module(op, nn.ZeroPad2d(torch_padding(pads)), images)
        pads = [0] * 4
    module = nn.Conv2d(
        channels * groups,
        out_channels,
        pair(kernel),
        pair(op.attributes.get("strides", (1, 1))),
        pair(pads[:2]),
        pair(op.attributes.get("dilations", (1, 1))),
        groups,
        bias=False,
        device="meta",
    )
    module.weight = graph.parameter(op.inputs[1], "as it is", weight)
    _set_bias(graph, module, op.input(2), out_channels)
    return graph.module(op, module, images, weight=op.inputs[1])


def _set_bias(graph: Builder, module: Any, name: str, count: int, factor: float = 1.0) -> None:
    bias = graph.needed(name, "bias")
    if bias is None:
        return
    if bias.size not in (1, count):
        raise Unsupported("its bias has another size than its output")
    values = np.broadcast_to(bias.reshape(-1) * np.float32(factor), (count,))
    module.bias = graph.parameter(name, f"bias {count} {factor}", values)


def linear(op: Operation, graph: Builder, values: fx.Node, name: str, how: str, weight: np.ndarray) -> nn.Linear:
    """A linear layer whose weight (out, in) is given."""
    if weight.ndim != 2 or graph.shapes(values)[0][-1] != weight.shape[1]:
        raise Unsupported("its sizes do not fit its input")
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    module.weight = graph.parameter(name, how, weight)
    return module


@converts("Gemm")
def gemm(op: Operation, graph: Builder) -> fx.Node:
    values, name = graph.node(op.inputs[0]), op.inputs[1]
    weight = graph.constant(name)
    if weight is None or op.attributes.get("transA", 0):
        raise Unsupported("its weight is computed while it runs, or its input is transposed")
    transposed, alpha = op.attributes.get("transB", 0), op.attributes.get("alpha", 1.0)
    weight = (weight if transposed else weight.T) * np.float32(alpha)
    module = linear(op, graph, values, name, f"gemm {transposed} {alpha}", weight)
    _set_bias(graph, module, op.input(2), weight.shape[0], op.attributes.get("beta", 1.0))
    return graph.module(op, module, values, weight=name)


@converts("MatMul")
def matmul(op: Operation, graph: Builder) -> fx.Node:
    left, right = op.inputs
    weight = graph.constant(right)
    if weight is not None and weight.ndim == 2 and graph.is_computed(left):
        values = graph.node(left)
        return graph.module(op, linear(op, graph, values, right, "transposed", weight.T), values, weight=right)
    return graph.call(torch.matmul, graph.node(left), graph.node(right))


def take_bias(graph: Builder, name: str, bias_name: str, bias: np.ndarray) -> fx.Node | None:
    """Make a constant that is added to a convolution's or linear layer's output its bias, where it is one."""
    node = graph.node(name)
    module = graph.module_of(node)
    if not isinstance(module, (nn.Conv2d, nn.Linear)) or module.bias is not None or not graph.read_once(name):
        return None
    count = module.weight.shape[0]
    shape = (count, 1, 1) if isinstance(module, nn.Conv2d) else (count,)
    if bias.size != count or (1,) * max(0, 4 - bias.ndim) + bias.shape != (1,) * (4 - len(shape)) + shape:
        return None
    _set_bias(graph, module, bias_name, count)
    return node


@converts("BatchNormalization")
def batch_norm(op: Operation, graph: Builder) -> fx.Node:
    values = graph.node(op.inputs[0])
    arrays = [graph.constant(name) for name in op.inputs[1:5]]
    if op.attributes.get("training_mode", 0):
        where = printable(op.name or op.outputs[0])
        raise Refused(f"refused: node {where} normalises by the batch; export the model in evaluation mode")
    if any(array is None for array in arrays) or graph.rank(values) not in (2, 3, 4):
        raise Unsupported("its statistics are computed while it runs, or its input is no image")
    kind = nn.BatchNorm2d if graph.rank(values) == 4 else nn.BatchNorm1d
    scale, shift, mean, variance = (array.reshape(-1) for array in arrays if array is not None)
    if {len(scale), len(shift), len(mean), len(variance)} != {graph.shapes(values)[0][1]}:
        raise Unsupported("its statistics have another size than its channels")
    module = kind(len(scale), eps=op.attributes.get("epsilon", 1e-5))
    module.weight = graph.parameter(op.inputs[1], "scale", scale)
    module.bias = graph.parameter(op.inputs[2], "shift", shift)
    module.running_mean = graph.parameter(op.inputs[3], "mean", mean).data.clone()
    module.running_var = graph.parameter(op.inputs[4], "variance", variance).data.clone()
    return graph.module(op, module, values, weight=op.inputs[1])


@converts("LayerNormalization")
def layer_norm(op: Operation, graph: Builder) -> fx.Node:
    values = graph.node(op.inputs[0])
    scale, shift = graph.constant(op.inputs[1]), graph.needed(op.input(2), "shift")
    axis = op.attributes.get("axis", -1) % graph.rank(values)
    shape = graph.shapes(values)[0][axis:]
    if scale is None or axis == 0 or scale.shape != shape or (shift is not None and shift.shape != shape):
        raise Unsupported("its scale is computed while it runs, or has another size than its input")
    module = nn.LayerNorm(list(shape), op.attributes.get("epsilon", 1e-5), bias=shift is not None)
    module.weight = graph.parameter(op.inputs[1], "scale", scale)
    if shift is not None:
        module.bias = graph.parameter(op.inputs[2], "shift", shift)
    return graph.module(op, module, values, weight=op.inputs[1])
