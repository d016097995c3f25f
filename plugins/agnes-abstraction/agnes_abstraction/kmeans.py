"""kmeans: representatives without abstraction (AGNES, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from agnes.errors import UsageError
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.results import Representatives
from agnes_abstraction.activations import activation_vectors, chosen_images
from agnes_abstraction.clustering import cluster, nearest_to_centres

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network
    from agnes.samples import Samples


@dataclass(frozen=True)
class KMeans(Method):
    """Cluster each layer's neurons by their activations on benign images; the one nearest the centre stands for all.

    Neurons that no image activates form one cluster, found without k-means and counted among the clusters. All of
    them lie at its centre: the first one stands for them, and with `dormant` so does the neuron in the middle of each
    channel that no image activates anywhere. A backdoor sleeps in such channels, and a channel without a
    representative is never stimulated.
    """

    clustering_rate: float = 0.10  # clusters of a layer, as a share of its neurons (AGNES, section 5.1: 10 %)
    rounds: int = 8  # Lloyd's rounds at most; it ends sooner when nothing moves
    projection: int = 64  # dimensions in which the starting centres are found
    images: int = 1000  # benign images used at most, class by class in turn
    dormant: bool = True  # a representative in each channel that no image activates, beyond the rate; the paper: false

    paper: ClassVar[str] = "Dhonthi, Eiermann, Hahn, Hashemi: AGNES, section 3.1"

    def __post_init__(self) -> None:
        if not 0 < self.clustering_rate <= 1:
            raise UsageError(f"kmeans.clustering_rate is {self.clustering_rate:g}; set a share in (0, 1]")
        for name in ("rounds", "projection", "images"):
            if getattr(self, name) < 1:
                raise UsageError(f"kmeans.{name} is {getattr(self, name)}; set 1 or more")

    def suits(self, network: Network) -> str:
        return "k-means fits every network"

    @hookimpl
    def abstract(self, network: Network, samples: Samples, backend: Backend) -> Representatives:
        images = chosen_images(samples, self.images, backend)
        clusters: dict[str, torch.Tensor] = {}
        positions: dict[str, torch.Tensor] = {}
        with backend.progress("clustering neurons", len(network.layers)) as tick:
            for layer in network.layers:
                vectors = activation_vectors(network, layer, images, backend)
                labels = self._labels(vectors, backend.generator("kmeans", layer.name), backend)
                flags = torch.zeros_like(labels, dtype=torch.bool)
                flags[nearest_to_centres(vectors, labels)] = True
                if self.dormant:
                    flags[_middles_of_dormant_channels(vectors, layer)] = True
                clusters[layer.name] = labels.reshape(layer.shape).cpu()
                positions[layer.name] = flags.reshape(layer.shape).cpu()
                tick(1)
        return Representatives(clusters, positions)

    def _labels(self, vectors: torch.Tensor, generator: torch.Generator, backend: Backend) -> torch.Tensor:
        """The cluster of each neuron: the dormant ones in one, the others by k-means."""
        count = max(1, round(self.clustering_rate * len(vectors)))
        awake = vectors.any(1)
        if count == 1 or count >= len(vectors) or awake.all():
            return self._cluster(vectors, count, generator, backend)
        labels = torch.zeros(len(vectors), dtype=torch.int64, device=vectors.device)
        if awake.any():
            labels[awake] = 1 + self._cluster(vectors[awake], count - 1, generator, backend)
        return labels

    def _cluster(self, vectors: torch.Tensor, count: int, generator: torch.Generator, backend: Backend) -> torch.Tensor:
        return cluster(
            vectors, count, rounds=self.rounds, projection=self.projection, generator=generator, backend=backend
        )


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
