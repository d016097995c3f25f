"""Channels without weights taken out of a network for good, where the data flow allows; its answers stay.

A channel whose incoming weights are all zero has one value, whatever the image. Where a single convolution or linear
layer reads it, that value moves into the reader's bias, and the channel's weights, its normalisation and what the
reader had for it go.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import fx, nn

from agnes import forms
from agnes.layers import ACTIVATIONS, BATCH_NORMS, kind_of
from agnes.learning import tensor_at
from agnes.network import Network
from agnes.text import counted

if TYPE_CHECKING:
    from agnes.layers import Layer
    from agnes.results import Repair

TOLERANCE = 1e-5  # of the logits, for each unit of the largest
_PASSING = ACTIVATIONS | {"max_pool", "avg_pool", "dropout", "identity", "flatten", "scale"}


class _Stays(Exception):
    """Why channels without weights cannot be taken out."""


@dataclass(frozen=True)
class _Way:
    """From a layer to the only one that reads it."""

    writer: nn.Module
    norms: tuple[nn.Module, ...]
    reader: nn.Module
    last: fx.Node  # whose value the reader reads


def compacted(repair: Repair) -> Repair:
    """The repair, its network without the channels that have no weights; what had to stay is in the notes."""
    network, removed, stayed = compact(repair.network)
    had = repair.network.parameter_count
    said = (
        f"compacted: {counted(removed, 'channel')} without weights taken out, {network.parameter_count:,} of {had:,} "
        "parameters left"
    )
    notes = (*repair.notes, said, *(f"not taken out: {why}" for why in stayed))
    weights = repair.weights - had + network.parameter_count
    return replace(repair, network=network, notes=notes, weights=weights)


def compact(network: Network) -> tuple[Network, int, tuple[str, ...]]:
    """The network without channels that have no weights, how many went, and for each layer what had to stay and why."""
    images = {batch: noise.to(network.device) for batch, noise in forms.noise(network.input_shape).items()}
    removed, stayed = 0, []
    for layer in network.layers:
        dead = _dead(network, layer)
        if not dead:
            continue
        try:
            smaller, gone = _without(network, layer, dead, images)
        except _Stays as why:
            stayed.append(f"{counted(len(dead), 'channel')} of '{layer.name}': {why}")
            continue
        if gone < len(dead):
            stayed.append(f"{counted(len(dead) - gone, 'channel')} of '{layer.name}': {_PADDED}")
        removed += gone
        network = smaller
    return network, removed, tuple(stayed)


_PADDED = "the next convolution pads with zeros, and their value is another"


def _dead(network: Network, layer: Layer) -> list[int]:
    """The channels of a layer whose incoming weights are all zero, one left where it is all of them."""
    module = network.module.get_submodule(layer.module) if layer.module else None
    weight = tensor_at(network, layer.weight)
    if isinstance(module, nn.ConvTranspose2d) or len(weight) != layer.channels:
        return []
    dead = (weight.flatten(1) == 0).all(1).nonzero().flatten().tolist()
    return dead[1:] if len(dead) == layer.channels else dead


@torch.no_grad()
def _without(
    network: Network, layer: Layer, dead: list[int], images: Mapping[int, torch.Tensor]
) -> tuple[Network, int]:
    """A network without these channels of one layer, as far as they can go, and how many went."""
    module = copy.deepcopy(network.module)
    way = _way(network, module, layer)
    values = forms.probe(module, images)[way.last][-1]
    each = values.shape[1] // layer.channels  # columns of the reader for one channel
    if isinstance(way.reader, nn.Conv2d):
        dead = _fitting(way.reader, values, dead)
    columns = _columns(dead, each, values.device)
    _move_into_bias(way.reader, values[0, columns], columns)
    keep = torch.ones(layer.channels, dtype=torch.bool, device=values.device)
    keep[dead] = False
    _narrow_outputs(way.writer, keep)
    for norm in way.norms:
        _narrow_norm(norm, keep.repeat_interleave(norm.num_features // layer.channels))  # type: ignore[arg-type, operator]
    _narrow_inputs(way.reader, keep.repeat_interleave(each))
    return _checked(network, module, images), len(dead)


def _way(network: Network, module: fx.GraphModule, layer: Layer) -> _Way:
    """The modules between a layer and its only reader; raises what stands in between."""
    if not layer.module:
        raise _Stays("its weights belong to no module")
    uses = [node for node in module.graph.nodes if node.op == "call_module" and node.target == layer.module]
    if len(uses) != 1:
        raise _Stays("its weights are used more than once")
    writer, node, norms = module.get_submodule(layer.module), uses[0], []
    if not isinstance(writer, (nn.Conv2d, nn.Linear)) or getattr(writer, "groups", 1) > 1:
        raise _Stays("its convolution is grouped")
    while True:
        if len(node.users) != 1:
            raise _Stays("several places read it")
        user = next(iter(node.users))
        kind = kind_of(module, user)
        called = module.get_submodule(str(user.target)) if user.op == "call_module" else None
        if isinstance(called, BATCH_NORMS):
            norms.append(called)
        elif isinstance(called, (nn.Conv2d, nn.Linear)):
            shape = network.shapes.get(node.name, ())
            _check_reader(called, shape, layer)
            return _Way(writer, tuple(norms), called, node)
        elif kind not in _PASSING or (isinstance(called, nn.PReLU) and called.num_parameters > 1):
            raise _Stays(f"'{kind}' reads it")
        elif kind == "flatten" and _fixes_a_size(user):
            raise _Stays("a size on the way to where it is read is written down")
        node = user


def _fixes_a_size(node: fx.Node) -> bool:
    """Whether a reshaping names the number of columns, as view(-1, 576) does; flatten(1) names dimensions."""
    if getattr(node.target, "__name__", node.target) not in ("view", "reshape"):
        return False
    sizes = [s for part in node.args[1:] for s in (part if isinstance(part, (tuple, list)) else (part,))]
    return any(isinstance(size, int) and size > 1 for size in sizes)


def _check_reader(reader: nn.Module, shape: tuple[int, ...], layer: Layer) -> None:
    if isinstance(reader, nn.Conv2d):
        fits = reader.groups == 1 and len(shape) == 3 and shape[0] == layer.channels
    else:
        fits = len(shape) == 1 and shape[0] % layer.channels == 0
    if not fits or layer.channel_dim != 0:
        raise _Stays("its channels do not stand apart where they are read")


def _fitting(reader: nn.Conv2d, values: torch.Tensor, dead: list[int]) -> list[int]:
    """Of the channels those whose value is the same wherever the convolution reads, its padding included."""
    padded = reader.padding_mode == "zeros" and reader.padding not in (0, (0, 0), "valid")
    fitting = []
    for channel in dead:
        low, high = (float(value) for value in values[:, channel].aminmax())
        if low == high and (low == 0 or not padded):
            fitting.append(channel)
    if not fitting:
        raise _Stays(_PADDED)
    return fitting


def _columns(channels: list[int], each: int, device: torch.device) -> torch.Tensor:
    first = torch.as_tensor(channels, device=device)[:, None] * each
    return (first + torch.arange(each, device=device)).flatten()


def _move_into_bias(reader: nn.Module, constants: torch.Tensor, columns: torch.Tensor) -> None:
    """Let the reader's bias say what the channels' values did."""
    constants = constants.flatten(1)[:, 0] if constants.dim() > 1 else constants
    if not constants.any():
        return
    weight: torch.Tensor = reader.weight  # type: ignore[assignment]
    said = (weight[:, columns].flatten(2).sum(2) if weight.dim() > 2 else weight[:, columns]) @ constants
    bias = reader.bias
    moved = said if bias is None else bias + said  # type: ignore[operator]
    reader.bias = nn.Parameter(moved, requires_grad=False)


def _narrow_outputs(writer: nn.Module, keep: torch.Tensor) -> None:
    _set(writer, "weight", writer.weight[keep])  # type: ignore[index]
    if writer.bias is not None:
        _set(writer, "bias", writer.bias[keep])  # type: ignore[index]
    setattr(writer, "out_channels" if isinstance(writer, nn.Conv2d) else "out_features", int(keep.sum()))


def _narrow_inputs(reader: nn.Module, keep: torch.Tensor) -> None:
    _set(reader, "weight", reader.weight[:, keep])  # type: ignore[index]
    setattr(reader, "in_channels" if isinstance(reader, nn.Conv2d) else "in_features", int(keep.sum()))


def _narrow_norm(norm: nn.Module, keep: torch.Tensor) -> None:
    for name in ("weight", "bias", "running_mean", "running_var"):
        if getattr(norm, name) is not None:
            _set(norm, name, getattr(norm, name)[keep])
    norm.num_features = int(keep.sum())  # type: ignore[assignment]


def _set(module: nn.Module, name: str, value: torch.Tensor) -> None:
    """Put a tensor where one was, a parameter or not."""
    parameter = isinstance(getattr(module, name), nn.Parameter)
    setattr(module, name, nn.Parameter(value.clone(), requires_grad=False) if parameter else value.clone())


def _checked(network: Network, module: fx.GraphModule, images: Mapping[int, torch.Tensor]) -> Network:
    """The module as a network, where it still answers as before."""
    shown = torch.cat(list(images.values()))
    try:
        before, after = network(shown), module(shown)
    except Exception as error:
        raise _Stays("the network does not run without them") from error
    far = float((before - after).abs().max()) if before.shape == after.shape else float("inf")
    if not far <= TOLERANCE * max(1.0, float(before.abs().max())):
        raise _Stays(f"without them the logits differ by {far:.1g}")
    known, shapes = forms.describe(forms.probe(module, images))
    names, peeled, facts = network.class_names, network.peeled, network.facts
    return Network(module, network.input_shape, names, known, shapes, peeled, facts)
