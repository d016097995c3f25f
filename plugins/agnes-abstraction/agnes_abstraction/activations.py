"""What clustering looks at: one vector per neuron, its activation on each benign image."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from agnes.reading.parts import spread

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network
    from agnes.samples import Samples

_COPIES = 4  # of a layer's vectors that clustering holds at once, at most
_DIRECTIONS = 2 * 66  # numbers that it holds beside them for each neuron once there are more images than directions


def fitting(neurons: int, backend: Backend) -> int:
    """On how many images the activations of so many neurons can be held within the memory budget; at least one."""
    numbers = backend.memory // (4 * neurons)  # for each neuron
    return max(1, (numbers - _DIRECTIONS) // _COPIES, min(64, numbers // (_COPIES + 2)))


def chosen_images(samples: Samples, limit: int, backend: Backend) -> torch.Tensor:
    """At most `limit` of the images, class by class in turn where labels are known."""
    return samples.images[_chosen(samples, limit)].to(backend.device)


def chosen_samples(samples: Samples, limit: int, backend: Backend) -> Samples:
    """The same choice with its labels."""
    return samples.subset(_chosen(samples, limit)).to(backend.device)


def _chosen(samples: Samples, limit: int) -> torch.Tensor:
    labels = None if samples.labels is None else samples.labels.cpu().numpy()
    return torch.from_numpy(spread(labels, len(samples), limit)).to(samples.images.device)


def images_note(where: str, used: int, there: int) -> str:
    """That memory allowed fewer images than there are."""
    return f"{where}: clustered on {used} of {there} images, as many as the memory budget holds"


def activation_vectors(network: Network, layer: Layer, images: torch.Tensor, backend: Backend) -> torch.Tensor:
    """The activations of a layer's neurons, flattened: neurons x images."""
    vectors = torch.empty(layer.neurons, len(images), device=backend.device)

    def read(start: int, stop: int) -> None:
        part = images[start:stop].to(backend.device)
        vectors[:, start:stop] = network.read(part, [layer])[layer.name].flatten(1).T

    left = replace(backend, memory=max(1, backend.memory - vectors.nbytes))
    with torch.no_grad():
        left.chunked(read, len(images))
    return vectors
