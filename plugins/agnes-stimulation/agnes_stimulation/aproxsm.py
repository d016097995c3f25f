"""aproxsm: stimulation of representatives in the original network (AGNES, sections 3.1 and 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from agnes.errors import AgnesError
from agnes.hookspecs import hookimpl
from agnes_stimulation.sampled import SampledStimulation

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network
    from agnes.results import Candidate, Representatives
    from agnes.samples import Samples


@dataclass(frozen=True)
class AproxSM(SampledStimulation):
    """Set each channel's representatives to a value and keep the channels that lift one class above all others.

    A channel without a representative is skipped; the rest of a map keeps the values it has.
    """

    clustering_rate: float | None = None  # asked of the abstraction method; by default its own (AGNES: 0.10)

    needs: ClassVar[frozenset[str]] = frozenset({"representatives"})
    paper: ClassVar[str] = "Dhonthi, Eiermann, Hahn, Hashemi: AGNES, sections 3.1 and 3.2"

    def __post_init__(self) -> None:
        super().__post_init__()
        rate = self.clustering_rate
        self._require("clustering_rate", rate is None or 0 < rate <= 1, "a share in (0, 1]")

    def suits(self, network: Network) -> str:
        return "stimulating representatives works with layers of every kind"

    def asks(self) -> Mapping[str, Mapping[str, Any]]:
        return {} if self.clustering_rate is None else {"abstraction": {"clustering_rate": self.clustering_rate}}

    @hookimpl
    def stimulate(
        self, network: Network, samples: Samples, representatives: Representatives | None, backend: Backend
    ) -> list[Candidate]:
        if representatives is None:
            raise AgnesError("aproxsm was given no representatives; add an abstraction method such as kmeans")
        return self.search(network, samples, representatives.positions, backend)
