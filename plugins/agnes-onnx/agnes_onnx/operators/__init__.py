"""How each ONNX operator is written in torch: one function an operator, found by its name."""

from agnes_onnx.operators import pointwise, pooling, shaping, weighted
from agnes_onnx.operators.table import CONVERTERS, Unsupported

__all__ = ["CONVERTERS", "Unsupported", "pointwise", "pooling", "shaping", "weighted"]
