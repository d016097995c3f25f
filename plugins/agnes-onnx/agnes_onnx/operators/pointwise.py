"""Operators that work on each number by itself: activations and arithmetic."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from agnes_onnx.operators.table import Unsupported, converts
from agnes_onnx.operators.weighted import take_bias

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import fx

    from agnes_onnx.graph import Builder, Operation


class Affine(nn.Module):
    """`values * scale + shift` with constants: a file's own preprocessing, or a scale in its midst."""

    broadcasts = True

    def __init__(self, scale: np.ndarray, shift: np.ndarray | None, kind: str) -> None:
        super().__init__()
        self.agnes_kind = kind
        self.scale: torch.Tensor
        self.shift: torch.Tensor | None
        self.register_buffer("scale", torch.from_numpy(np.array(scale, dtype=np.float32)))
        self.register_buffer("shift", None if shift is None else torch.from_numpy(np.array(shift, dtype=np.float32)))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        scaled = values * self.scale
        return scaled if self.shift is None else scaled + self.shift


class HardSigmoid(nn.Module):
    """A sigmoid of three straight pieces, of any slope."""

    agnes_kind = "sigmoid"
    keeps_size = True

    def __init__(self, slope: float, offset: float) -> None:
        super().__init__()
        self.slope, self.offset = slope, offset

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return torch.clamp(values * self.slope + self.offset, 0.0, 1.0)


# Activations -------------------------------------------------------------------------------------------------------

_ACTIVATIONS: dict[str, Callable[[dict], nn.Module]] = {
    "Relu": lambda a: nn.ReLU(),
    "Sigmoid": lambda a: nn.Sigmoid(),
    "Tanh": lambda a: nn.Tanh(),
    "LeakyRelu": lambda a: nn.LeakyReLU(a.get("alpha", 0.01)),
    "Elu": lambda a: nn.ELU(a.get("alpha", 1.0)),
    "Celu": lambda a: nn.CELU(a.get("alpha", 1.0)),
    "Softplus": lambda a: nn.Softplus(),
    "Softsign": lambda a: nn.Softsign(),
    "HardSwish": lambda a: nn.Hardswish(),
    "Mish": lambda a: nn.Mish(),
    "Gelu": lambda a: nn.GELU(a.get("approximate", "none")),
}


@converts(*_ACTIVATIONS)
def activation(op: Operation, graph: Builder) -> fx.Node:
    return graph.module(op, _ACTIVATIONS[op.type](dict(op.attributes)), graph.node(op.inputs[0]))


@converts("Selu")
def selu(op: Operation, graph: Builder) -> fx.Node:
    alpha, gamma = op.attributes.get("alpha", 1.67326319), op.attributes.get("gamma", 1.05070102)
    if not (math.isclose(alpha, 1.67326319, rel_tol=1e-4) and math.isclose(gamma, 1.05070102, rel_tol=1e-4)):
        raise Unsupported("its constants are not those of SELU")
    return graph.module(op, nn.SELU(), graph.node(op.inputs[0]))


@converts("HardSigmoid")
def hard_sigmoid(op: Operation, graph: Builder) -> fx.Node:
    slope, offset = op.attributes.get("alpha", 0.2), op.attributes.get("beta", 0.5)
    usual = math.isclose(slope, 1 / 6, rel_tol=1e-4) and offset == 0.5
    return graph.module(op, nn.Hardsigmoid() if usual else HardSigmoid(slope, offset), graph.node(op.inputs[0]))


@converts("PRelu")
def prelu(op: Operation, graph: Builder) -> fx.Node:
    values, slope = graph.node(op.inputs[0]), graph.constant(op.inputs[1])
    channels = graph.shapes(values)[0][1]
    expected = (channels,) + (1,) * (graph.rank(values) - 2)
    if slope is None or (slope.size != 1 and slope.shape not in (expected, (1, *expected))):
        raise Unsupported("its slope is computed while it runs, or not one a channel")
    module = nn.PReLU(slope.size)
    module.weight = graph.parameter(op.inputs[1], "slope", slope.reshape(-1))
    return graph.module(op, module, values, weight=op.inputs[1])


@converts("Clip")
def clip(op: Operation, graph: Builder) -> fx.Node:
    bounds = []
    for index, name, default in ((1, "min", -math.inf), (2, "max", math.inf)):
        given = graph.needed(op.input(index), name)
        bounds.append(op.attributes.get(name, default) if given is None else given.item())
    low, high = (float(bound) for bound in bounds)
    if low == 0 and high == 6:
        return graph.module(op, nn.ReLU6(), graph.node(op.inputs[0]))
    if low == 0 and high >= 3e38:
        return graph.module(op, nn.ReLU(), graph.node(op.inputs[0]))
    return graph.module(op, nn.Hardtanh(low, high), graph.node(op.inputs[0]))


@converts("Softmax", "LogSoftmax")
def softmax(op: Operation, graph: Builder) -> fx.Node:
    values = graph.node(op.inputs[0])
    rank = graph.rank(values)
    axis = op.attributes.get("axis", -1 if op.opset >= 13 else 1) % rank
    if op.opset < 13 and any(size != 1 for size in graph.shapes(values)[0][axis + 1 :]):
        raise Unsupported("before opset 13 it runs over several dimensions at once")
    return graph.module(op, nn.Softmax(axis) if op.type == "Softmax" else nn.LogSoftmax(axis), values)


@converts("Identity", "Dropout")
def identity(op: Operation, graph: Builder) -> fx.Node:
    return graph.node(op.inputs[0])


@converts("Cast")
def cast(op: Operation, graph: Builder) -> fx.Node:
    if op.attributes.get("to") != 1:
        raise Unsupported("it casts to something other than float32")
    return graph.node(op.inputs[0])


# Arithmetic --------------------------------------------------------------------------------------------------------

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": torch.div,
    "Pow": torch.pow,
    "Sqrt": torch.sqrt,
    "Exp": torch.exp,
    "Log": torch.log,
    "Erf": torch.erf,
    "Abs": torch.abs,
    "Neg": torch.neg,
    "Reciprocal": torch.reciprocal,
    "Floor": torch.floor,
    "Sin": torch.sin,
    "Cos": torch.cos,
}


@converts("Sqrt", "Exp", "Log", "Erf", "Abs", "Neg", "Reciprocal", "Floor", "Sin", "Cos", "Pow")
def function(op: Operation, graph: Builder) -> fx.Node:
    return graph.call(_FUNCTIONS[op.type], *(graph.node(name) for name in op.inputs))


@converts("Add", "Sub", "Mul", "Div")
def arithmetic(op: Operation, graph: Builder) -> fx.Node:
    left, right = op.inputs
    if op.opset < 7 or "axis" in op.attributes:
        raise Unsupported("it broadcasts as before opset 7")
    if op.type in ("Add", "Mul") and not graph.is_computed(left):
        left, right = right, left
    constant = graph.constant(right) if graph.is_computed(left) and not graph.is_computed(right) else None
    if constant is None:
        return graph.call(_FUNCTIONS[op.type], graph.node(left), graph.node(right))
    return _with_constant(op, graph, left, right, constant)


def _with_constant(op: Operation, graph: Builder, left: str, right: str, constant: np.ndarray) -> fx.Node:
    values = graph.node(left)
    if op.type == "Add" and (biased := take_bias(graph, left, right, constant)) is not None:
        return biased
    before = not graph.is_after_weights(values)
    if not before and op.type in ("Add", "Sub"):
        return graph.call(_FUNCTIONS[op.type], values, graph.node(right))
    number = constant.astype(np.float32)
    with np.errstate(divide="ignore"):
        scale = {"Mul": number, "Div": 1 / number}.get(op.type, np.float32(1))
    shift = {"Add": number, "Sub": -number}.get(op.type)
    kind = "preprocess" if before else "scale"
    return graph.module(op, Affine(np.asarray(scale), shift, kind), values)


@converts("Sum", "Mean")
def total(op: Operation, graph: Builder) -> fx.Node:
    result = graph.node(op.inputs[0])
    for name in op.inputs[1:]:
        result = graph.call(torch.add, result, graph.node(name))
    return graph.call(torch.mul, result, 1 / len(op.inputs)) if op.type == "Mean" else result


@converts("Max", "Min")
def extreme(op: Operation, graph: Builder) -> fx.Node:
    result = graph.node(op.inputs[0])
    for name in op.inputs[1:]:
        result = graph.call(torch.maximum if op.type == "Max" else torch.minimum, result, graph.node(name))
    return result


@converts("LpNormalization")
def normalise(op: Operation, graph: Builder) -> fx.Node:
    attributes = op.attributes
    return graph.call(
        functional.normalize, graph.node(op.inputs[0]), attributes.get("p", 2), attributes.get("axis", -1)
    )
