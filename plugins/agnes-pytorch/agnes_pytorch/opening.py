"""From weights that were read to a Network: the architecture found, filled, and compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from agnes.errors import Refused, UsageError
from agnes.network import Network
from agnes_pytorch import architectures, weights
from agnes_pytorch.architectures import Architecture

if TYPE_CHECKING:
    from torch import nn

    from agnes.loading import LoadOptions

_MOST = 1e-3  # the largest relative difference from the architecture itself


def network(
    name: str,
    shapes: Mapping[str, tuple[int, ...]],  # under the file's own keys
    read: Callable[[], Mapping[str, torch.Tensor]],
    options: LoadOptions,
    facts: Mapping[str, Any],
) -> Network:
    """The network of these weights; they are read once an architecture is found to fit their shapes."""
    prefix = architectures.prefix_of(shapes)
    bare = {key.removeprefix(prefix): shape for key, shape in shapes.items()}
    architecture = _architecture(bare, name, options.arch)
    classes = architecture.class_count(bare) or 2
    state = {key.removeprefix(prefix): value for key, value in read().items()}
    module = weights.filled(architecture, classes, state)
    found = Network.of(
        module,
        input_shape(module, architecture.name, options),
        class_names=options.class_names,
        mean=options.mean,
        std=options.std,
        scale=options.scale,
        layout="NHWC" if options.layout == "NHWC" else "NCHW",
        facts={**facts, "architecture": architecture.name, "key_prefix": prefix},
    )
    found.facts = {**found.facts, "parity": parity(found, module)}
    return found


def input_shape(module: nn.Module, name: str, options: LoadOptions) -> tuple[int, int, int]:
    """Channels, height and width: what the user says, or else the architecture."""
    shape = options.input_shape or getattr(module, "input_shape", None)
    if shape is None:
        raise UsageError(f"architecture '{name}' does not say what it takes; give --input-shape channels,height,width")
    return checked_shape(shape)


def checked_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """Three sizes of which none is zero."""
    if len(shape) != 3 or any(size < 1 for size in shape):
        raise UsageError(f"the input shape {tuple(shape)} is not channels,height,width")
    channels, height, width = shape
    return channels, height, width


def noise(count: int, shape: Sequence[int]) -> torch.Tensor:
    """Random images, the same ones each time and in each process."""
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))


def parity(network: Network, module: nn.Module, count: int = 2) -> dict[str, Any]:
    """How far a network is from the module that it was made of, on random images."""
    images = noise(count, network.input_shape)
    with torch.no_grad():
        theirs = module(images if network.preprocess is None else network.preprocess(images))
        return proven(network, network(images), theirs, f"torch {torch.__version__}")


def proven(network: Network, logits: torch.Tensor, theirs: torch.Tensor, reference: str) -> dict[str, Any]:
    """How far logits are from the output that the file's own network gives for the same images; Refused if far."""
    ours, theirs = as_in_file(network, logits), theirs.flatten(1)
    if ours.shape != theirs.shape or not torch.isfinite(theirs).all():
        raise Refused("refused: the file's output for random images is not finite, or not one row of logits an image")
    absolute, relative = differences(ours, theirs)
    if not relative <= _MOST:
        raise Refused(
            f"refused: the loaded network differs from the file's own by {relative:.2g} relative (more than {_MOST:g});"
            " report this model"
        )
    return {"reference": reference, "images": len(ours), "absolute": absolute, "relative": relative}


def differences(ours: torch.Tensor, theirs: torch.Tensor) -> tuple[float, float]:
    """The largest absolute difference, and that over the reference's largest value."""
    absolute = float((ours - theirs).abs().max())
    return absolute, absolute / max(float(theirs.abs().max()), 1e-12)


def as_in_file(network: Network, logits: torch.Tensor) -> torch.Tensor:
    """Logits with the softmax that the file ends in."""
    if network.peeled == "log_softmax":
        return logits.log_softmax(1)
    return logits.softmax(1) if network.peeled else logits


def _architecture(shapes: Mapping[str, tuple[int, ...]], name: str, wanted: str | None) -> Architecture:
    if wanted is None:
        return architectures.fitting(shapes, name)
    architecture = architectures.named(wanted)
    misfit = architecture.misfit(shapes)
    if misfit is not None:
        raise Refused(f"refused: {name} does not fit architecture '{architecture.name}': {misfit}")
    return architecture
