"""The names of Keras's own layers, put on the nodes of the ONNX graph. Runs in the confined child."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from agnes_tensorflow import weights

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


def rename(model: Any, named: Sequence[tuple[str, str]]) -> None:
    """Call nodes after the layers whose weights they read, and what follows in a layer after it too."""
    from onnx import numpy_helper

    layers: dict[str, set[str]] = {}
    for path, digest in named:
        layers.setdefault(digest, set()).add(weights.folder(path))
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    scopes: dict[str, str] = {}  # of the graph -> layer
    own: dict[int, str] = {}
    for index, node in enumerate(model.graph.node):
        for name in node.input[1:]:
            tensor = arrays.get(name)
            if tensor is None or not tensor.dims:
                continue
            array = numpy_helper.to_array(tensor)
            found = layers.get(weights.digest(array.T if node.op_type == "MatMul" else array), set())
            if len(found) == 1:
                layer = next(iter(found))
                scopes.setdefault(_scope(node.name), layer)
                scopes.setdefault(_scope(name), layer)
                own[index] = layer
    scopes.pop("", None)
    taken: set[str] = set()
    for index, node in enumerate(model.graph.node):
        layer = own.get(index)
        beside = scopes.get(_scope(node.name))
        wanted = layer or (f"{beside}_{node.op_type.lower()}" if beside else None)
        if layer and _pads_unevenly(node):  # two steps in torch, of which the first takes the node's name
            wanted = f"{layer}_pad"
            _rename_tensor(model.graph, node.input[1], f"{layer}.weight")
        name = f"{wanted}/{node.op_type}" if wanted else _without_calls(node.name)
        node.name = next(each for each in _numbered(name) if each not in taken)
        taken.add(node.name)


def _pads_unevenly(node: Any) -> bool:
    """Whether a convolution pads one side more than the other."""
    given = {each.name: each for each in node.attribute}
    pads = list(given["pads"].ints) if "pads" in given else []
    same = "auto_pad" in given and given["auto_pad"].s.startswith(b"SAME")
    return node.op_type == "Conv" and (same or pads[: len(pads) // 2] != pads[len(pads) // 2 :])


def _rename_tensor(graph: Any, old: str, new: str) -> None:
    if any(tensor.name == new for tensor in graph.initializer):
        return
    for tensor in graph.initializer:
        if tensor.name == old:
            tensor.name = new
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}_{number}" for number in count(2))


def _without_calls(name: str) -> str:
    """A node's name without the steps that only tell of functions, of which a SavedModel has many."""
    *steps, last = name.split("/")
    return "/".join([*(step for step in steps if step not in _CALLS), last])


def _scope(name: str) -> str:
    """The first two steps of a node's name: the model and the layer."""
    parts = name.split("/")
    return "/".join(parts[:2]) if len(parts) > 2 else ""
