"""What comes after a layer, run for many channels, values and images at once, each change followed as one channel."""

from __future__ import annotations

import functools
import operator
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from agnes.layers import ACTIVATIONS, RESHAPING, kind_of
from agnes_stimulation.touched import Layout, Mixer, Touched

if TYPE_CHECKING:
    from agnes.layers import Layer
    from agnes.network import Network, State

_SUMS = (operator.add, torch.add)
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_FRESH = frozenset(("conv", "linear", "batch_norm", "add"))  # give a new tensor, never a view


@dataclass(frozen=True)
class Begun:
    """A state, and what the plan makes of its images as they are."""

    state: State
    given: Mapping[fx.Node, Any] = field(repr=False)
    plain: Mapping[fx.Node, torch.Tensor] = field(repr=False)


class Pass:
    """The plan for one layer: which operations see one changed channel, and which see rows of all."""

    def __init__(self, network: Network, layer: Layer) -> None:
        self.layer = layer
        self.rest = network.rest(layer)
        self.layouts: dict[fx.Node, Layout] = {
            self.rest.start: "first" if layer.channel_dim == 0 and len(layer.shape) > 1 else "last"
        }
        self.steps: dict[fx.Node, Callable[[Touched, Any], Touched]] = {}
        self.mixers: dict[fx.Node, Mixer] = {}
        self._module = network.module
        self._shapes = network.shapes
        kinds = {node: kind_of(network.module, node) for node in self.rest.nodes}
        for node in self.rest.nodes:
            self._plan(node, kinds[node])
        self.sizes = {
            n for n in self.rest.nodes if n.target == "size" or (n.target is getattr and n.args[1] == "shape")
        }
        self.sums = {n for n in self.rest.nodes if n.target in _SUMS and not n.kwargs and len(n.all_input_nodes) == 2}
        self.in_place = {n for n in self.rest.nodes if kinds[n] == "relu" and kinds.get(n.all_input_nodes[0]) in _FRESH}

    def begin(self, state: State) -> Begun:
        """Run what the plan needs of the images as they are."""
        given = self.rest.given(state)
        values: dict[fx.Node, Any] = {**given, self.rest.start: state.value}
        planned = {*self.steps, *self.mixers}
        for node in self.rest.nodes:
            is_size = node.name not in self._shapes and all(read in values for read in node.all_input_nodes)
            if node in planned or is_size:
                values[node] = self.rest.compute(node, values)
        return Begun(state, given, {node: values[node] for node in (self.rest.start, *planned)})

    def logits(
        self, begun: Begun, channels: torch.Tensor, images: slice, values: torch.Tensor, where: torch.Tensor | None
    ) -> torch.Tensor:
        """Channels, values, images, classes. `values` is channels x values, `where` channels x the map's shape."""
        return self.rows(begun, channels, images, values, where, self.rest.output).float()

    def rows(
        self,
        begun: Begun,
        channels: torch.Tensor,
        images: slice,
        values: torch.Tensor,
        where: torch.Tensor | None,
        node: fx.Node,
    ) -> torch.Tensor:
        """What a node holds: channels, values, images, then its shape."""
        rows = _Run(self, begun, channels, images, values, where).rows(node)
        return rows.unflatten(0, (len(channels), values.shape[1], -1))

    # The plan

    def _plan(self, node: fx.Node, kind: str) -> None:
        """Note how a node is run where its only input that changes is a value with one channel touched."""
        reads = [read for read in node.all_input_nodes if read.name in self._shapes]
        if len(reads) != 1 or reads[0] not in self.layouts or node.name not in self._shapes:
            return
        layout, total, shape = self.layouts[reads[0]], self.layer.channels, self._shapes[node.name]
        module = self._module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, nn.Conv2d) and layout == "first" and module.padding_mode == "zeros":
            if module.groups == 1:
                self.mixers[node] = Mixer(module, layout, total)
            elif module.groups == total and module.out_channels == total:
                self.steps[node] = lambda touched, plain: touched.kept_apart(module, plain)
                self.layouts[node] = layout
        elif isinstance(module, nn.Linear) and layout in ("flat", "last"):
            self.mixers[node] = Mixer(module, layout, total)
        elif kind in RESHAPING:
            self._plan_reshape(node, layout, self._shapes[reads[0].name], shape)
        elif (_is_elementwise(kind, module) or _is_pool(node, kind, module)) and self._fits(kind, layout, shape):
            function = functools.partial(self._of_one, node, reads[0])
            self.steps[node] = lambda touched, plain: touched.through(function, plain, linear=kind == "avg_pool")
            self.layouts[node] = layout

    def _plan_reshape(self, node: fx.Node, layout: Layout, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        if before == after:
            self.steps[node] = lambda touched, plain: touched
            self.layouts[node] = layout
        elif layout == "first" and after == (_sized(before),):
            self.steps[node] = lambda touched, plain: touched.flattened(plain)
            self.layouts[node] = "flat"

    def _fits(self, kind: str, layout: Layout, shape: tuple[int, ...]) -> bool:
        return kind in ACTIVATIONS or (layout == "first" and shape[0] == self.layer.channels)

    def _of_one(self, node: fx.Node, read: fx.Node, part: torch.Tensor) -> torch.Tensor:
        return self.rest.compute(node, {read: part})

    def data_read(self, node: fx.Node) -> fx.Node:
        """The value that a planned node works on; what else it reads are sizes."""
        return next(read for read in node.all_input_nodes if read in self.layouts)


class _Run:
    """One chunk: some channels, all their values, some images."""

    def __init__(
        self,
        plan: Pass,
        begun: Begun,
        channels: torch.Tensor,
        images: slice,
        values: torch.Tensor,
        where: torch.Tensor | None,
    ) -> None:
        self.plan = plan
        self.begun = begun
        self.channels = channels
        self.images = range(begun.state.count)[images]
        self.count = values.shape[1]
        self.plain = {node: value[images] for node, value in begun.plain.items()}
        self.readers = Counter(read for node in plan.rest.nodes for read in node.all_input_nodes)
        self.known: dict[fx.Node, Any] = {plan.rest.start: self._touched(values, where)}

    def rows(self, wanted: fx.Node) -> torch.Tensor:
        """What a node holds, a row for each channel, value and image."""
        for node in self.plan.rest.nodes:
            self.known[node] = self._value(node)
            if node is wanted:
                break
            for read in node.all_input_nodes:
                self.readers[read] -= 1
                if not self.readers[read]:
                    self.known.pop(read, None)
        return self._rows(wanted)

    def _touched(self, values: torch.Tensor, where: torch.Tensor | None) -> Touched:
        """The layer's value, set in each channel to each value."""
        start = self.plan.rest.start
        plain = self.plain[start]
        touched = Touched(self.plan.layouts[start], plain, self.channels, (), self.plan.layer.channels)
        own = touched.own
        set_to = values.T.reshape(-1, 1, len(self.channels), *[1] * (own.dim() - 3)).to(plain.dtype)
        if where is None:
            return replace(touched, parts=(set_to.expand(-1, 1, -1, *own.shape[3:]),))
        return replace(touched, parts=(own * ~where, set_to * where))  # map * (1 - R) + value * R (AGNES, fig. 4)

    def _value(self, node: fx.Node) -> Any:
        plan = self.plan
        if node in plan.steps:
            return plan.steps[node](self.known[plan.data_read(node)], self.plain[node])
        if node in plan.mixers:
            return self.known[plan.data_read(node)].mixed(plan.mixers[node], self.plain[node], self.count)
        if node in plan.sizes and isinstance(touched := self.known.get(node.all_input_nodes[0]), Touched):
            shape = (len(self.channels) * self.count * len(self.images), *touched.plain.shape[1:])
            return plan.rest.compute(node, {node.all_input_nodes[0]: torch.empty(shape, device="meta")})
        if node in plan.sums and (made := self._sum(*node.all_input_nodes)) is not None:
            return made
        values = {read: self._rows(read) for read in node.all_input_nodes}
        if node in plan.in_place and self.readers[read := node.all_input_nodes[0]] == 1:
            return torch.relu_(values[read])
        return plan.rest.compute(node, values)

    def _rows(self, node: fx.Node) -> Any:
        """A value with a row for each channel, value and image."""
        if node not in self.known:
            return self._before[node]
        value = self.known[node]
        return value.spread(self.count) if isinstance(value, Touched) else value

    @cached_property
    def _before(self) -> Mapping[fx.Node, Any]:
        """What was made before the cut, in rows."""
        images = torch.tensor(self.images).repeat(len(self.channels) * self.count)
        return self.plan.rest.given(self.begun.state.take(images))

    def _sum(self, *nodes: fx.Node) -> torch.Tensor | None:
        """Rows plus something that has fewer of them, never written out; None where it is another sum."""
        one, other = nodes if nodes[0] in self.known else reversed(nodes)
        rows, added = self.known.get(one), self.known.get(other)
        if isinstance(rows, Touched):
            rows, added = added, rows
        if not isinstance(rows, torch.Tensor) or isinstance(added, torch.Tensor):
            return None
        if isinstance(added, Touched):
            return added.added_to(rows, self.count)
        per_image = self.begun.given.get(other)  # or a weight, which has no row for each image
        whole = (self.begun.state.count, *rows.shape[1:])
        if added is not None or not isinstance(per_image, torch.Tensor) or per_image.shape != whole:
            return None
        return (rows.unflatten(0, (-1, len(self.images))) + per_image[self.images.start : self.images.stop]).flatten(
            0, 1
        )


def _is_elementwise(kind: str, module: nn.Module | None) -> bool:
    """Whether an activation treats every channel alike."""
    return kind in ACTIVATIONS and not (isinstance(module, nn.PReLU) and module.num_parameters > 1)


def _is_pool(node: fx.Node, kind: str, module: nn.Module | None) -> bool:
    """Whether each map is pooled alone."""
    if kind not in ("max_pool", "avg_pool"):
        return False
    if isinstance(module, _POOLS) or getattr(node.target, "__name__", "").endswith("pool2d"):
        return True
    dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    dims = [dims] if isinstance(dims, int) else dims
    return isinstance(dims, (list, tuple)) and all(isinstance(d, int) and d in (2, 3, -1, -2) for d in dims)


def _sized(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
