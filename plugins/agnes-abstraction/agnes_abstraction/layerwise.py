"""What methods share that group neurons layer by layer and leave the network whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from agnes.errors import OutOfTime, UsageError
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.results import Representatives
from agnes_abstraction.activations import activation_vectors, chosen_images, fitting, images_note
from agnes_abstraction.clustering import nearest_to_centres

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network
    from agnes.samples import Samples


@dataclass(frozen=True)
class Layerwise(Method):
    """Neurons of each layer in groups, one of each group standing for it.

    Neurons that no image activates form one group. All of them lie at its centre: the first one stands for them, and
    with `dormant` so does the neuron in the middle of each channel that no image activates anywhere. A backdoor sleeps
    in such channels, and a channel without a representative is never stimulated.
    """

    images: int = 1000  # benign images used at most, class by class in turn (AGNES, section 5.1: 5000)
    dormant: bool = True  # a representative in each channel that no image activates, beyond the rest; the paper: false

    def group(
        self, vectors: torch.Tensor, layer: Layer, rest: bool, notes: list[str], backend: Backend
    ) -> torch.Tensor:
        """The group of each neuron, from 0; `rest` tells that neurons beside these have a group already."""
        raise NotImplementedError

    @hookimpl
    def abstract(self, network: Network, samples: Samples, backend: Backend) -> Representatives:
        return self.found(network, samples, backend)

    def found(
        self, network: Network, samples: Samples, backend: Backend, notes: tuple[str, ...] = ()
    ) -> Representatives:
        """The representatives of every layer; out of time, of those that are done."""
        clusters: dict[str, torch.Tensor] = {}
        positions: dict[str, torch.Tensor] = {}
        said = list(notes)
        try:
            with backend.progress("clustering neurons", len(network.layers)) as tick:
                for layer in network.layers:
                    backend.check()
                    labels, flags = self._of_layer(network, layer, samples, said, backend)
                    clusters[layer.name] = labels.reshape(layer.shape).cpu()
                    positions[layer.name] = flags.reshape(layer.shape).cpu()
                    tick(1)
        except OutOfTime as error:
            partial = Representatives(clusters, positions, notes=tuple(said)) if clusters else None
            raise OutOfTime(str(error), partial=partial) from error
        return Representatives(clusters, positions, notes=tuple(said))

    def labels(self, vectors: torch.Tensor, layer: Layer, notes: list[str], backend: Backend) -> torch.Tensor:
        """The group of each neuron: the silent ones in one, the others as the method groups them."""
        awake = vectors.any(1)
        if awake.all():
            return self.group(vectors, layer, False, notes, backend)
        labels = torch.zeros(len(vectors), dtype=torch.int64, device=vectors.device)
        if awake.any():
            labels[awake] = 1 + self.group(vectors[awake], layer, True, notes, backend)
        return labels

    def _of_layer(
        self, network: Network, layer: Layer, samples: Samples, notes: list[str], backend: Backend
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The group of each neuron, and which of them stand for theirs."""
        wanted = min(self.images, len(samples))
        images = chosen_images(samples, min(wanted, fitting(layer.neurons, backend)), backend)
        if len(images) < wanted:
            notes.append(images_note(layer.name, len(images), wanted))
        vectors = activation_vectors(network, layer, images, backend)
        labels = self.labels(vectors, layer, notes, backend)
        flags = torch.zeros_like(labels, dtype=torch.bool)
        flags[nearest_to_centres(vectors, labels)] = True
        if self.dormant:
            flags[_middles_of_dormant_channels(vectors, layer)] = True
        return labels, flags

    def _require(self, name: str, good: bool, wanted: str) -> None:
        if not good:
            raise UsageError(f"{type(self).__name__.lower()}.{name} is {getattr(self, name):g}; set {wanted}")


def _middles_of_dormant_channels(vectors: torch.Tensor, layer: Layer) -> torch.Tensor:
    """The neuron in the middle of each channel that no image activates anywhere."""
    numbers = torch.arange(layer.neurons, device=vectors.device).reshape(layer.shape)
    by_channel = layer.by_channel(numbers[None])[0]  # channels, positions
    asleep = ~vectors.any(1)[by_channel].any(1)
    middle = _middle(layer.shape[: layer.channel_dim] + layer.shape[layer.channel_dim + 1 :])
    return by_channel[asleep, middle]


def _middle(sizes: tuple[int, ...]) -> int:
    """The flat index of the middle of a map."""
    index = 0
    for size in sizes:
        index = index * size + size // 2
    return index
