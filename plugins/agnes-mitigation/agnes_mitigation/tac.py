"""Trigger-activated change: how much a trigger moves each channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network
    from agnes.results import Trigger


def trigger_activated_change(
    network: Network, trigger: Trigger, images: torch.Tensor, layers: Sequence[Layer], backend: Backend
) -> dict[str, torch.Tensor]:
    """Per layer, for each channel the mean over images of the Frobenius norm of its change (Koldenhof, 4.3)."""
    if not layers:
        return {}

    def change(part: torch.Tensor) -> torch.Tensor:
        benign, triggered = network.read(part, layers), network.read(trigger.apply(part), layers)
        norms = [layer.by_channel(triggered[layer.name] - benign[layer.name]).norm(dim=2) for layer in layers]
        return torch.cat(norms, dim=1)  # images, channels of all layers

    with torch.no_grad():
        means = backend.map(change, images, what="reading what the trigger changes").mean(0)
    return dict(zip([layer.name for layer in layers], means.split([layer.channels for layer in layers]), strict=True))


def z_scores(values: torch.Tensor) -> torch.Tensor:
    """How many standard deviations each channel lies above the mean of its layer; zero where all are alike."""
    deviations = values - values.mean()
    spread = deviations.square().mean().sqrt()
    return deviations / spread if spread > 1e-6 * values.abs().max() else torch.zeros_like(values)


def outstanding(changes: Mapping[str, torch.Tensor], threshold: float) -> dict[tuple[str, int], float]:
    """The channels at or above the threshold, as (layer, channel), with their scores."""
    found: dict[tuple[str, int], float] = {}
    for layer, values in changes.items():
        scores = z_scores(values)
        for channel in (scores >= threshold).nonzero().flatten().tolist():
            found[layer, channel] = float(scores[channel])
    return found
