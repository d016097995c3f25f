"""From weights that were read to a Network: the architecture found, filled, and compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from agnes.errors import Refused, UsageError
from agnes.loading import real_images
from agnes.network import Network
from agnes.text import printable
from agnes_pytorch import architectures, weights
from agnes_pytorch.architectures import Architecture

if TYPE_CHECKING:
    from torch import nn

    from agnes import confinement
    from agnes.loading import LoadOptions

_MOST = 1e-3  # the largest relative difference from the architecture itself


def network(
    name: str,
    shapes: Mapping[str, tuple[int, ...]],  # under the file's own keys
    read: Callable[[], Mapping[str, torch.Tensor]],
    options: LoadOptions,
    facts: Mapping[str, Any],
    limits: confinement.Limits | None = None,  # of a child that runs the user's own code
) -> Network:
    """The network of these weights; they are read once an architecture is found to fit their shapes."""
    from agnes_pytorch import designs

    if designs.asked(options.arch) is not None:
        return designs.network(name, read(), options, facts, limits)
    prefix = architectures.prefix_of(shapes)
    bare = {key.removeprefix(prefix): shape for key, shape in shapes.items()}
    architecture = _architecture(bare, name, options)
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
    found.facts = {**found.facts, "parity": parity(found, module, real_images(options, found.input_shape))}
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


def parity(network: Network, module: nn.Module, real: torch.Tensor | None, count: int = 2) -> dict[str, Any]:
    """How far a network is from the module that it was made of, on random images and the user's own."""
    images = noise(count, network.input_shape)
    if real is not None:
        images = torch.cat([images, real])
    with torch.no_grad():
        taken = images if network.preprocess is None else network.preprocess(images)

        def where() -> str:
            return _first_difference(_outputs(network.module, images), _outputs(module, taken))

        reference = f"torch {torch.__version__}"
        return proven(network, network(images), module(taken), reference, len(images) - count, where)


def _outputs(module: nn.Module, images: torch.Tensor) -> dict[str, Any]:
    """What each part of a module gives, in the order of its work."""
    found: dict[str, Any] = {}

    def keeping(name: str) -> Callable[..., None]:
        def keep(_part: nn.Module, _given: Any, gives: Any) -> None:
            found.setdefault(name, gives)

        return keep

    hooks = [part.register_forward_hook(keeping(name)) for name, part in module.named_modules() if name]
    try:
        module(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _first_difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """The first part that gives something else, in words; empty where the parts do not say."""
    for name, value in ours.items():
        other = theirs.get(name)
        if not isinstance(value, torch.Tensor) or not isinstance(other, torch.Tensor) or value.shape != other.shape:
            continue
        if not differences(value, other)[1] <= _MOST:
            return f", first at '{printable(name)}'"
    return ""


def proven(
    network: Network,
    logits: torch.Tensor,
    theirs: torch.Tensor,
    reference: str,
    real: int,  # of the images, those that are the user's
    where: Callable[[], str] = str,  # says the first place that differs
) -> dict[str, Any]:
    """How far logits are from the output that the file's own network gives for the same images; Refused if far."""
    ours, theirs = as_in_file(network, logits), theirs.flatten(1)
    if ours.shape != theirs.shape or not torch.isfinite(theirs).all():
        raise Refused("refused: the file's output for random images is not finite, or not one row of logits an image")
    absolute, relative = differences(ours, theirs)
    if not relative <= _MOST:
        raise Refused(
            f"refused: the loaded network differs from the file's own by {relative:.2g} relative (more than {_MOST:g})"
            f"{where()}; report this model"
        )
    return {
        "reference": reference,
        "images": len(ours),
        "real_images": real,
        "absolute": absolute,
        "relative": relative,
    }


def differences(ours: torch.Tensor, theirs: torch.Tensor) -> tuple[float, float]:
    """The largest absolute difference, and that over the reference's largest value."""
    absolute = float((ours - theirs).abs().max())
    return absolute, absolute / max(float(theirs.abs().max()), 1e-12)


def as_in_file(network: Network, logits: torch.Tensor) -> torch.Tensor:
    """Logits with the softmax that the file ends in."""
    if network.peeled == "log_softmax":
        return logits.log_softmax(1)
    return logits.softmax(1) if network.peeled else logits


def _architecture(shapes: Mapping[str, tuple[int, ...]], name: str, options: LoadOptions) -> Architecture:
    if options.arch is None:
        return architectures.fitting(shapes, name, options.block)
    architecture = architectures.named(options.arch, options.block)
    misfit = architecture.misfit(shapes)
    if misfit is not None:
        raise Refused(f"refused: {name} does not fit architecture '{architecture.name}': {misfit}")
    return architecture
