"""Operators we have no conversion of: onnx2torch converts them, one node at a time."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from agnes_onnx.operators.table import Unsupported
from agnes_onnx.torchvision_stub import torchvision_or_stub

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import fx

    from agnes_onnx.graph import Builder, Operation


_SMALL = 64  # numbers that a constant may have to be kept beside a module rather than as a buffer


class _Filled(nn.Module):
    """onnx2torch's module with its constant arguments in their places."""

    def __init__(
        self, module: nn.Module, fixed: Mapping[int, torch.Tensor], computed: Sequence[int], count: int
    ) -> None:
        super().__init__()
        self.agnes_kind = type(module).__name__
        self.module = module
        self._fixed, self._computed, self._count = dict(fixed), list(computed), count

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        places: list[torch.Tensor | None] = [None] * self._count
        for place, constant in self._fixed.items():
            places[place] = constant
        for place, value in zip(self._computed, values, strict=True):
            places[place] = value
        return self.module(*places)


def convert(op: Operation, graph: Builder, reason: str) -> fx.Node:
    """A node as onnx2torch converts it; `reason` says why we did not."""
    converter = _converter(op)
    if converter is None:
        raise Unsupported(f"{reason}, nor has onnx2torch")
    from onnx2torch.onnx_graph import OnnxGraph

    one_node = OnnxGraph(_alone(op, graph))
    try:
        module, mapping = converter(next(iter(one_node.nodes.values())), one_node)
    except Exception as error:
        raise Unsupported(f"{reason}, and onnx2torch fails: {str(error).partition(chr(10))[0]}") from error
    return _called(op, graph, module, mapping.inputs, reason)


def _called(op: Operation, graph: Builder, module: nn.Module, names: Sequence[str], reason: str) -> fx.Node:
    """A call of onnx2torch's module; sizes and other small constants are given to it as they are."""
    given = {place: name for place, name in enumerate(names) if name}
    small = {place: array for place, name in given.items() if (array := graph.constant(name)) is not None}
    fixed = {place: torch.from_numpy(np.array(a)) for place, a in small.items() if a.size <= _SMALL}
    computed = [place for place in given if place not in fixed]
    filled = module if len(computed) == len(names) else _Filled(module, fixed, computed, len(names))
    try:
        return graph.module(op, filled, *(graph.node(given[place]) for place in computed))
    except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
        raise Unsupported(f"{reason}, and onnx2torch's does not fit") from error


def _converter(op: Operation) -> Any:
    """onnx2torch's converter for the operator's version, or for the newest before it: parity tells if it still fits."""
    with torchvision_or_stub():
        level = logging.root.level
        from onnx2torch.node_converters import registry
    logging.root.setLevel(level)
    known = [
        (description.version, converter)
        for description, converter in registry._CONVERTER_REGISTRY.items()
        if description.operation_type == op.type and description.domain == "" and description.version <= op.opset
    ]
    return max(known, key=lambda entry: entry[0])[1] if known else None


def _alone(op: Operation, graph: Builder) -> Any:
    """A graph of this one node, what is constant as an initialiser."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {name: array for name in op.inputs if name and (array := graph.constant(name)) is not None}
    inputs = []
    for name in dict.fromkeys(op.inputs):
        if name and name not in constants:
            shape = graph.shapes(graph.node(name))[0]
            inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape[1:]]))
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in op.outputs]
    stored = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    return helper.make_graph([op.proto], "one", inputs, outputs, stored)
