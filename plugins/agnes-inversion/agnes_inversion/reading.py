"""The network up to the layers whose neurons a search watches."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from agnes.layers import kind_of

if TYPE_CHECKING:
    from torch import fx

    from agnes.layers import Layer
    from agnes.network import Network


class Reader:
    """The values of some layers before their ReLU, from one pass that ends with the deepest of them.

    A neuron at rest has no gradient behind its ReLU, and most neurons of a backdoor are at rest on benign images.
    Layers that end in no ReLU are read at their end.
    """

    def __init__(self, network: Network, layers: Sequence[Layer], with_logits: bool = False) -> None:
        module = copy.deepcopy(network.module)
        nodes = {node.name: node for node in module.graph.nodes}
        ends = [_before_relu(module, nodes[layer.node]) for layer in layers]
        self.layers = tuple(layers)
        self.rectified = tuple(end.name != layer.node for end, layer in zip(ends, layers, strict=True))
        output = next(node for node in module.graph.nodes if node.op == "output")
        output.args = ((*ends, output.args[0]) if with_logits else tuple(ends),)
        module.graph.eliminate_dead_code()
        module.delete_all_unused_submodules()
        module.recompile()
        self.module = module

    def __call__(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Each layer's value as images, channels, positions; then the logits where they were asked for."""
        values = self.module(images.contiguous(memory_format=torch.channels_last))
        read = [layer.by_channel(value) for layer, value in zip(self.layers, values, strict=False)]
        return read + list(values[len(self.layers) :])


def _before_relu(module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """The value that a layer's ReLU is given; the node itself where it ends in none."""
    end = node
    while kind_of(module, end) in ("dropout", "identity"):
        end = end.all_input_nodes[0]
    return end.all_input_nodes[0] if kind_of(module, end) == "relu" else node
