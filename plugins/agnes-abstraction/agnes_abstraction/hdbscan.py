"""hdbscan: as many groups as the data shows (AGNES, sections 5.2 and 6: future work)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from agnes_abstraction.density import Density, missing

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer


@dataclass(frozen=True)
class HDBSCAN(Density):
    """Group each layer's neurons where they lie densely, at every density; the medoid stands for its group."""

    min_cluster_size: int = 5  # neurons that make a group

    paper: ClassVar[str] = "Dhonthi, Eiermann, Hahn, Hashemi: AGNES, section 6 (future work)"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("min_cluster_size", self.min_cluster_size >= 2, "2 or more")

    def dense(self, points: np.ndarray, layer: Layer, notes: list[str], backend: Backend) -> np.ndarray:
        try:
            from hdbscan import HDBSCAN as Model
        except ImportError as error:
            raise missing("hdbscan", "hdbscan", "hdbscan") from error
        if len(points) < 2 * self.min_cluster_size:
            return np.full(len(points), -1)
        return Model(min_cluster_size=self.min_cluster_size, core_dist_n_jobs=1).fit_predict(points)
