"""Where a converted graph parts from TensorFlow's. Runs in the confined child, and only where the two differ."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from agnes.text import printable
from agnes_tensorflow import conversion


def first_difference(path: Path, kind: str, asked: Mapping[str, Any], limit: float) -> str:
    """The first operation whose values differ by more than the limit, in words; '' where none does."""
    from onnx import ValueInfoProto
    from onnx.reference import ReferenceEvaluator

    source = conversion.source_of(path, kind, asked)
    images = conversion.random_images(source, source.shape[0] or int(asked["images"]))
    taken = conversion.as_taken(source, images, asked)
    model, graph = conversion.onnx_of(source)
    tensors = {f"{node.name}:0" for node in graph.node}
    shared = [(node, name) for node in model.graph.node for name in node.output if name in tensors]
    del model.graph.output[:]
    model.graph.output.extend(ValueInfoProto(name=name) for _, name in shared)
    ours = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: taken})
    theirs = _values(graph, [name for _, name in shared], taken)
    for (node, name), own, wanted in zip(shared, ours, theirs, strict=True):
        if _relative(np.asarray(own), wanted) > limit:
            return f", first at {printable(node.name or name)} ({printable(node.op_type)})"
    return ""


def _values(graph: Any, names: list[str], taken: np.ndarray) -> list[np.ndarray]:
    """What a TensorFlow graph gives at some of its tensors."""
    import tensorflow as tf

    wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), [])
    values = conversion.between(wrapped, names)(conversion.tensor(taken))
    return [np.asarray(value) for value in values]


def _relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference over the largest value, in the order of dimensions that fits; 0 where none does."""
    turned = theirs.transpose(0, 3, 1, 2) if theirs.ndim == 4 else theirs  # ONNX keeps maps channels first
    same = [each for each in (theirs, turned) if each.shape == ours.shape and each.dtype.kind == "f"]
    return min((_difference(ours, each) for each in same), default=0.0)


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max(initial=0)) / max(float(np.abs(theirs).max(initial=0)), 1e-12)
