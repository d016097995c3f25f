"""What clustering looks at: one vector per neuron, its activation on each benign image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from agnes.reading.parts import spread

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network
    from agnes.samples import Samples


def chosen_images(samples: Samples, limit: int, backend: Backend) -> torch.Tensor:
    """At most `limit` of the images, class by class in turn where labels are known."""
    labels = None if samples.labels is None else samples.labels.cpu().numpy()
    kept = spread(labels, len(samples), limit)
    return samples.images[torch.from_numpy(kept).to(samples.images.device)].to(backend.device)


def activation_vectors(network: Network, layer: Layer, images: torch.Tensor, backend: Backend) -> torch.Tensor:
    """The activations of a layer's neurons, flattened: neurons x images."""
    with torch.no_grad():
        values = backend.map(lambda part: network.read(part, [layer])[layer.name].flatten(1).float(), images)
    return values.T.contiguous()
