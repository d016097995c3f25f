"""Losses by which an attacker who knows ABS hides from it while the network trains (ABS, section 5.6)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from agnes.errors import UsageError, suggestion

_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh, nn.Sigmoid)


@dataclass(frozen=True)
class AdaptiveLoss:
    """A loss on the activations of every layer, added to that of classification."""

    measure: str = "difference"
    weight: float = 1.0  # ABS tunes it until accuracy has fallen by 3 %

    def __post_init__(self) -> None:
        if self.measure not in _LOSSES:
            raise UsageError(f"there is no adaptive loss '{self.measure}'{suggestion(self.measure, _LOSSES)}")

    def __call__(
        self, module: nn.Module, clean: torch.Tensor, poisoned: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """The weighted mean over layers; `poisoned` are the same images, in the same order, stamped."""
        with _in_eval_mode(module):
            before, after = activations(module, clean), activations(module, poisoned)
        if not before:
            raise UsageError("the adaptive loss found no activation module to read; build the network with nn.ReLU")
        loss = _LOSSES[self.measure]
        layers = [loss(a.flatten(2), b.flatten(2)) for a, b in zip(before, after, strict=True)]
        return self.weight * torch.stack(layers).mean()


def activations(module: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """What every activation module gave, in the order they ran: images, channels and, of maps, rows and columns."""
    seen: list[torch.Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        seen.append(output if output.dim() > 2 else output.unsqueeze(2))

    handles = [part.register_forward_hook(keep) for part in module.modules() if isinstance(part, _ACTIVATIONS)]
    try:
        module(images)
    finally:
        for handle in handles:
            handle.remove()
    return seen


@contextmanager
def _in_eval_mode(module: nn.Module) -> Iterator[None]:
    """So that stamped images leave no trace in the statistics of batch normalisation."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _deviation(clean: torch.Tensor, poisoned: torch.Tensor) -> torch.Tensor:
    """The standard deviation of a layer's neurons, mean over all images. Both are images, channels, positions."""
    neurons = torch.cat([clean, poisoned]).flatten(1)
    return neurons.var(1, unbiased=False).clamp_min(1e-12).sqrt().mean()


def _difference(clean: torch.Tensor, poisoned: torch.Tensor) -> torch.Tensor:
    """The mean squared difference that the trigger makes."""
    return (clean - poisoned).square().mean()


def _maximum(clean: torch.Tensor, poisoned: torch.Tensor) -> torch.Tensor:
    """The mean squared difference of the channel to which the trigger makes most."""
    return (clean - poisoned).square().mean((0, 2)).max()


_LOSSES = {"deviation": _deviation, "difference": _difference, "maximum": _maximum}
ADAPTIVE = tuple(_LOSSES)
