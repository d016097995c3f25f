"""What an ONNX file must be before anything in it is believed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agnes.errors import Refused
from agnes.text import printable
from agnes_onnx import counting, tensors

OLDEST_OPSET = 7
CONTROL_FLOW = frozenset(("If", "Loop", "Scan", "SequenceMap"))
_OWN_DOMAINS = ("", "ai.onnx")
_SPARSE, _GRAPH, _TYPE = (11, 12), (5, 10), (13, 14)  # AttributeProto.AttributeType


@dataclass(frozen=True)
class Limits:
    """How much a file may make us hold."""

    bytes: int  # of the file and its external data
    parts: int  # nodes, names, numbers outside weights: what a parser makes objects of
    nodes: int
    values: int  # numbers that one image's activations, and all folded constants, may take
    work: int  # multiplications and additions that one image may cost


def has_onnx_start(path: Path) -> bool:
    """Whether a file's first bytes are those of a ModelProto: its version of the format, a small number."""
    with path.open("rb") as file:
        start = file.read(2)
    return len(start) == 2 and start[0] == 0x08 and 1 <= start[1] < 0x40


def parse(path: Path, limits: Limits) -> Any:
    """The ModelProto in a file, without its external data."""
    import onnx
    from google.protobuf.message import DecodeError

    content = _content(path, limits.bytes)
    try:
        counting.check(content, limits.parts)
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError, counting.Broken):
        raise Refused(f"refused: {printable(path.name)} is not an ONNX model, or is broken") from None
    if not model.HasField("graph") or not model.graph.node:
        raise Refused(f"refused: {printable(path.name)} holds no ONNX graph")
    return model


def _content(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise Refused(f"refused: {printable(path.name)} is larger than onnx.size_limit ({limit} bytes)")
    return content


def check(model: Any, folder: Path, limits: Limits) -> None:
    """Refuse what is unsafe or no classifier, and bring external data in."""
    _check_opset(model)
    _check_nodes(model, limits)
    _check_order(model.graph)
    if model.graph.sparse_initializer:
        raise Refused("refused: the file holds sparse tensors; store its weights dense")
    stored = list(tensors.tensors_of(model))
    tensors.read_external(stored, folder, limits.bytes)
    for tensor in stored:
        tensors.check(tensor)


def opset_of(model: Any) -> int:
    """The version of ONNX's own operators that a file asks for."""
    return max((o.version for o in model.opset_import if o.domain in _OWN_DOMAINS), default=0)


def input_of(model: Any) -> Any:
    """The one input of the graph that is not a weight."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise Refused(f"refused: the file has {len(inputs)} inputs; AGNES scans classifiers of one image input")
    kind = inputs[0].type.tensor_type.elem_type if inputs[0].type.HasField("tensor_type") else None
    if kind != 1:  # TensorProto.FLOAT
        raise Refused("refused: the file's input is not float32; export the model with a float32 input")
    return inputs[0]


def output_of(model: Any) -> Any:
    """The one output of the graph."""
    if len(model.graph.output) != 1:
        count = len(model.graph.output)
        raise Refused(f"refused: the file has {count} outputs; export the classifier with its logits as the only one")
    return model.graph.output[0]


def _check_opset(model: Any) -> None:
    from onnx import defs

    newest, opset = defs.onnx_opset_version(), opset_of(model)
    if not OLDEST_OPSET <= opset <= newest:
        raise Refused(f"refused: the file asks for opset {opset}; AGNES reads {OLDEST_OPSET} to {newest}")


def _check_nodes(model: Any, limits: Limits) -> None:
    if len(model.graph.node) > limits.nodes:
        raise Refused(
            f"refused: the file has {len(model.graph.node)} nodes, more than onnx.node_limit ({limits.nodes})"
        )
    if model.functions:
        raise Refused("refused: the file defines functions of its own; export it with functions inlined")
    for node in model.graph.node:
        where = f"node {printable(node.name) or printable(node.output[0] if node.output else '')}"
        if node.domain not in _OWN_DOMAINS:
            raise Refused(
                f"refused: {where} is operator {printable(node.op_type)} of domain '{printable(node.domain)}'; "
                "AGNES runs ONNX's own operators only"
            )
        if node.op_type in CONTROL_FLOW:
            raise Refused(f"refused: {where} is {node.op_type}, control flow; export the model without it")
        for attribute in node.attribute:
            if attribute.type in _GRAPH or attribute.HasField("g") or attribute.graphs:
                raise Refused(f"refused: {where} holds a graph of its own; export the model without control flow")
            if attribute.type in _SPARSE or attribute.type in _TYPE:
                raise Refused(f"refused: {where} holds a sparse tensor or a type as an attribute")


def _check_order(graph: Any) -> None:
    """Every value is written once, and before it is read: no cycles, no dangling names."""
    known = {tensor.name for tensor in graph.initializer}
    if len(known) < len(graph.initializer):
        raise Refused("refused: two weights of the file have one name")
    known.update(value.name for value in graph.input)
    for node in graph.node:
        for name in node.input:
            if name and name not in known:
                raise Refused(f"refused: value {printable(name)} is read before it is written, or never written")
        for name in node.output:
            if name in known and name:
                raise Refused(f"refused: value {printable(name)} is written twice")
            known.add(name)
    missing = next((value.name for value in graph.output if value.name not in known), None)
    if missing is not None:
        raise Refused(f"refused: the output {printable(missing)} is never written")


def operator_counts(model: Any) -> dict[str, int]:
    """How often each operator is used, most used first."""
    return dict(Counter(node.op_type for node in model.graph.node).most_common())
