"""kmeans: representatives without abstraction (AGNES, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from agnes_abstraction.clustering import cluster
from agnes_abstraction.layerwise import Layerwise

if TYPE_CHECKING:
    import torch

    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network


@dataclass(frozen=True)
class KMeans(Layerwise):
    """Cluster each layer's neurons by their activations on benign images; the one nearest the centre stands for all.

    Neurons that no image activates form one cluster, found without k-means and counted among the clusters.
    """

    clustering_rate: float = 0.10  # clusters of a layer, as a share of its neurons (AGNES, section 5.1: 10 %)
    rounds: int = 8  # Lloyd's rounds at most; it ends sooner when one gains little
    projection: int = 64  # main directions along which the first centres are found and moved

    paper: ClassVar[str] = "Dhonthi, Eiermann, Hahn, Hashemi: AGNES, section 3.1"
    preference: ClassVar[int] = 1

    def __post_init__(self) -> None:
        self._require("clustering_rate", 0 < self.clustering_rate <= 1, "a share in (0, 1]")
        self._require("rounds", self.rounds >= 0, "0 or more")
        for name in ("projection", "images"):
            self._require(name, getattr(self, name) >= 1, "1 or more")

    def suits(self, network: Network) -> str:
        return "k-means fits every network"

    def labels(self, vectors: torch.Tensor, layer: Layer, notes: list[str], backend: Backend) -> torch.Tensor:
        if 1 < self._count(layer) < layer.neurons:
            return super().labels(vectors, layer, notes, backend)
        return self.group(vectors, layer, False, notes, backend)

    def group(
        self, vectors: torch.Tensor, layer: Layer, rest: bool, notes: list[str], backend: Backend
    ) -> torch.Tensor:
        return cluster(
            vectors,
            self._count(layer) - rest,
            rounds=self.rounds,
            projection=self.projection,
            generator=backend.generator("kmeans", layer.name, device="cpu"),
            backend=backend,
        )

    def _count(self, layer: Layer) -> int:
        return max(1, round(self.clustering_rate * layer.neurons))
