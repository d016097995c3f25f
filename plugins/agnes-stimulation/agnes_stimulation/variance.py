"""variance: channels whose response to benign images hardly varies (Koldenhof, section 4.1)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import fx

from agnes.errors import UsageError
from agnes.hookspecs import hookimpl
from agnes.layers import ACTIVATIONS, kind_of
from agnes.method import Method
from agnes.results import Candidate, Noted

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network
    from agnes.samples import Samples

_PASSED = ACTIVATIONS | {"dropout", "identity"}


@dataclass(frozen=True)
class Variance(Method):
    """Keep the channels of convolutions whose maps are of nearly the same size on every benign image."""

    threshold: float = -2.0  # Z-score of the variance within its layer, below it is a candidate (thesis, eq. 4.1: -2)
    images: int = 1000  # benign images used at most

    needs: ClassVar[frozenset[str]] = frozenset({"conv"})
    paper: ClassVar[str] = "Koldenhof: thesis, section 4.1"

    def __post_init__(self) -> None:
        if self.images < 2:
            raise UsageError(f"variance.images is {self.images}; set 2 or more")
        if not self.threshold < 0:
            raise UsageError(f"variance.threshold is {self.threshold}; set a number below 0")

    @hookimpl
    def stimulate(self, network: Network, samples: Samples, backend: Backend) -> Noted | list[Candidate]:
        images = samples.images[: self.images]
        if len(images) < 2:
            return Noted((), ("one image has no variance; give two or more",))
        layers = [layer for layer in network.layers if layer.kind == "conv"]
        if not layers:
            return Noted((), ("no hidden layer is a convolution",))
        measured = norms(network, layers, images, backend)
        found: list[Candidate] = []
        for layer in reversed(layers):  # thesis, algorithm 1: from the deepest to the shallowest
            found += self._candidates(layer, z_scores(measured[layer.name].var(0)))
        return sorted(found, key=lambda candidate: -candidate.score)  # of equal ones the deepest first

    def _candidates(self, layer: Layer, scores: torch.Tensor) -> list[Candidate]:
        chosen = (scores < self.threshold).nonzero().flatten().tolist()
        # no class was seen to win on any value: the range is turned round
        return [Candidate(layer.name, channel, None, -float(scores[channel]), 1.0, 0.0) for channel in chosen]


class _Norms(fx.Interpreter):
    """Runs a network and keeps of some nodes the Frobenius norm of each channel's own map: images, channels."""

    def __init__(self, module: fx.GraphModule, nodes: Collection[str]) -> None:
        super().__init__(module)
        self._nodes = nodes
        self.found: dict[str, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self._nodes:
            self.found[n.name] = value.float().flatten(2).norm(dim=2)
        return value


def norms(network: Network, layers: Sequence[Layer], images: torch.Tensor, backend: Backend) -> dict[str, torch.Tensor]:
    """The norms of the maps of convolutions, by layer, from one pass: images, channels."""
    nodes = [_before_activation(network, layer) for layer in layers]

    def work(part: torch.Tensor) -> torch.Tensor:
        reading = _Norms(network.module, nodes)
        reading.run(part)
        return torch.cat([reading.found[node] for node in nodes], 1)

    with torch.no_grad():
        found = backend.map(work, images, what="measuring variances")
    parts = found.split([layer.channels for layer in layers], 1)
    return {layer.name: part for layer, part in zip(layers, parts, strict=True)}


def _before_activation(network: Network, layer: Layer) -> str:
    """The node of a convolution, or of the normalisation that follows it (thesis, section 4.1)."""
    node = next(node for node in network.module.graph.nodes if node.name == layer.node)
    while kind_of(network.module, node) in _PASSED:
        node = node.all_input_nodes[0]
    return node.name


def z_scores(values: torch.Tensor) -> torch.Tensor:
    """By how many standard deviations each lies above the mean; zero where all are equal."""
    spread = values.std(correction=0)
    return (values - values.mean()) / spread if spread > 0 else torch.zeros_like(values)
