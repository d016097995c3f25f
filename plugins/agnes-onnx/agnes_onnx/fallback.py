"""Operators we have no conversion of: onnx2torch converts them, one node at a time."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any

from agnes_onnx.operators.table import Unsupported
from agnes_onnx.torchvision_stub import torchvision_or_stub

if TYPE_CHECKING:
    from torch import fx

    from agnes_onnx.graph import Builder, Operation


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
    names = [name for name in mapping.inputs if name]
    if len(names) != len(mapping.inputs) or any(inspect.isclass(p) for p in mapping.inputs):
        raise Unsupported(f"{reason}, and onnx2torch leaves an input out")
    return graph.module(op, module, *(graph.node(name) for name in names))


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
