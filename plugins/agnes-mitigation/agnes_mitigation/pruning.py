"""Pruning: channels of a network's copy are made constant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from agnes.errors import AgnesError

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network


def prune(network: Network, layer: Layer, channels: Sequence[int], constants: torch.Tensor | None) -> str:
    """Make channels of this network constant, in place, and say how.

    The weights become zero and the bias stays (Koldenhof, 4.4). Behind a BatchNorm the bias says little: there the
    channel takes the constant given for it, one for each channel of the layer.
    """
    index = torch.as_tensor(list(channels), device=network.device)
    with torch.no_grad():
        weight = _tensor(network, layer.weight)
        weight.index_fill_(_output_dimension(network, layer), index, 0)
        if layer.norm is None or constants is None:
            return "weights set to zero, bias kept"
        norm = network.module.get_submodule(layer.norm)
        if not isinstance(norm.weight, torch.Tensor) or not isinstance(norm.bias, torch.Tensor):
            return "weights set to zero, bias kept"  # a BatchNorm without scale and shift has no constant to give
        norm.weight.index_fill_(0, index, 0)
        norm.bias[index] = constants.to(norm.bias)[index]
    return "weights set to zero, output held at its benign mean behind the BatchNorm"


def benign_constants(
    network: Network, images: torch.Tensor, layers: Sequence[Layer], backend: Backend
) -> Mapping[str, torch.Tensor]:
    """For each layer with a BatchNorm, the mean of every channel behind it over benign images."""
    normed = [layer for layer in layers if layer.norm is not None]
    if not normed:
        return {}
    network = network.copy()  # hooks go on a copy: the network itself stays as it is
    seen: dict[str, torch.Tensor] = {}

    def remember(name: str) -> Any:
        return lambda module, inputs, output: seen.update({name: output})

    for layer in normed:
        norm = network.module.get_submodule(str(layer.norm))
        norm.register_forward_hook(remember(layer.name))

    def means(part: torch.Tensor) -> torch.Tensor:
        network(part)
        return torch.cat([_channel_means(seen.pop(layer.name), layer) for layer in normed], dim=1)

    with torch.no_grad():
        rows = backend.map(means, images, what="reading benign constants").mean(0)
    return dict(zip([layer.name for layer in normed], rows.split([layer.channels for layer in normed]), strict=True))


def _channel_means(value: torch.Tensor, layer: Layer) -> torch.Tensor:
    """Images x channels. BatchNorm holds channels in dimension 1 whatever the layer does afterwards."""
    return value.flatten(2).mean(2) if value.dim() > 2 else value


def _output_dimension(network: Network, layer: Layer) -> int:
    """The dimension of a layer's weight that counts its output channels."""
    module = network.module.get_submodule(layer.module) if layer.module else None
    if not isinstance(module, nn.ConvTranspose2d):
        return 0
    if module.groups > 1:
        raise AgnesError(f"layer '{layer.name}' is a grouped transposed convolution, which pruning does not cover yet")
    return 1


def _tensor(network: Network, path: str) -> torch.Tensor:
    owner, _, name = path.rpartition(".")
    return getattr(network.module.get_submodule(owner), name)
