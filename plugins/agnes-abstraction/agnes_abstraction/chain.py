"""A network as a chain: from each hidden layer to the next an affine map and an activation, and nothing beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch.fx.node import map_arg

from agnes import forms
from agnes.errors import AgnesError
from agnes.layers import ACTIVATIONS, RESHAPING, kind_of

if TYPE_CHECKING:
    from agnes.layers import Layer
    from agnes.network import Network

_LINEAR = frozenset(("conv", "linear", "batch_norm", "avg_pool", "scale", "pad", "permute", "preprocess"))
_WITH_CONSTANTS = frozenset(("add", "multiply", "divide", "matmul"))  # affine where only one side is data
_AFTER_ACTIVATION = RESHAPING | {"batch_norm"}
_MOST_WEIGHTS = 100_000_000  # of one layer as a fully connected one; beyond it a network is better stimulated whole


class NoChain(AgnesError):
    """The network is not made of fully connected layers and what can be turned into them."""


@dataclass(frozen=True)
class Segment:
    """What lies between the end of one layer and the end of the next; `layer` is None where it ends in the logits."""

    layer: Layer | None
    start: fx.Node
    affine: tuple[fx.Node, ...]
    activation: tuple[fx.Node, ...]  # an activation and what follows it up to the layer's end

    @property
    def before_activation(self) -> fx.Node:
        return self.affine[-1] if self.affine else self.start

    @property
    def end(self) -> fx.Node:
        return self.activation[-1] if self.activation else self.before_activation


class Chain:
    """A network whose every segment can be run alone."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._forms = _forms_of(network)
        self.segments = _segments(network, self._forms)

    def shape_at_start(self, segment: Segment) -> tuple[int, ...]:
        """The shape of one image's values at a segment's start."""
        index = self.segments.index(segment)
        layer = self.segments[index - 1].layer if index else None
        return self.network.input_shape if layer is None else layer.shape

    def run(self, segment: Segment, values: torch.Tensor) -> torch.Tensor:
        """The values at a segment's end from those at its start; both have the shape the network gives them."""
        return self._run((*segment.affine, *segment.activation), segment.start, values, self.network.module)

    def run_affine(self, segment: Segment, values: torch.Tensor, module: fx.GraphModule | None = None) -> torch.Tensor:
        """The values before the activation; `module` is the network's own or a copy in another precision."""
        return self._run(segment.affine, segment.start, values, module or self.network.module)

    def _run(
        self, nodes: tuple[fx.Node, ...], start: fx.Node, values: torch.Tensor, module: fx.GraphModule
    ) -> torch.Tensor:
        known: dict[fx.Node, Any] = {start: values}
        last = start
        for last in nodes:
            known[last] = self._compute(last, known, module, values)
        return known[last]

    def _compute(self, node: fx.Node, known: dict[fx.Node, Any], module: fx.GraphModule, values: torch.Tensor) -> Any:
        for read in node.all_input_nodes:
            if read not in known:
                known[read] = self._constant(read, known, module, values)
        args, kwargs = map_arg((node.args, dict(node.kwargs)), lambda n: known[n])
        if node.op == "call_module":
            return module.get_submodule(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def _constant(self, node: fx.Node, known: dict[fx.Node, Any], module: fx.GraphModule, values: torch.Tensor) -> Any:
        """A weight, or what depends on nothing but the number of images."""
        if node.op == "get_attr":
            owner, _, name = str(node.target).rpartition(".")
            return getattr(module.get_submodule(owner), name)
        found = forms.rebuild(self._forms[node.name], len(values), values.device)
        floats = isinstance(found, torch.Tensor) and found.is_floating_point()
        return found.to(values.dtype) if floats else found


def obstacle(network: Network) -> str:
    """Why the network is no chain, or too large to be turned into fully connected layers; empty where it is one."""
    try:
        _segments(network, _forms_of(network))
    except NoChain as error:
        return str(error)
    for layer in network.layers:
        if weights_as_fully_connected(network, layer) > _MOST_WEIGHTS:
            return f"layer '{layer.name}' would have more than {_MOST_WEIGHTS:,} weights as a fully connected one"
    return ""


def weights_as_fully_connected(network: Network, layer: Layer) -> int:
    """How many weights of a layer are not zero once it is written as a fully connected one, at most."""
    owner, _, name = layer.weight.rpartition(".")
    weight = getattr(network.module.get_submodule(owner), name)
    if layer.kind == "conv":
        return layer.neurons * math.prod(weight.shape[1:])
    return weight.numel()


def _forms_of(network: Network) -> Mapping[str, Any]:
    if not network.layers:
        raise NoChain("it has no hidden layer")
    blank = torch.zeros((1, *network.input_shape), device=network.device)
    with torch.no_grad():
        return network.until(network.layers[0], blank).forms


def _segments(network: Network, known: Mapping[str, Any]) -> tuple[Segment, ...]:
    path = list(_path(network, known))
    places = {node.name: index for index, node in enumerate(path)}
    found: list[Segment] = []
    begin = 0
    for layer in network.layers:
        end = places[layer.node]
        found.append(_segment(network, layer, path[begin : end + 1]))
        begin = end
    found.append(_segment(network, None, path[begin:]))
    return tuple(found)


def _path(network: Network, known: Mapping[str, Any]) -> Iterator[fx.Node]:
    """The nodes that carry image content, from the input to the logits; each must read the one before it alone."""
    needed = _ancestors(network)
    last = None
    for node in network.module.graph.nodes:
        if node not in needed or node.op == "output":
            continue
        if node.op == "placeholder":
            last = node
            yield node
            continue
        if node.op == "get_attr" or (node.name in known and not forms.is_data(known[node.name])):
            continue
        read = [n for n in node.all_input_nodes if n.name in known and forms.is_data(known[n.name])]
        if read != [last]:
            raise NoChain(f"'{node.name}' ({kind_of(network.module, node)}) joins or parts ways that images take")
        last = node
        yield node


def _segment(network: Network, layer: Layer | None, path: list[fx.Node]) -> Segment:
    start, *nodes = path
    kinds = [kind_of(network.module, node) for node in nodes]
    cut = next((i for i, kind in enumerate(kinds) if kind in ACTIVATIONS), len(nodes))
    where = f"before layer '{layer.name}'" if layer else "before the logits"
    for node, kind in zip(nodes[:cut], kinds[:cut], strict=True):
        if not _is_affine(node, kind):
            raise NoChain(f"'{node.name}' ({kind}) {where} cannot be turned into a fully connected layer")
    if layer is None and cut < len(nodes):
        raise NoChain(f"'{nodes[cut].name}' ({kinds[cut]}) before the logits follows no layer")
    for node, kind in zip(nodes[cut:], kinds[cut:], strict=True):
        if node is not nodes[cut] and kind not in _AFTER_ACTIVATION:
            raise NoChain(f"'{nodes[cut].name}' ({kinds[cut]}) {where} does not directly follow a layer")
        if len(node.all_input_nodes) > 1:
            raise NoChain(f"'{node.name}' ({kind}) {where} is more than a function of one value")
    return Segment(layer, start, tuple(nodes[:cut]), tuple(nodes[cut:]))


def _is_affine(node: fx.Node, kind: str) -> bool:
    if kind in _LINEAR or kind in RESHAPING:
        return True
    if kind not in _WITH_CONSTANTS:
        return False
    data = [a for a in node.args if isinstance(a, fx.Node) and a.op != "get_attr"]
    return len(data) == 1 and (kind != "divide" or node.args[0] is data[0])


def _ancestors(network: Network) -> set[fx.Node]:
    """The nodes that the logits depend on."""
    seen: set[fx.Node] = set()
    waiting = [node for node in network.module.graph.nodes if node.op == "output"]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += node.all_input_nodes
    return seen
