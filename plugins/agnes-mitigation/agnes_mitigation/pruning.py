"""Pruning: channels of a network's copy are made constant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from agnes.errors import AgnesError
from agnes.learning import tensor_at
from agnes.results import Change

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network

Place = tuple[str, int]  # layer, channel
Which = Literal["all", "conv"]


def layers_of(network: Network, which: Which) -> list[Layer]:
    """The hidden layers, or the convolutions alone."""
    return [layer for layer in network.layers if which == "all" or layer.kind == "conv"]


def prune(
    network: Network, layer: Layer, channels: Sequence[int], constants: torch.Tensor | None, *, bias: bool = True
) -> str:
    """Make channels of this network constant, in place, and say how.

    The weights become zero and the bias stays (Koldenhof, 4.4) or goes as well. Behind a BatchNorm the bias says
    little: there the channel takes the constant given for it, one for each channel of the layer.
    """
    index = torch.as_tensor(list(channels), device=network.device)
    with torch.no_grad():
        tensor_at(network, layer.weight).index_fill_(output_dimension(network, layer), index, 0)
        if not bias and layer.bias is not None:
            tensor_at(network, layer.bias).index_fill_(0, index, 0)
        how = "weights set to zero, bias kept" if bias else "weights and bias set to zero"
        factors = scale_and_shift(network, layer)
        if factors is None or constants is None:
            return how  # a BatchNorm without scale and shift has no constant to give
        scale, shift = factors
        scale.index_fill_(0, index, 0)
        shift[index] = constants.to(shift)[index]
    return "weights set to zero, output held constant behind the BatchNorm" if bias else how


def pruned(
    network: Network,
    places: Sequence[Place],
    constants: Mapping[str, torch.Tensor],
    why: Callable[[Place], str],
    *,
    bias: bool = True,
) -> tuple[Network, tuple[Change, ...]]:
    """A copy of the network with these channels made constant, and what that changed."""
    copy = network.copy()
    changes: list[Change] = []
    for layer in network.layers:
        channels = sorted(channel for name, channel in places if name == layer.name)
        if channels:
            how = prune(copy, layer, channels, constants.get(layer.name), bias=bias)
            changes += [Change(layer.name, c, f"{how}; {why((layer.name, c))}") for c in channels]
    return copy, tuple(changes)


def longest(count: int, holds: Callable[[int], bool]) -> int:
    """How many of `count` things in order can be taken while it holds: 1, 2, 4 ... and halves of the last gap."""
    taken, failed = 0, count + 1
    step = 1
    while taken + 1 < failed:
        tried = min(taken + step, failed - 1)
        if holds(tried):
            taken, step = tried, step * 2
        else:
            failed, step = tried, max(1, (tried - taken) // 2)
    return taken


def scale_and_shift(network: Network, layer: Layer) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The factors of the BatchNorm that belongs to a layer; None where there are none."""
    norm = network.module.get_submodule(layer.norm) if layer.norm is not None else None
    scale, shift = getattr(norm, "weight", None), getattr(norm, "bias", None)
    return (scale, shift) if isinstance(scale, torch.Tensor) and isinstance(shift, torch.Tensor) else None


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


def output_dimension(network: Network, layer: Layer) -> int:
    """The dimension of a layer's weight that counts its output channels."""
    module = network.module.get_submodule(layer.module) if layer.module else None
    if not isinstance(module, nn.ConvTranspose2d):
        return 0
    if module.groups > 1:
        raise AgnesError(f"layer '{layer.name}' is a grouped transposed convolution, which pruning does not cover yet")
    return 1
