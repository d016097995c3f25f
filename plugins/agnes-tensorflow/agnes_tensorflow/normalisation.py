"""Batch normalisation that a TensorFlow graph spells out in small steps, made one operation again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Norm:
    """One normalisation: its input, its four vectors, and the small number under the root."""

    source: str  # name of the tensor
    rank: int
    gamma: np.ndarray
    beta: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    epsilon: float


def found_in(graph: Any) -> dict[str, Norm]:
    """The normalisations of a frozen graph, by the name of the node that ends each."""
    reader = _Reader(graph)
    found = {}
    for node in graph.node:
        if node.op in ("Add", "AddV2") and (norm := reader.norm(node)) is not None:
            found[node.name] = norm
    return found


def fuse(graph: Any, norms: dict[str, Norm]) -> None:
    """Put one operation in the place of each normalisation of maps; those of vectors have none in TensorFlow."""
    import tensorflow as tf

    nodes = {node.name: node for node in graph.node}
    for name, norm in norms.items():
        if norm.rank != 4:
            continue
        fused = graph.node.add(name=f"{name}/fused", op="FusedBatchNormV3")
        fused.input.append(norm.source)
        for field in ("gamma", "beta", "mean", "variance"):
            constant = graph.node.add(name=f"{name}/{field}", op="Const")
            constant.attr["dtype"].type = tf.float32.as_datatype_enum
            constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(getattr(norm, field), tf.float32))
            fused.input.append(constant.name)
        for kind in ("T", "U"):
            fused.attr[kind].type = tf.float32.as_datatype_enum
        fused.attr["epsilon"].f = norm.epsilon
        fused.attr["is_training"].b = False
        fused.attr["data_format"].s = b"NHWC"
        node = nodes[name]
        node.op = "Identity"
        del node.input[:]
        node.input.append(fused.name)


def restore(model: Any, norms: dict[str, Norm]) -> None:
    """In the ONNX graph, put one operation in the place of each normalisation of vectors."""
    from onnx import helper, numpy_helper

    nodes = list(model.graph.node)
    made_by = {output: node for node in nodes for output in node.output}
    constants = {tensor.name for tensor in model.graph.initializer}
    for name, norm in norms.items():
        end = made_by.get(f"{name}:0")
        if norm.rank != 2 or end is None or end.op_type != "Add":
            continue
        scaled = next((made_by[each] for each in end.input if each in made_by), None)
        if scaled is None or scaled.op_type != "Mul":
            continue
        source = next((each for each in scaled.input if each not in constants), None)
        if source is None:
            continue
        vectors = [f"{name}/{field}" for field in ("gamma", "beta", "mean", "variance")]
        arrays = (norm.gamma, norm.beta, norm.mean, norm.variance)
        model.graph.initializer.extend(numpy_helper.from_array(a, v) for a, v in zip(arrays, vectors, strict=True))
        place = list(model.graph.node).index(end)
        fused = helper.make_node("BatchNormalization", [source, *vectors], list(end.output), name, epsilon=norm.epsilon)
        model.graph.node.remove(end)
        model.graph.node.insert(place, fused)
    _drop_unread(model.graph)


def _drop_unread(graph: Any) -> None:
    """Leave out what no longer leads to the output."""
    read = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if read.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            read.update(node.input)
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


class _Reader:
    """Looks up nodes and constants of a graph."""

    def __init__(self, graph: Any) -> None:
        self._nodes = {node.name: node for node in graph.node}

    def norm(self, end: Any) -> Norm | None:
        """The normalisation that ends in x * m + (beta - mean * m), where m = gamma / sqrt(variance + epsilon)."""
        for scaled, shift in self._both(end):
            if scaled is None or shift is None or scaled.op != "Mul":
                continue
            for factor, source in self._factors(scaled):
                statistics = self._statistics(factor)
                shifted = self._shift(shift, factor)
                rank = self._rank(source)
                if statistics is None or shifted is None or rank not in (2, 4):
                    continue
                variance, epsilon, gamma = statistics
                mean, beta = shifted
                gamma, beta, mean = (
                    np.broadcast_to(each.reshape(-1), variance.shape).astype(np.float32) for each in (gamma, beta, mean)
                )
                return Norm(source, rank, gamma, beta, mean, variance.astype(np.float32), epsilon)
        return None

    def _statistics(self, factor: str) -> tuple[np.ndarray, float, np.ndarray] | None:
        node, gamma = self._node(factor), np.ones(1, np.float32)
        if node is not None and node.op == "Mul":
            root = next((each for each in node.input if self._operator(each) == "Rsqrt"), None)
            given = next((value for each in node.input if (value := self._constant(each)) is not None), None)
            if root is None or given is None:
                return None
            node, gamma = self._node(root), given
        if node is None or node.op != "Rsqrt":
            return None
        total = self._node(node.input[0])
        if total is None or total.op not in ("Add", "AddV2"):
            return None
        values = [self._constant(each) for each in total.input]
        vector = next((value for value in values if value is not None and _along_channels(value)), None)
        small = next((value for value in values if value is not None and value.ndim == 0), None)
        return None if vector is None or small is None else (vector.reshape(-1), float(small), gamma)

    def _shift(self, node: Any, factor: str) -> tuple[np.ndarray, np.ndarray] | None:
        """The mean and beta in beta - mean * m, or in -mean * m."""
        beta = np.zeros(1, np.float32)
        if node.op == "Sub":
            given = self._constant(node.input[0])
            product = self._node(node.input[1])
            if given is None or product is None or product.op != "Mul":
                return None
            node, beta = product, given
        elif node.op != "Mul":
            return None
        other = [each for each in node.input if _bare(each) != _bare(factor)]
        if len(other) != 1:
            return None
        mean = self._constant(other[0])
        if mean is None and self._operator(other[0]) == "Neg":
            negated = self._node(other[0])
            mean = self._constant(negated.input[0])
        return None if mean is None else (mean, beta)

    def _both(self, node: Any) -> Iterator[tuple[Any, Any]]:
        first, second = (self._node(each) for each in node.input[:2])
        yield first, second
        yield second, first

    def _factors(self, node: Any) -> Iterator[tuple[str, str]]:
        yield node.input[1], node.input[0]
        yield node.input[0], node.input[1]

    def _node(self, name: str) -> Any:
        return self._nodes.get(_bare(name))

    def _operator(self, name: str) -> str:
        node = self._node(name)
        return "" if node is None else node.op

    def _rank(self, name: str) -> int:
        node = self._node(name)
        shapes = node.attr["_output_shapes"].list.shape if node is not None else ()
        return len(shapes[0].dim) if shapes and not shapes[0].unknown_rank else -1

    def _constant(self, name: str) -> np.ndarray | None:
        """The value of a constant, through what only hands it on."""
        import tensorflow as tf

        node = self._node(name)
        while node is not None and node.op in ("Identity", "ReadVariableOp"):
            node = self._node(node.input[0])
        if node is not None and node.op == "Reshape":
            value, shape = (self._constant(each) for each in node.input)
            return None if value is None or shape is None else value.reshape(shape)
        return tf.make_ndarray(node.attr["value"].tensor) if node is not None and node.op == "Const" else None


def _along_channels(value: np.ndarray) -> bool:
    return value.ndim > 0 and value.shape[-1] == value.size


def _bare(name: str) -> str:
    return name.removesuffix(":0")
