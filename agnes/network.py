"""Network: the classifier under scan, a graph seen as layers that can be cut, read, stimulated and resumed."""

from __future__ import annotations

import copy
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import map_arg
from torch.nn.utils import fusion

from agnes import forms, graphs
from agnes.errors import AgnesError, Refused, UsageError, suggestion
from agnes.layers import BATCH_NORMS, PIECEWISE_LINEAR, Layer, find_layers, kinds_in
from agnes.preprocess import Preprocess

_PREPROCESS = "agnes_preprocess"


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
        alive = {name: forms.select(self.forms[name], value, index) for name, value in self.alive.items()}
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


@dataclass(frozen=True)
class Rest:
    """What runs after a cut, node by node, for methods that run it in a way of their own."""

    start: fx.Node  # whose value is the layer's
    nodes: tuple[fx.Node, ...]  # in order
    output: fx.Node
    compute: Callable[[fx.Node, Mapping[fx.Node, Any]], Any]  # a node's value from those of the nodes that it reads
    given: Callable[[State], dict[fx.Node, Any]]  # what the nodes read of before the cut, for the images of a state


class Network:
    """A classifier in one canonical form: pixels in [0, 1], NCHW, to logits."""

    def __init__(
        self,
        module: fx.GraphModule,
        input_shape: tuple[int, int, int],
        class_names: Sequence[str] | None,
        known: Mapping[str, Any],  # node -> its form
        shapes: Mapping[str, tuple[int, ...]],
        peeled: str | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.module = module
        self.input_shape = input_shape
        self.peeled = peeled  # "softmax" where the file ended in one
        self.facts: Mapping[str, Any] = dict(facts or {})  # what the loader knows of the file
        self._forms = dict(known)
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
        device = _device_of(module)
        preprocess = Preprocess(mean, std, scale, layout).to(device).eval()
        preprocess.check(input_shape[0])
        images = {batch: noise.to(device) for batch, noise in forms.noise(input_shape).items()}
        graph_module = graphs.trace(module, preprocess(images[2]))
        if not preprocess.is_identity:
            graphs.prepend(graph_module, _PREPROCESS, preprocess)
        peeled = graphs.peel_softmax(graph_module)
        values = forms.probe(graph_module, images)
        if _is_map_of_one(values[graphs.output_value(graph_module)][0]):
            graphs.flatten_output(graph_module)
            values = forms.probe(graph_module, images)
        _check_output(values[graphs.output_value(graph_module)])
        known, shapes = forms.describe(values)
        return cls(graph_module, input_shape, class_names, known, shapes, peeled, facts)

    # The three verbs

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """The logits of images."""
        return self.module(images)

    def until(self, layer: Layer | str, images: torch.Tensor) -> State:
        """Run up to a layer, and keep all that the rest of the network will ask for."""
        layer = self.layer(layer)
        cut = self._cut(layer)
        node = self._node(layer.node)
        values = self._run(cut.before, {self._input: images}, (node, *cut.kept))
        return State(layer, values[node], {n.name: values[n] for n in cut.kept}, self._forms)

    def after(self, layer: Layer | str, state: State, replaced: torch.Tensor | None = None) -> torch.Tensor:
        """The logits, running only what the layer reaches, with its value replaced where one is given."""
        layer = self.layer(layer)
        cut = self._cut(layer)
        value = state.value if replaced is None else replaced
        _check_resumed(layer, state, value)
        values = {**self._given(cut, state), self._node(layer.node): value}
        return self._run(cut.after, values, (self._output,))[self._output]

    def rest(self, layer: Layer | str) -> Rest:
        """What `after` runs, as nodes."""
        layer = self.layer(layer)
        cut = self._cut(layer)
        given = functools.partial(self._given, cut)
        return Rest(self._node(layer.node), cut.after, self._output, self._compute, given)

    def read(self, images: torch.Tensor, layers: Sequence[Layer] | None = None) -> dict[str, torch.Tensor]:
        """The values of layers, by name, from one pass."""
        wanted = [self.layer(layer) for layer in (self.layers if layers is None else layers)]
        nodes = {layer.name: self._node(layer.node) for layer in wanted}
        before = self._in_order(graphs.reach(nodes.values(), back=True))
        values = self._run(before, {self._input: images}, nodes.values())
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
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Node -> the shape for one image, where a node's value holds one image a row."""
        return self._shapes

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
        return _device_of(self.module)

    # Copies

    def copy(self) -> Network:
        """A network of its own weights, to be changed freely."""
        return self._with(copy.deepcopy(self.module))

    def to(self, device: torch.device | str) -> Network:
        """This network on a device; itself when it is there already."""
        wanted, here = torch.device(device), self.device
        if wanted.type == here.type and wanted.index in (None, here.index):
            return self
        return self._with(copy.deepcopy(self.module).to(wanted))

    def with_class_names(self, names: Sequence[str]) -> Network:
        """This network, its classes called so; classes beyond the last name keep theirs."""
        renamed = self._with(self.module)
        renamed.class_names = _class_names([*names, *self.class_names[len(names) :]], self.class_count)
        return renamed

    def fold_batch_norm(self) -> Network:
        """A copy in which every BatchNorm that directly follows a convolution or linear layer is part of it."""
        module = copy.deepcopy(self.module)
        for node in list(module.graph.nodes):
            norm = module.get_submodule(str(node.target)) if node.op == "call_module" else None
            before = node.all_input_nodes[0] if isinstance(norm, BATCH_NORMS) else None
            if before is None or before.op != "call_module" or len(before.users) > 1:
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
        return Network(module, self.input_shape, self.class_names, self._forms, self._shapes, self.peeled, self.facts)

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
        after = (graphs.reach([node]) - {node}) & graphs.reach([self._output], back=True)
        frontier = {n for later in after for n in later.all_input_nodes} - after - {node}
        static = {n for n in frontier if self._input not in graphs.reach([n], back=True)}
        dynamic = frontier - static
        for n in dynamic | {node}:
            if n.name not in self._forms:
                raise Refused(
                    f"refused: the network cannot be cut at layer '{layer.name}': '{n.name}' mixes images of a batch"
                )
        kept = {n for n in dynamic if forms.is_data(self._forms[n.name])}
        return _Cut(
            before=self._in_order(graphs.reach([node, *kept], back=True)),
            kept=self._in_order(kept) + tuple(n for n in kept if n.op == "placeholder"),
            rebuilt=self._in_order(dynamic - kept),
            static=self._in_order(graphs.reach(static, back=True)),
            after=self._in_order(after),
        )

    def _given(self, cut: _Cut, state: State) -> dict[fx.Node, Any]:
        """What runs after a cut reads of before it, less the layer's own value."""
        values: dict[fx.Node, Any] = {self._node(name): kept for name, kept in state.alive.items()}
        values.update(
            {n: forms.rebuild(self._forms[n.name], len(state.value), state.value.device) for n in cut.rebuilt}
        )
        return self._run(cut.static, values, cut.static + cut.rebuilt + tuple(values))

    def _run(
        self, nodes: Sequence[fx.Node], values: dict[fx.Node, Any], wanted: Iterable[fx.Node]
    ) -> dict[fx.Node, Any]:
        """Compute nodes in order; of what is given and computed, drop what is neither wanted nor read any more."""
        keep = set(wanted)
        readers = Counter(read for node in nodes for read in node.all_input_nodes)
        for node in nodes:
            if node not in values:
                values[node] = self._compute(node, values)
            for read in node.all_input_nodes:
                readers[read] -= 1
                if not readers[read] and read not in keep:
                    del values[read]
        return values

    def _compute(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
        args, kwargs = map_arg((node.args, dict(node.kwargs)), lambda n: values[n])
        if node.op == "call_module":
            return self.module.get_submodule(str(node.target))(*args, **kwargs)
        if node.op == "call_function":
            return node.target(*args, **kwargs)  # type: ignore[operator]
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return _attribute(self.module, str(node.target))


def _check_resumed(layer: Layer, state: State, value: torch.Tensor) -> None:
    """Raise what keeps a value from taking a layer's place in a state."""
    if layer.name != state.layer.name:
        raise AgnesError(
            f"the state was taken at layer '{state.layer.name}' and cannot go on from '{layer.name}'; "
            f"take one with network.until('{layer.name}', images)"
        )
    if len(value) != state.count:
        raise AgnesError(
            f"the value for layer '{layer.name}' holds {len(value)} images and the state {state.count}; "
            "repeat the state with state.tile(n) or state.take(images)"
        )
    if value.shape[1:] != state.value.shape[1:]:
        raise AgnesError(
            f"the value for layer '{layer.name}' has the shape {tuple(value.shape[1:])} for an image and the state "
            f"{tuple(state.value.shape[1:])}; replace the layer's whole value"
        )


def _attribute(module: nn.Module, path: str) -> Any:
    owner, _, name = path.rpartition(".")
    return getattr(module.get_submodule(owner), name)


def _device_of(module: nn.Module) -> torch.device:
    tensors = [*module.parameters(), *module.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")


def _is_map_of_one(output: Any) -> bool:
    """Whether logits stand in a map of one position: batch, classes, 1, 1."""
    return isinstance(output, torch.Tensor) and output.dim() > 2 and output[0].numel() == output.shape[1]


def _check_output(values: tuple[Any, Any]) -> None:
    """Raise what keeps the output at both probes from being the logits of a classifier."""
    two, three = values
    if not isinstance(two, torch.Tensor):
        raise Refused(
            f"refused: the model's output is a {type(two).__name__}; AGNES scans classifiers with one output of logits"
        )
    if two.dim() != 2 or two.shape[0] != 2 or three.shape != (3, two.shape[1]):
        raise Refused(
            f"refused: the model's output for 2 images has the shape {tuple(two.shape)}; "
            "AGNES scans classifiers, with one row of logits for each image"
        )
    if not bool(two.isfinite().all()):
        raise Refused(
            "refused: the model's logits are not finite numbers; its weights or its preprocessing are damaged"
        )
    if two.shape[1] < 2:
        raise Refused("refused: the model has one output; AGNES scans classifiers of two classes or more")
    if forms.mixes_images(values):
        raise Refused(
            "refused: the logits of an image depend on the others in its batch; "
            "AGNES scans networks that take each alone"
        )


def _class_names(names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    if names is None:
        return tuple(f"class {index}" for index in range(count))
    if len(names) != count:
        raise UsageError(f"{len(names)} class names were given for a network of {count} classes")
    return tuple(names)
