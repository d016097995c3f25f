"""What methods share that find groups where neurons lie densely, and leave others as noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from agnes.errors import AgnesError
from agnes_abstraction.clustering import assign, cluster, exactly, means, project
from agnes_abstraction.layerwise import Layerwise

if TYPE_CHECKING:
    import numpy as np

    from agnes.backend import Backend
    from agnes.layers import Layer


@dataclass(frozen=True)
class Density(Layerwise):
    """Groups found from the data; noise stays alone, or in clusters of its own where there is much of it."""

    dimensions: int = 50  # main directions that are kept of more images than that
    noise_rate: float = 0.10  # noise that stays alone, as a share of a layer's neurons; more is put in as many clusters
    largest: int = 20_000  # neurons of a layer that are grouped at most; the others join the nearest group

    def __post_init__(self) -> None:
        for name in ("images", "dimensions"):
            self._require(name, getattr(self, name) >= 1, "1 or more")
        self._require("noise_rate", 0 < self.noise_rate <= 1, "a share in (0, 1]")
        self._require("largest", self.largest >= 2, "2 or more")

    def dense(self, points: np.ndarray, layer: Layer, notes: list[str], backend: Backend) -> np.ndarray:
        """The group of each point, -1 for noise."""
        raise NotImplementedError

    def group(
        self, vectors: torch.Tensor, layer: Layer, rest: bool, notes: list[str], backend: Backend
    ) -> torch.Tensor:
        generator = backend.generator(type(self).__name__, layer.name, device="cpu")
        with exactly(backend):
            points = project(vectors - vectors.mean(0), self.dimensions, generator)
        if len(points) <= self.largest:
            return self._grouped(points, layer, notes, generator, backend)
        notes.append(f"{layer.name}: grouped by {self.largest:,} of {len(points):,} neurons; the others joined them")
        order = torch.randperm(len(points), generator=generator, device=generator.device)
        some = points[order[: self.largest].sort().values.to(points.device)]
        labels = self._grouped(some, layer, notes, generator, backend)
        with exactly(backend):
            return assign(points, means(some, labels, int(labels.max()) + 1)[0], backend)

    def _grouped(
        self, points: torch.Tensor, layer: Layer, notes: list[str], generator: torch.Generator, backend: Backend
    ) -> torch.Tensor:
        """Groups numbered from 0, the noise after them."""
        found = self.dense(points.double().cpu().numpy(), layer, notes, backend)
        labels = torch.as_tensor(found, dtype=torch.int64).to(points.device)
        noise = labels < 0
        if noise.any():
            alone = max(1, round(self.noise_rate * layer.neurons))
            apart = cluster(
                points[noise], alone, rounds=4, projection=self.dimensions, generator=generator, backend=backend
            )
            labels[noise] = int(labels.max()) + 1 + apart
            if int(noise.sum()) > alone:
                notes.append(f"{layer.name}: {int(noise.sum()):,} neurons were noise and went into {alone:,} clusters")
        return labels.unique(return_inverse=True)[1]


def missing(method: str, package: str, extra: str) -> AgnesError:
    """That a package is not there, and how to get it."""
    return AgnesError(f"{method} needs the package {package}: pip install 'agnes-abstraction[{extra}]'")
