"""Values of a graph that no pixel reaches: constants, and sizes, which may grow with the batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


class TooLarge(Exception):
    """A folded value would take more numbers than allowed."""


@dataclass(frozen=True)
class Known:
    """A value known without running the network, at both probe batch sizes."""

    two: np.ndarray
    three: np.ndarray

    @property
    def constant(self) -> np.ndarray | None:
        """The value, where it is the same at every batch size."""
        return self.two if self.two is self.three or np.array_equal(self.two, self.three) else None

    @property
    def one_image(self) -> np.ndarray | None:
        """The part for one image, where it is the same for all of them and they lie along the first dimension."""
        same = self.two.ndim and self.two.shape[1:] == self.three.shape[1:] and len(self.two) and len(self.three)
        first = self.two[:1] if same else self.two
        return first if same and (self.two == first).all() and (self.three == first).all() else None

    def at(self, probe: int) -> np.ndarray:
        return self.two if probe == 0 else self.three


Evaluate = Callable[..., Any]


def fold(
    operator: str, inputs: Sequence[Known | None], attributes: Mapping[str, Any], limit: int
) -> tuple[Known, ...] | None:
    """What an operator gives for known inputs; None where this operator is not folded."""
    evaluate = _EVALUATORS.get(operator)
    if evaluate is None:
        return None
    arguments = [[None if known is None else known.at(probe) for known in inputs] for probe in (0, 1)]
    two = _several(evaluate(limit, attributes, *arguments[0]))
    same = all(known is None or known.two is known.three for known in inputs)
    three = two if same else _several(evaluate(limit, attributes, *arguments[1]))
    return tuple(Known(a, b) for a, b in zip(two, three, strict=True))


def constant_of(attributes: Mapping[str, Any]) -> np.ndarray | None:
    """The array that a Constant node holds."""
    for name, dtype in (("value_float", "f4"), ("value_floats", "f4"), ("value_int", "i8"), ("value_ints", "i8")):
        if name in attributes:
            return np.asarray(attributes[name], dtype=dtype)
    value = attributes.get("value")
    return value if isinstance(value, np.ndarray) else None


def axes_of(attributes: Mapping[str, Any], given: np.ndarray | None) -> tuple[int, ...] | None:
    """Axes, which older opsets keep in an attribute and newer ones in an input."""
    axes = attributes.get("axes") if given is None else given.reshape(-1).tolist()
    return None if axes is None else tuple(int(axis) for axis in axes)


def slices_of(attributes: Mapping[str, Any], rank: int, *inputs: np.ndarray | None) -> tuple[slice, ...]:
    """What Slice takes of each dimension."""
    given = [None if array is None else array.reshape(-1).tolist() for array in inputs] + [None] * 4
    starts = attributes["starts"] if given[0] is None else given[0]
    ends = attributes["ends"] if given[1] is None else given[1]
    axes = given[2] if given[2] is not None else attributes.get("axes", range(len(starts)))
    steps = given[3] if given[3] is not None else [1] * len(starts)
    slices = [slice(None)] * rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        stop = None if step < 0 and end < -(1 << 30) else int(end)
        slices[axis] = slice(int(start), stop, int(step))
    return tuple(slices)


def _several(values: Any) -> tuple[np.ndarray, ...]:
    values = values if isinstance(values, tuple) else (values,)
    return tuple(v.astype(np.float32) if v.dtype == np.float64 else v for v in map(np.asarray, values))


def _bounded(count: float, limit: int) -> None:
    if count > limit:
        raise TooLarge


def _pointwise(function: Callable[..., Any]) -> Evaluate:
    def evaluate(limit: int, attributes: Mapping[str, Any], *inputs: np.ndarray) -> Any:
        _bounded(math.prod(np.broadcast_shapes(*(array.shape for array in inputs))), limit)
        with np.errstate(all="ignore"):
            return function(*inputs)

    return evaluate


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if np.issubdtype(a.dtype, np.integer):
        return (np.sign(a) * np.sign(b) * (np.abs(a) // np.maximum(np.abs(b), 1))).astype(a.dtype)
    return a / b


def _mod(limit: int, attributes: Mapping[str, Any], a: np.ndarray, b: np.ndarray) -> Any:
    return _pointwise(np.fmod if attributes.get("fmod", 0) else np.mod)(limit, attributes, a, b)


def _gather(limit: int, attributes: Mapping[str, Any], data: np.ndarray, indices: np.ndarray) -> np.ndarray:
    axis = attributes.get("axis", 0)
    _bounded(data.size // max(1, data.shape[axis]) * indices.size, limit)
    return np.take(data, indices, axis=axis)


def _concat(limit: int, attributes: Mapping[str, Any], *inputs: np.ndarray) -> np.ndarray:
    _bounded(sum(array.size for array in inputs), limit)
    return np.concatenate(inputs, axis=attributes["axis"])


def _slice(limit: int, attributes: Mapping[str, Any], data: np.ndarray, *where: np.ndarray | None) -> np.ndarray:
    return data[slices_of(attributes, data.ndim, *where)]


def _squeeze(limit: int, attributes: Mapping[str, Any], data: np.ndarray, axes: np.ndarray | None = None) -> Any:
    return np.squeeze(data, axes_of(attributes, axes))


def _unsqueeze(limit: int, attributes: Mapping[str, Any], data: np.ndarray, axes: np.ndarray | None = None) -> Any:
    return np.expand_dims(data, axes_of(attributes, axes) or ())


def _reshape(limit: int, attributes: Mapping[str, Any], data: np.ndarray, shape: np.ndarray) -> np.ndarray:
    zero = attributes.get("allowzero", 0)
    return data.reshape([data.shape[i] if size == 0 and not zero else int(size) for i, size in enumerate(shape)])


def _expand(limit: int, attributes: Mapping[str, Any], data: np.ndarray, shape: np.ndarray) -> np.ndarray:
    wanted = tuple(int(size) for size in shape)
    _bounded(math.prod(max(1, size) for size in wanted) * max(1, data.size), limit)
    return np.broadcast_to(data, np.broadcast_shapes(data.shape, wanted)).copy()


def _tile(limit: int, attributes: Mapping[str, Any], data: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    _bounded(math.prod(int(times) for times in repeats) * data.size, limit)
    return np.tile(data, [int(times) for times in repeats])


def _filled(limit: int, attributes: Mapping[str, Any], shape: np.ndarray) -> np.ndarray:
    sizes = [int(size) for size in shape.reshape(-1)]
    _bounded(math.prod(sizes), limit)
    value = attributes.get("value")
    return np.full(sizes, np.float32(0) if value is None else value.reshape(-1)[0])


def _range(limit: int, attributes: Mapping[str, Any], start: np.ndarray, stop: np.ndarray, step: np.ndarray) -> Any:
    first, last, by = start.item(), stop.item(), step.item()
    _bounded(abs(last - first) / max(abs(by), 1e-9), limit)
    return np.arange(first, last, by, dtype=start.dtype)


def _reduce(function: Callable[..., Any]) -> Evaluate:
    def evaluate(limit: int, attributes: Mapping[str, Any], data: np.ndarray, axes: np.ndarray | None = None) -> Any:
        return function(data, axis=axes_of(attributes, axes), keepdims=bool(attributes.get("keepdims", 1)))

    return evaluate


def _cast(limit: int, attributes: Mapping[str, Any], data: np.ndarray) -> np.ndarray:
    kinds = {1: "f4", 2: "u1", 3: "i1", 6: "i4", 7: "i8", 9: "?", 10: "f4", 11: "f4"}
    return data.astype(kinds[attributes["to"]])


def _split(limit: int, attributes: Mapping[str, Any], data: np.ndarray, sizes: np.ndarray | None = None) -> Any:
    given = attributes.get("split") if sizes is None else sizes
    if given is None:
        raise ValueError("parts of no given size")
    return tuple(np.split(data, np.cumsum(given)[:-1], axis=attributes.get("axis", 0)))


_EVALUATORS: Mapping[str, Evaluate] = {
    "Identity": _pointwise(np.array),
    "Dropout": lambda limit, attributes, data, *rest: data,
    "Add": _pointwise(np.add),
    "Sub": _pointwise(np.subtract),
    "Mul": _pointwise(np.multiply),
    "Div": _pointwise(_divide),
    "Pow": _pointwise(lambda a, b: np.power(a.astype(np.float64) if b.dtype.kind == "f" else a, b).astype(a.dtype)),
    "Neg": _pointwise(np.negative),
    "Abs": _pointwise(np.abs),
    "Sqrt": _pointwise(np.sqrt),
    "Exp": _pointwise(np.exp),
    "Reciprocal": _pointwise(np.reciprocal),
    "Floor": _pointwise(np.floor),
    "Ceil": _pointwise(np.ceil),
    "Equal": _pointwise(np.equal),
    "Less": _pointwise(np.less),
    "Greater": _pointwise(np.greater),
    "LessOrEqual": _pointwise(np.less_equal),
    "GreaterOrEqual": _pointwise(np.greater_equal),
    "And": _pointwise(np.logical_and),
    "Or": _pointwise(np.logical_or),
    "Not": _pointwise(np.logical_not),
    "Mod": _mod,
    "Where": _pointwise(np.where),
    "Max": _pointwise(lambda *arrays: np.maximum.reduce(np.broadcast_arrays(*arrays))),
    "Min": _pointwise(lambda *arrays: np.minimum.reduce(np.broadcast_arrays(*arrays))),
    "Cast": _cast,
    "Gather": _gather,
    "Concat": _concat,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Transpose": lambda limit, attributes, data: np.transpose(data, attributes.get("perm")),
    "Expand": _expand,
    "Tile": _tile,
    "ConstantOfShape": _filled,
    "Range": _range,
    "Split": _split,
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "ReduceMean": _reduce(np.mean),
}
