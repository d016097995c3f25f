"""dbscan: groups of one density, found from the data (AGNES, section 5.2: named as a way to choose the clusters)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from agnes_abstraction.clustering import exactly, rows_at_once
from agnes_abstraction.density import Density, missing

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer

_WITNESSES = 512  # points whose neighbours are counted
_SHARE = 4  # a quarter of the memory budget may hold neighbours


@dataclass(frozen=True)
class DBSCAN(Density):
    """Group each layer's neurons that are joined by dense neighbourhoods; the medoid stands for its group.

    Neighbours are neurons within `eps`, by default the elbow of the sorted distances from the min_samples-th neighbour.
    """

    min_samples: int = 5  # neurons, itself among them, that make a neighbourhood dense
    eps: float | None = None  # distance of neighbours; none: the elbow of the k-distance curve

    paper: ClassVar[str] = "Dhonthi, Eiermann, Hahn, Hashemi: AGNES, section 5.2 (named); Ester et al., KDD 1996"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("min_samples", self.min_samples >= 2, "2 or more")
        if self.eps is not None:
            self._require("eps", self.eps > 0, "a distance above 0")

    def dense(self, points: np.ndarray, layer: Layer, notes: list[str], backend: Backend) -> np.ndarray:
        try:
            from sklearn.cluster import DBSCAN as Model
        except ImportError as error:
            raise missing("dbscan", "scikit-learn", "dbscan") from error
        if len(points) <= self.min_samples:
            return np.full(len(points), -1)
        rows = torch.as_tensor(points, dtype=torch.float32, device=backend.device)
        with exactly(backend):
            wanted = self.eps if self.eps is not None else elbow(k_distances(rows, self.min_samples, backend))
            eps = min(wanted, widest(rows, backend))
        if eps < wanted:
            notes.append(f"{layer.name}: eps {eps:.3g} instead of {wanted:.3g}, so that neighbours fit the budget")
        return Model(eps=max(eps, 1e-12), min_samples=self.min_samples).fit_predict(points)


def k_distances(points: torch.Tensor, count: int, backend: Backend) -> torch.Tensor:
    """The distance of each point from its count-th nearest, itself counted, sorted."""
    found = [
        torch.cdist(part, points).kthvalue(count, dim=1).values
        for part in points.split(rows_at_once(8 * len(points), backend))
    ]
    return torch.cat(found).sort().values


def elbow(ordered: torch.Tensor) -> float:
    """Where a rising curve lies farthest below the line from its first to its last point."""
    line = torch.linspace(float(ordered[0]), float(ordered[-1]), len(ordered), device=ordered.device)
    return float(ordered[(line - ordered).argmax()])


def widest(points: torch.Tensor, backend: Backend) -> float:
    """The distance within which all points' neighbours fit the budget, by a sample of points."""
    room = backend.memory // _SHARE // (8 * len(points))  # neighbours of a point, on average
    if room >= len(points):
        return float("inf")
    count = max(1, min(_WITNESSES, backend.memory // (32 * len(points))))
    some = points[:: -(-len(points) // count)]
    found = torch.cat([torch.cdist(part, points) for part in some.split(rows_at_once(8 * len(points), backend))])
    return float(found.flatten().kthvalue(max(1, room * len(some))).values)
