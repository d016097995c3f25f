"""Logits along lines, exactly: all turn points of a piecewise-linear network as one value grows (ABS, section 4.1)."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.nn import functional

from agnes.errors import AgnesError
from agnes.layers import kind_of

if TYPE_CHECKING:
    from agnes.layers import Layer
    from agnes.network import Network, State

_TURNING = frozenset(("relu", "clamp", "leaky_relu"))


@dataclass(frozen=True)
class Pieces:
    """Functions of one value, linear between neighbouring points; those of a line stand together, values ascending."""

    lines: torch.Tensor = field(repr=False)  # of each point
    values: torch.Tensor = field(repr=False)
    logits: torch.Tensor = field(repr=False)  # points, classes

    def at(self, grid: torch.Tensor, count: int) -> torch.Tensor:
        """The logits of lines 0..count-1 at values they all have in common: lines, values, classes."""
        scale = float(self.values.max()) * 1.001 or 1.0
        place = self.lines.double() + self.values.double() / scale
        asked = torch.arange(count, device=grid.device)[:, None] + grid.double() / scale
        right = torch.searchsorted(place, asked.flatten()).clamp(1, len(place) - 1)
        right = right + (self.lines[right] > self.lines[right - 1])  # never across two lines
        right = right.clamp(max=len(place) - 1)
        left = right - 1
        width = (self.values[right] - self.values[left]).clamp(min=torch.finfo(torch.float32).tiny)
        share = ((grid.repeat(count) - self.values[left]) / width).clamp(0, 1)[:, None]
        return torch.lerp(self.logits[left], self.logits[right], share).unflatten(0, (count, -1))

    def highest(self, count: int) -> torch.Tensor:
        """The largest logit of each class on each line: lines, classes."""
        most = torch.full((count, self.logits.shape[1]), -torch.inf, device=self.logits.device)
        return most.scatter_reduce(0, self.lines[:, None].expand_as(self.logits), self.logits, "amax")


class Follower:
    """Runs what comes after a layer over points of lines, and puts new points in wherever a line turns."""

    def __init__(self, network: Network, layer: Layer, most_points: int, most_bytes: int) -> None:
        self._rest = network.rest(layer)
        self._module = network.module
        self._shapes = network.shapes
        self._kinds = {node: kind_of(network.module, node) for node in self._rest.nodes}
        self._most_points = most_points
        self._most_bytes = most_bytes

    def follow(self, state: State, replaced: torch.Tensor, values: torch.Tensor) -> Pieces:
        """From two points a line, one image of the state each."""
        lines = torch.arange(state.count // 2, device=values.device).repeat_interleave(2)
        points = _Points(lines, values, self._most_points, self._most_bytes)
        points.known = {**self._rest.given(state), self._rest.start: replaced}
        readers = Counter(read for node in self._rest.nodes for read in node.all_input_nodes)
        for node in self._rest.nodes:
            points.known[node] = self._value(node, points)
            for read in node.all_input_nodes:
                readers[read] -= 1
                if not readers[read]:
                    points.known.pop(read, None)
        return Pieces(points.lines, points.values, points.known[self._rest.output].float())

    def _value(self, node: fx.Node, points: _Points) -> Any:
        kind = self._kinds[node]
        if kind in _TURNING:
            read = node.all_input_nodes[0]
            for turn in _turns(node, self._module):
                points.split(lambda turn=turn: points.known[read] - turn)
        elif kind == "max_pool":
            return self._pooled(node, points)
        elif kind == "flatten" and node.name in self._shapes:  # the sizes it reads may be of fewer points
            return points.known[node.all_input_nodes[0]].reshape(-1, *self._shapes[node.name])
        return self._rest.compute(node, points.known)

    def _pooled(self, node: fx.Node, points: _Points) -> torch.Tensor:
        """The largest of each window, two by two: a turn point wherever the larger of two changes."""
        key = fx.Node  # stands for the windows among what is known, so that they are split as well
        points.known[key] = _windows(node, self._module, points.known[node.all_input_nodes[0]])
        while points.known[key].shape[-1] > 1:
            half = points.known[key].shape[-1] // 2
            points.split(lambda half=half: _differences(points.known[key], half))
            windows = points.known[key]
            largest = torch.maximum(windows[..., :half], windows[..., half : 2 * half])
            points.known[key] = torch.cat([largest, windows[..., 2 * half :]], -1)
        return points.known.pop(key)[..., 0]


class TooMany(Exception):
    """The lines have more turn points than they may have, or, together, than the memory holds."""

    def __init__(self, together: bool) -> None:
        super().__init__("too many turn points")
        self.together = together  # fewer lines at once may pass


class _Points:
    """The points of all lines, and everything known at each of them."""

    def __init__(self, lines: torch.Tensor, values: torch.Tensor, most_points: int, most_bytes: int) -> None:
        self.lines, self.values = lines, values
        self.known: dict[Any, Any] = {}
        self._most_points, self._most_bytes = most_points, most_bytes

    def split(self, differences: Callable[[], torch.Tensor]) -> None:
        """Put a point wherever a difference is zero between two points of a line."""
        signs = differences().flatten(1)
        one, other = signs[:-1], signs[1:]
        same = (self.lines[:-1] == self.lines[1:])[:, None]
        segments, units = ((one * other < 0) & same).nonzero(as_tuple=True)
        if not len(segments):
            return
        before, after = one[segments, units].double(), other[segments, units].double()
        places = torch.unique(segments + (before / (before - after)).clamp(1e-12, 1 - 1e-12))
        segments = places.floor().long()
        shares = (places - segments).to(signs.dtype)
        order = torch.cat([torch.arange(len(self.lines), device=places.device).double(), places]).argsort(stable=True)
        self._check(len(order))
        count = len(self.lines)

        def widened(value: Any) -> Any:
            if not isinstance(value, torch.Tensor) or not value.dim() or len(value) != count:
                return value
            share = shares.reshape(-1, *[1] * (value.dim() - 1)).to(value.dtype)
            return torch.cat([value, torch.lerp(value[segments], value[segments + 1], share)])[order]

        self.known = {node: widened(value) for node, value in self.known.items()}
        self.values = widened(self.values)
        self.lines = torch.cat([self.lines, self.lines[segments]])[order]

    def _check(self, points: int) -> None:
        held = sum(v.nbytes for v in self.known.values() if isinstance(v, torch.Tensor)) / max(1, len(self.lines))
        lines = int(self.lines[-1]) + 1
        if points > self._most_points * lines:
            raise TooMany(together=False)
        if 3 * held * points > self._most_bytes:
            raise TooMany(together=lines > 1)


def _turns(node: fx.Node, module: fx.GraphModule) -> tuple[float, ...]:
    """Where an activation turns."""
    called = module.get_submodule(str(node.target)) if node.op == "call_module" else None
    if isinstance(called, nn.Hardtanh):  # ReLU6 is one
        return called.min_val, called.max_val
    name = str(getattr(node.target, "__name__", node.target))
    if called is None and name == "relu6":
        return 0.0, 6.0
    if called is None and name in ("clamp", "clamp_min", "hardtanh"):
        numbers = [*node.args[1:], *node.kwargs.values()]
        return tuple(float(n) for n in numbers if isinstance(n, (int, float)) and not isinstance(n, bool))
    return (0.0,)


def _differences(windows: torch.Tensor, half: int) -> torch.Tensor:
    return windows[..., :half] - windows[..., half : 2 * half]


def _windows(node: fx.Node, module: fx.GraphModule, maps: torch.Tensor) -> torch.Tensor:
    """Each window of a max pool in the last dimension, after the shape that the pool gives."""
    pool = module.get_submodule(str(node.target)) if node.op == "call_module" else None
    if isinstance(pool, nn.MaxPool2d) and pool.dilation in (1, (1, 1)):
        size, step, margin = _pair(pool.kernel_size), _pair(pool.stride), _pair(pool.padding)
        made = pool(maps[:1]).shape[2:]
    elif isinstance(pool, nn.AdaptiveMaxPool2d) and _pair(pool.output_size) == (1, 1):
        size = step = (maps.shape[2], maps.shape[3])
        margin, made = (0, 0), (1, 1)
    elif node.target is functional.max_pool2d or getattr(node.target, "__name__", "") in ("boolean_dispatch", "fn"):
        given = dict(zip(("kernel_size", "stride", "padding"), node.args[1:], strict=False)) | dict(node.kwargs)
        size = _pair(given["kernel_size"])
        step, margin = _pair(given.get("stride") or size), _pair(given.get("padding", 0))
        made = functional.max_pool2d(maps[:1], size, step, margin, ceil_mode=bool(given.get("ceil_mode"))).shape[2:]
    else:
        raise AgnesError(f"abs-exact cannot follow '{node.name}', a maximum that is not pooling over windows")
    low = torch.finfo(maps.dtype).min / 4  # never the largest, and still a number that can be interpolated
    reach = [(count - 1) * s + k for count, s, k in zip(made, step, size, strict=True)]
    pads = [max(0, r - n - m) for r, n, m in zip(reach, maps.shape[2:], margin, strict=True)]
    padded = functional.pad(maps, (margin[1], pads[1], margin[0], pads[0]), value=low)
    windows = padded.unfold(2, size[0], step[0]).unfold(3, size[1], step[1])
    return windows[:, :, : made[0], : made[1]].flatten(4)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (operator.index(value[0]), operator.index(value[1]))
