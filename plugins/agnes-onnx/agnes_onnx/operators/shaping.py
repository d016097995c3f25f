"""Operators that move numbers and leave them as they are: shapes, slices, joins, padding."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from agnes_onnx.folding import axes_of, slices_of
from agnes_onnx.operators.table import Unsupported, converts
from agnes_onnx.operators.weighted import torch_padding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import fx

    from agnes_onnx.graph import Builder, Operation

    Shape = tuple[int, ...]


def _to_shapes(op: Operation, graph: Builder, values: fx.Node, wanted: Sequence[Shape]) -> fx.Node:
    """Reshape to a shape known at both probe batch sizes."""
    now, (two, three) = graph.shapes(values), wanted
    if tuple(wanted) == now:
        return values
    growing = [d for d, (a, b) in enumerate(zip(two, three, strict=True)) if a != b]
    if len(growing) > 1 or any(math.prod(a) != math.prod(b) for a, b in zip(now, wanted, strict=True)):
        raise Unsupported(
            f"for two images it makes {_written(two)} of {_written(now[0])}, mixing the images of a batch"
        )
    if growing == [0] and len(two) == 2 and len(now[0]) > 2 and two[0] == now[0][0]:
        return graph.module(op, nn.Flatten(1), values)
    return graph.call(torch.reshape, values, tuple(-1 if d in growing else size for d, size in enumerate(two)))


def _written(shape: Shape) -> str:
    return "x".join(str(size) for size in shape)


@converts("Reshape")
def reshape(op: Operation, graph: Builder) -> fx.Node:
    values = graph.node(op.inputs[0])
    target = graph.known(op.input(1))
    if target is None:
        if "shape" not in op.attributes:
            raise Unsupported("its shape is computed from the image")
        target_of = [np.array(op.attributes["shape"])] * 2
    else:
        target_of = [target.two, target.three]
    shapes = graph.shapes(values)
    fixed = graph.fixed_batch if np.array_equal(target_of[0], target_of[1]) and shapes[0][0] != shapes[1][0] else None
    wanted = []
    for shape, sizes in zip(shapes, target_of, strict=True):
        new = [int(size) for size in sizes.reshape(-1)]
        if not op.attributes.get("allowzero", 0):
            new = [shape[d] if size == 0 else size for d, size in enumerate(new)]
        if fixed and new and new[0] > 0 and new[0] % fixed == 0 and 0 not in sizes[:1]:
            new[0] = new[0] // fixed * shape[0]  # written for one batch size, meant for any
        wanted.append(_without_unknown(new, math.prod(shape)))
    return _to_shapes(op, graph, values, wanted)


def _without_unknown(sizes: list[int], count: int) -> Shape:
    rest = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) > 1 or (-1 in sizes and (rest == 0 or count % rest)):
        raise Unsupported("its shape does not fit its input")
    return tuple(count // rest if size == -1 else size for size in sizes)


@converts("Flatten")
def flatten(op: Operation, graph: Builder) -> fx.Node:
    values = graph.node(op.inputs[0])
    axis = op.attributes.get("axis", 1)
    axis += graph.rank(values) if axis < 0 else 0
    shapes = graph.shapes(values)
    return _to_shapes(op, graph, values, [(math.prod(s[:axis]), math.prod(s[axis:])) for s in shapes])


@converts("Squeeze")
def squeeze(op: Operation, graph: Builder) -> fx.Node:
    values = graph.node(op.inputs[0])
    axes = axes_of(op.attributes, graph.needed(op.input(1), "axes"))
    shapes = graph.shapes(values)
    if axes is None:
        axes = tuple(d for d in range(1, len(shapes[0])) if shapes[0][d] == 1)
    gone = {axis % len(shapes[0]) for axis in axes}
    if any(shapes[0][d] != 1 for d in gone):
        raise Unsupported("it leaves out a dimension that is not 1")
    return _to_shapes(op, graph, values, [tuple(n for d, n in enumerate(s) if d not in gone) for s in shapes])


@converts("Unsqueeze")
def unsqueeze(op: Operation, graph: Builder) -> fx.Node:
    values = graph.node(op.inputs[0])
    axes = axes_of(op.attributes, graph.needed(op.input(1), "axes")) or ()
    rank = graph.rank(values) + len(axes)
    wanted = []
    for shape in graph.shapes(values):
        sizes = list(shape)
        for axis in sorted(axis % rank for axis in axes):
            sizes.insert(axis, 1)
        wanted.append(tuple(sizes))
    return _to_shapes(op, graph, values, wanted)


@converts("Transpose")
def transpose(op: Operation, graph: Builder) -> fx.Node:
    values = graph.node(op.inputs[0])
    order = op.attributes.get("perm") or list(reversed(range(graph.rank(values))))
    return graph.call(torch.permute, values, tuple(order))


@converts("Concat")
def concat(op: Operation, graph: Builder) -> fx.Node:
    axis = op.attributes["axis"]
    computed = next(graph.node(name) for name in op.inputs if graph.is_computed(name))
    dim = axis % graph.rank(computed)
    parts = []
    for name in op.inputs:
        part = graph.node(name)
        if not graph.is_computed(name) and graph.fixed_batch and dim != 0:
            part = _for_each_image(graph, part)
        parts.append(part)
    return graph.call(torch.cat, tuple(parts), dim)


def _for_each_image(graph: Builder, constant: fx.Node) -> fx.Node:
    """A constant that a file of one fixed batch size holds once an image, for any number of images."""
    if graph.shapes(constant)[0][0] != graph.fixed_batch:
        return constant
    return graph.for_each_image(graph.call(operator.getitem, constant, slice(0, 1)))


@converts("Expand")
def expand(op: Operation, graph: Builder) -> fx.Node:
    shape = graph.known(op.inputs[1])
    if shape is None:
        raise Unsupported("its shape is computed from the image")
    values = graph.node(op.inputs[0])
    if shape.constant is not None:
        if all(size == 1 for size in shape.two):
            return values
        sizes = [-1 if size == 1 else int(size) for size in shape.two]
        return graph.method("expand", values, *_padded(sizes, graph.rank(values)))
    dim = graph.batch_dim(values)
    sizes = [-1 if a == 1 or a != b else int(a) for a, b in zip(shape.two, shape.three, strict=True)]
    if dim is None or np.flatnonzero(shape.two != shape.three).tolist() != [dim + len(sizes) - graph.rank(values)]:
        raise Unsupported("its shape grows with the batch where its input does not")
    return graph.method("expand", values, *_padded(sizes, graph.rank(values)))


def _padded(sizes: list[int], rank: int) -> list[int]:
    if len(sizes) > rank:
        return [1 if size == -1 and d < len(sizes) - rank else size for d, size in enumerate(sizes)]
    return [-1] * (rank - len(sizes)) + sizes


@converts("Slice")
def cut(op: Operation, graph: Builder) -> fx.Node:
    values = graph.node(op.inputs[0])
    given = [graph.needed(op.input(index), "range") for index in range(1, 5)]
    slices = slices_of(op.attributes, graph.rank(values), *given)
    if any(part.step is not None and part.step < 1 for part in slices):
        raise Unsupported("it steps backwards")
    dim = graph.batch_dim(values)
    if dim is not None:
        count = graph.shapes(values)[0][dim]
        if len(range(*slices[dim].indices(count))) != count:
            raise Unsupported("it takes some images of a batch and not others")
        slices = (*slices[:dim], slice(None), *slices[dim + 1 :])
    return graph.call(operator.getitem, values, slices)


@converts("Split")
def split(op: Operation, graph: Builder) -> tuple[fx.Node, ...]:
    values = graph.node(op.inputs[0])
    dim = op.attributes.get("axis", 0) % graph.rank(values)
    total, parts = graph.shapes(values)[0][dim], len(op.outputs)
    given = graph.needed(op.input(1), "split")
    sizes = op.attributes.get("split") if given is None else given.tolist()
    if dim == graph.batch_dim(values):
        raise Unsupported("it takes some images of a batch and not others")
    if sizes is None:
        each = -(-total // parts)
        sizes = [each] * (parts - 1) + [total - each * (parts - 1)]
    if sum(sizes) != total or len(sizes) != parts or min(sizes) < 0:
        raise Unsupported("its parts do not add up to its input")
    ends = np.cumsum(sizes).tolist()
    return tuple(
        graph.call(operator.getitem, values, (*[slice(None)] * dim, slice(end - size, end)))
        for size, end in zip(sizes, ends, strict=True)
    )


@converts("Gather")
def gather(op: Operation, graph: Builder) -> fx.Node:
    values, indices = graph.node(op.inputs[0]), graph.constant(op.inputs[1])
    dim = op.attributes.get("axis", 0) % graph.rank(values)
    if indices is None or not graph.is_computed(op.inputs[0]):
        raise Unsupported("its indices are computed while it runs")
    if dim == graph.batch_dim(values) or indices.ndim > 1:
        raise Unsupported("it takes some images of a batch and not others, or its indices are a table")
    if indices.ndim == 0:
        return graph.call(operator.getitem, values, (*[slice(None)] * dim, int(indices)))
    size = graph.shapes(values)[0][dim]
    if indices.size and not (-size <= indices.min() and indices.max() < size):
        raise Unsupported("it takes what is beyond its input")
    return graph.call(torch.index_select, values, dim, graph.buffer(indices % size, f"{op.name}_indices"))


@converts("Pad")
def pad(op: Operation, graph: Builder) -> fx.Node:
    values = graph.node(op.inputs[0])
    rank, mode = graph.rank(values), op.attributes.get("mode", "constant")
    given = graph.needed(op.input(1), "padding")
    pads = [int(p) for p in (op.attributes["pads"] if given is None else given.reshape(-1))]
    axes = graph.needed(op.input(3), "axes")
    if axes is not None:
        named, pads = pads, [0] * 2 * rank
        for index, axis in enumerate(axes.reshape(-1) % rank):
            pads[axis], pads[rank + axis] = named[index], named[len(axes) + index]
    if not any(pads):
        return values
    fill = graph.needed(op.input(2), "value")
    value = op.attributes.get("value", 0.0) if fill is None else float(fill.item())
    order = tuple(p for d in reversed(range(rank)) for p in (pads[d], pads[rank + d]))
    if pads[0] or pads[rank]:
        raise Unsupported("it adds images to a batch")
    if any(order[4:]) or rank < 4:
        if mode != "constant":
            raise Unsupported(f"it pads more than height and width by '{mode}'")
        return graph.call(functional.pad, values, order[: 2 * rank - 2], "constant", value)
    sides = torch_padding([pads[2], pads[3], pads[6], pads[7]])
    kinds = {"reflect": nn.ReflectionPad2d, "edge": nn.ReplicationPad2d}
    if mode in kinds:
        return graph.module(op, kinds[mode](sides), values)
    if mode != "constant":
        raise Unsupported(f"it pads by '{mode}'")
    return graph.module(op, nn.ZeroPad2d(sides) if value == 0 else nn.ConstantPad2d(sides, value), values)
