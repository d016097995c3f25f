"""Network: the classifier under scan, a graph seen as layers that can be cut, read, stimulated and resumed."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils import fusion

from agnes import graphs
from agnes.errors import AgnesError, Refused, suggestion
from agnes.layers import BATCH_NORMS, PIECEWISE_LINEAR, Layer, find_layers, kinds_in

_PREPROCESS = "agnes_preprocess"


class Preprocess(nn.Module):
    """From pixels in [0, 1], NCHW, to what the file's own first layer expects."""

    agnes_kind = "preprocess"

    def __init__(
        self, mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,), scale: float = 1.0, layout: str = "NCHW"
    ) -> None:
        super().__init__()
        self.scale = float(scale)
        self.layout = layout
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(-1, 1, 1))

    @property
    def is_identity(self) -> bool:
        return self.scale == 1 and self.layout == "NCHW" and bool((self.mean == 0).all() and (self.std == 1).all())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = (images * self.scale - self.mean) / self.std
        return images.permute(0, 2, 3, 1) if self.layout == "NHWC" else images


@dataclass(frozen=True)
class State:
    """All tensors alive at a cut: what `Network.after` needs to go on from there."""

    layer: Layer
    value: torch.Tensor = field(compare=False, repr=False)  # the layer's own
    alive: Mapping[str, Any] = field(compare=False, repr=False)  # node -> value, for what the layer does not reach
    forms: Mapping[str, Any] = field(compare=False, repr=False)

    @property
    def count(self) -> int:
        """How many images the state holds."""
        return self.forms[self.layer.node].count(self.value)

    def take(self, images: Sequence[int] | torch.Tensor) -> State:
        """The state of the chosen images, in that order; an image may be chosen many times."""
        index = torch.as_tensor(images, dtype=torch.int64, device=self.value.device)
        alive = {name: graphs.select(self.forms[name], value, index) for name, value in self.alive.items()}
        return replace(self, value=self.forms[self.layer.node].rows(self.value, index), alive=alive)

    def tile(self, times: int) -> State:
        """The whole batch, `times` over: images 0..n-1, then 0..n-1 again."""
        return self if times == 1 else self.take(torch.arange(self.count).repeat(times))


@dataclass(frozen=True)
class _Cut:
    """The plan for one layer: what runs before it, what is kept, what runs after."""

    before: tuple[fx.Node, ...]
    kept: tuple[fx.Node, ...]
    rebuilt: tuple[fx.Node, ...]  # sizes: known from the batch alone
    static: tuple[fx.Node, ...]  # weights and what is computed from them alone
    after: tuple[fx.Node, ...]


class Network:
    """A classifier in one canonical form: pixels in [0, 1], NCHW, to logits."""

    def __init__(
        self,
        module: fx.GraphModule,
        input_shape: tuple[int, int, int],
        class_names: Sequence[str] | None,
        forms: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        peeled: str | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.module = module
        self.input_shape = input_shape
        self.peeled = peeled  # "softmax" where the file ended in one
        self.facts: Mapping[str, Any] = dict(facts or {})  # what the loader knows of the file
        self._forms = dict(forms)
        self._shapes = dict(shapes)
        self._nodes = {node.name: node for node in module.graph.nodes}
        self._input = next(node for node in module.graph.nodes if node.op == "placeholder")
        self._output = graphs.output_value(module)
        self.class_count = shapes[self._output.name][0]
        self.class_names = _class_names(class_names, self.class_count)
        self.layers = find_layers(
            module, self._output, {node: shapes[node.name] for node in module.graph.nodes if node.name in shapes}
        )
        self._cuts: dict[str, _Cut] = {}

    @classmethod
    def of(
        cls,
        module: nn.Module,
        input_shape: tuple[int, int, int],
        *,
        class_names: Sequence[str] | None = None,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        scale: float = 1.0,
        layout: str = "NCHW",
        facts: Mapping[str, Any] | None = None,
    ) -> Network:
        """A module as a Network. The module is copied; `input_shape` is channels, height, width.

        The module is given `(x * scale - mean) / std` for pixels x in [0, 1], as NHWC where `layout` says so.
        """
        preprocess = Preprocess(mean, std, scale, layout)
        for values, what in ((preprocess.mean, "mean"), (preprocess.std, "std")):
            if values.numel() not in (1, input_shape[0]):
                raise AgnesError(f"{what} has {values.numel()} values for {input_shape[0]} channels; give one or one each")
        graph_module = graphs.trace(module)
        if not preprocess.is_identity:
            graphs.prepend(graph_module, _PREPROCESS, preprocess)
        peeled = graphs.peel_softmax(graph_module)
        values = graphs.probe(graph_module, input_shape)
        if values[graphs.output_value(graph_module)][0].dim() > 2:
            graphs.flatten_output(graph_module)
            values = graphs.probe(graph_module, input_shape)
        forms, shapes = _describe(values)
        _check_output(graphs.output_value(graph_module), values)
        return cls(graph_module, input_shape, class_names, forms, shapes, peeled, facts)

    # The three verbs

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """The logits of images."""
        return self.module(images)

    def until(self, layer: Layer | str, images: torch.Tensor) -> State:
        """Run up to a layer, and keep all that the rest of the network will ask for."""
        layer = self.layer(layer)
        cut = self._cut(layer)
        values = self._run(cut.before, {self._input: images})
        node = self._node(layer.node)
        return State(layer, values[node], {n.name: values[n] for n in cut.kept}, self._forms)

    def after(self, layer: Layer | str, state: State, replaced: torch.Tensor | None = None) -> torch.Tensor:
        """The logits, running only what the layer reaches, with its value replaced where one is given."""
        layer = self.layer(layer)
        cut = self._cut(layer)
        value = state.value if replaced is None else replaced
        batch = self._forms[layer.node].count(value)
        if batch != state.count or layer.name != state.layer.name:
            raise AgnesError(
                f"the value for layer '{layer.name}' holds {batch} images and the state {state.count} at "
                f"'{state.layer.name}'; repeat the state with state.tile(n) or state.take(images)"
            )
        values: dict[fx.Node, Any] = {self._node(name): kept for name, kept in state.alive.items()}
        values.update({n: graphs.rebuild(self._forms[n.name], batch, value.device) for n in cut.rebuilt})
        values[self._node(layer.node)] = value
        self._run(cut.static, values)
        return self._run(cut.after, values)[self._output]

    def read(self, images: torch.Tensor, layers: Sequence[Layer] | None = None) -> dict[str, torch.Tensor]:
        """The values of layers, by name, from one pass."""
        wanted = [self.layer(layer) for layer in (self.layers if layers is None else layers)]
        nodes = {layer.name: self._node(layer.node) for layer in wanted}
        values = self._run(self._in_order(_reach(nodes.values(), back=True)), {self._input: images})
        return {name: values[node] for name, node in nodes.items()}

    # What it is

    def layer(self, layer: Layer | str) -> Layer:
        """A layer by its name."""
        name = layer if isinstance(layer, str) else layer.name
        for known in self.layers:
            if known.name == name:
                return known
        raise AgnesError(f"the network has no layer '{name}'{suggestion(name, [known.name for known in self.layers])}")

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of operation it is made of."""
        return kinds_in(self.module)

    @property
    def piecewise_linear(self) -> bool:
        return self.kinds <= PIECEWISE_LINEAR

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.module.parameters())

    @property
    def device(self) -> torch.device:
        tensors = [*self.module.parameters(), *self.module.buffers()]
        return tensors[0].device if tensors else torch.device("cpu")

    # Copies

    def copy(self) -> Network:
        """A network of its own weights, to be changed freely."""
        return self._with(copy.deepcopy(self.module))

    def to(self, device: torch.device | str) -> Network:
        """This network on a device; itself when it is there already."""
        return self if self.device == torch.device(device) else self._with(copy.deepcopy(self.module).to(device))

    def fold_batch_norm(self) -> Network:
        """A copy in which every BatchNorm that directly follows a convolution or linear layer is part of it."""
        module = copy.deepcopy(self.module)
        for node in list(module.graph.nodes):
            norm = module.get_submodule(str(node.target)) if node.op == "call_module" else None
            before = node.args[0] if isinstance(norm, BATCH_NORMS) else None
            if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
                continue
            weighted = module.get_submodule(str(before.target))
            if sum(n.op == "call_module" and n.target == before.target for n in module.graph.nodes) > 1:
                continue  # shared weights: folding would change the other use
            if isinstance(weighted, nn.Conv2d):
                fused: nn.Module = fusion.fuse_conv_bn_eval(weighted, norm)  # type: ignore[arg-type]
            elif isinstance(weighted, nn.Linear):
                fused = fusion.fuse_linear_bn_eval(weighted, norm)  # type: ignore[arg-type]
            else:
                continue
            module.set_submodule(str(before.target), fused.requires_grad_(False))
            node.replace_all_uses_with(before)
            module.graph.erase_node(node)
        module.delete_all_unused_submodules()
        module.recompile()
        return self._with(module)

    def without_preprocessing(self) -> fx.GraphModule:
        """A copy of the graph that takes what the file's own network takes, for writing it back."""
        module = copy.deepcopy(self.module)
        for node in module.graph.nodes:
            if node.op == "call_module" and node.target == _PREPROCESS:
                node.replace_all_uses_with(node.args[0])
                module.graph.erase_node(node)
        module.delete_all_unused_submodules()
        module.recompile()
        return module

    @property
    def preprocess(self) -> Preprocess | None:
        """What AGNES put in front of the file's own network."""
        return dict(self.module.named_children()).get(_PREPROCESS)  # type: ignore[return-value]

    def _with(self, module: fx.GraphModule) -> Network:
        return Network(
            module, self.input_shape, self.class_names, self._forms, self._shapes, self.peeled, self.facts
        )

    # How it runs

    def _node(self, name: str) -> fx.Node:
        return self._nodes[name]

    def _in_order(self, nodes: set[fx.Node]) -> tuple[fx.Node, ...]:
        return tuple(n for n in self.module.graph.nodes if n in nodes and n.op not in ("placeholder", "output"))

    def _cut(self, layer: Layer) -> _Cut:
        if layer.name not in self._cuts:
            self._cuts[layer.name] = self._plan(layer)
        return self._cuts[layer.name]

    def _plan(self, layer: Layer) -> _Cut:
        node = self._node(layer.node)
        after = (_reach([node]) - {node}) & _reach([self._output], back=True)
        frontier = {n for later in after for n in later.all_input_nodes} - after - {node}
        static = {n for n in frontier if self._input not in _reach([n], back=True)}
        dynamic = frontier - static
        for n in dynamic | {node}:
            if n.name not in self._forms:
                raise Refused(f"the network cannot be cut at layer '{layer.name}': '{n.name}' mixes images of a batch")
        kept = {n for n in dynamic if graphs.is_data(self._forms[n.name])}
        return _Cut(
            before=self._in_order(_reach([node, *kept], back=True)),
            kept=self._in_order(kept) + tuple(n for n in kept if n.op == "placeholder"),
            rebuilt=self._in_order(dynamic - kept),
            static=self._in_order(_reach(static, back=True)),
            after=self._in_order(after),
        )

    def _run(self, nodes: Sequence[fx.Node], values: dict[fx.Node, Any]) -> dict[fx.Node, Any]:
        for node in nodes:
            if node in values:
                continue
            args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), lambda n: values[n])
            if node.op == "call_module":
                values[node] = self.module.get_submodule(str(node.target))(*args, **kwargs)
            elif node.op == "call_function":
                values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
            elif node.op == "call_method":
                values[node] = getattr(args[0], str(node.target))(*args[1:], **kwargs)
            elif node.op == "get_attr":
                values[node] = _attribute(self.module, str(node.target))
        return values


def _attribute(module: nn.Module, path: str) -> Any:
    owner, _, name = path.rpartition(".")
    return getattr(module.get_submodule(owner), name)


def _reach(nodes: Any, back: bool = False) -> set[fx.Node]:
    """The nodes and all that they lead to, or that lead to them."""
    seen = set(nodes)
    waiting = list(seen)
    while waiting:
        node = waiting.pop()
        for other in node.all_input_nodes if back else node.users:
            if other not in seen:
                seen.add(other)
                waiting.append(other)
    return seen


def _describe(values: Mapping[fx.Node, tuple[Any, Any]]) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """Every node's form and, where it holds one batch of images in its first dimension, the shape for one image."""
    forms: dict[str, Any] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for node, (two, three) in values.items():
        try:
            form = graphs.compare(two, three)
        except graphs.Unsupported:
            continue
        forms[node.name] = form
        if form == graphs.Batched(0, 1):
            shapes[node.name] = tuple(two.shape[1:])
    return forms, shapes


def _check_output(output: fx.Node, values: Mapping[fx.Node, tuple[Any, Any]]) -> None:
    two, three = values[output]
    if two.dim() != 2 or two.shape[0] != 2 or three.shape[0] != 3:
        raise Refused(
            f"the model's output for 2 images has the shape {tuple(two.shape)}; a classifier gives one row of logits per image"
        )
    if two.shape[1] < 2:
        raise Refused("the model has one output; AGNES scans classifiers of two classes or more")


def _class_names(names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    if names is None:
        return tuple(f"class {index}" for index in range(count))
    if len(names) != count:
        raise AgnesError(f"{len(names)} class names were given for a network of {count} classes")
    return tuple(names)
