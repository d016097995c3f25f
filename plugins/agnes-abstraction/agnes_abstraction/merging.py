"""Merged layers as an abstract network: representatives keep what comes in, and send out what their clusters sent."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import fx, nn
from torch.fx.node import map_arg

from agnes.layers import BATCH_NORMS, RESHAPING, kind_of
from agnes.network import Network
from agnes_abstraction.sparse import SparseLinear

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes_abstraction.chain import Chain, Segment

_DENSE_SHARE = 0.2  # of weights that are not zero, from which on all are kept
_SMALL = 1 << 18  # weights of a layer that is kept dense in any case
_ROUNDING = 1e-12  # of the largest weight or offset: what float64 leaves where there is no weight
_LOGITS = "agnes_logits"


class TooLarge(Exception):
    """The weights of the abstract network would not fit the memory budget."""


@dataclass(frozen=True)
class Merged:
    """The clusters of a layer's neurons and the neuron that stands for each."""

    clusters: torch.Tensor = field(compare=False, repr=False)  # int64, a number for each neuron of the flattened layer
    sources: torch.Tensor = field(compare=False, repr=False)  # int64, the representative of each cluster

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Values of the layer, images first, with every neuron at its representative's."""
        flat = values.flatten(1)
        return flat[:, self.sources][:, self.clusters].reshape(values.shape)


def alone(layer: Layer, device: torch.device) -> Merged:
    """Every neuron its own cluster."""
    numbers = torch.arange(layer.neurons, device=device)
    return Merged(numbers, numbers)


def abstract_network(chain: Chain, merged: Mapping[str, Merged], backend: Backend) -> Network:
    """The network of the representatives, fully connected, its layers named after the original's."""
    network = chain.network
    home = "cpu" if network.device.type == "mps" else network.device  # where float64 is
    exact = copy.deepcopy(network.module).to(home).double()
    root, graph = nn.Module(), fx.Graph()
    value = graph.call_method("flatten", (graph.placeholder("images"), 1))
    before: Merged | None = None
    left = backend.memory
    for segment in chain.segments:
        now = None if segment.layer is None else merged[segment.layer.name]
        linear = _linear(_Columns(chain, segment, exact, before, now), backend, left)
        left -= sum(tensor.nbytes for tensor in linear.state_dict().values())
        value = _call(root, graph, _LOGITS if segment.layer is None else segment.layer.name, linear, value)
        if segment.layer is not None and now is not None:
            for node in segment.activation:
                value = _activated(root, graph, network.module, node, _units(segment.layer, now.sources), value)
        before = now
    graph.output(value)
    module = fx.GraphModule(root, graph)
    made = Network.of(module, network.input_shape, class_names=network.class_names, facts=network.facts)
    return made.to(backend.device)


class _Columns:
    """Columns of a segment's affine part between representatives.

    Column j is what the segment makes of the indicator of cluster j, less what it makes of nothing: the sum of the
    weights that the cluster's neurons send out, as far as they reach representatives.
    """

    def __init__(
        self, chain: Chain, segment: Segment, exact: fx.GraphModule, before: Merged | None, now: Merged | None
    ) -> None:
        self.chain, self.segment, self.exact = chain, segment, exact
        self.device = next(iter(exact.state_dict().values())).device
        self.shape = chain.shape_at_start(segment)
        clusters = torch.arange(math.prod(self.shape)) if before is None else before.clusters
        self.clusters = clusters.to(self.device)
        self.count = int(self.clusters.max()) + 1
        self.rows = None if now is None else now.sources.to(self.device)
        self.offset = self._made(torch.zeros(1, len(clusters), dtype=torch.float64, device=self.device))

    def __call__(self, start: int, stop: int) -> torch.Tensor:
        """Columns start to stop, as the rows of a matrix."""
        numbers = torch.arange(start, stop, device=self.device)
        weights = self._made((self.clusters == numbers[:, None]).double()).sub_(self.offset)
        noise = _ROUNDING * max(float(weights.abs().max()), float(self.offset.abs().max()))
        return weights.masked_fill_(weights.abs() <= noise, 0).float()

    @torch.no_grad()
    def _made(self, values: torch.Tensor) -> torch.Tensor:
        found = self.chain.run_affine(self.segment, values.reshape(-1, *self.shape), self.exact).flatten(1)
        return found if self.rows is None else found[:, self.rows]


def _linear(columns: _Columns, backend: Backend, memory: int) -> nn.Module:
    """The affine part of a segment as a fully connected layer, sparse where most of its weights are zero."""
    parts: list[torch.Tensor] = []
    held = weights = 0

    def work(start: int, stop: int) -> None:
        nonlocal held, weights
        part = columns(start, stop)
        kept = int((part != 0).sum())
        parts.append(part.to_sparse() if kept < _DENSE_SHARE * part.numel() else part)
        weights += kept
        held += _bytes(parts[-1])
        if held > memory:
            raise TooLarge(f"the merged weights do not fit the memory budget of {backend.memory:,} bytes")
        backend.check()

    backend.chunked(work, columns.count)
    bias = columns.offset[0].float()
    if len(bias) * columns.count > _SMALL and weights < _DENSE_SHARE * len(bias) * columns.count:
        weight = torch.cat([part if part.is_sparse else part.to_sparse() for part in parts]).t().coalesce()
        return SparseLinear(weight.indices(), weight.values(), bias, columns.count)
    dense = nn.utils.skip_init(nn.Linear, columns.count, len(bias), device=bias.device)  # draws no numbers
    weights, biases = dense.parameters()
    with torch.no_grad():
        torch.cat([part.to_dense() if part.is_sparse else part for part in parts], out=weights.T)
        biases.copy_(bias)
    return dense.requires_grad_(False)


def _bytes(part: torch.Tensor) -> int:
    if not part.is_sparse:
        return part.nbytes
    return part.indices().nbytes + part.values().nbytes


def _call(root: nn.Module, graph: fx.Graph, path: str, module: nn.Module, value: fx.Node) -> fx.Node:
    """Put a module at a path and call it."""
    *parents, name = path.split(".")
    owner = root
    for parent in parents:
        if not hasattr(owner, parent):
            owner.add_module(parent, nn.Module())
        owner = getattr(owner, parent)
    owner.add_module(name, module)
    return graph.call_module(path, (value,))


def _units(layer: Layer, sources: torch.Tensor) -> torch.Tensor:
    """For each representative the index of the channel, along the dimension by which torch's modules count them."""
    return sources // math.prod(layer.shape[1:])


def _activated(
    root: nn.Module, graph: fx.Graph, module: fx.GraphModule, node: fx.Node, units: torch.Tensor, value: fx.Node
) -> fx.Node:
    """An activation, or the normalisation after one, for the representatives alone."""
    if kind_of(module, node) in RESHAPING:
        return value
    if node.op != "call_module":
        args, kwargs = map_arg((node.args, dict(node.kwargs)), lambda _: value)
        return graph.create_node(node.op, node.target, args, kwargs)
    part = module.get_submodule(str(node.target))
    chosen = _of_units(part, units) if isinstance(part, (nn.PReLU, *BATCH_NORMS)) else copy.deepcopy(part)
    return _call(root, graph, f"agnes_{node.name}", chosen, value)


def _of_units(part: nn.Module, units: torch.Tensor) -> nn.Module:
    """A module with parameters for each channel, with those of the representatives' channels."""
    if isinstance(part, nn.PReLU):
        chosen: nn.Module = nn.PReLU(len(units) if part.num_parameters > 1 else 1)
    else:
        chosen = nn.BatchNorm1d(len(units), part.eps, affine=part.affine)  # type: ignore[union-attr, arg-type]
    one = isinstance(part, nn.PReLU) and part.num_parameters == 1
    state = {name: t if one or not t.dim() else t[units.to(t.device)] for name, t in part.state_dict().items()}
    chosen.load_state_dict(state)
    return chosen.to(next(iter(state.values())).device).eval().requires_grad_(False)
