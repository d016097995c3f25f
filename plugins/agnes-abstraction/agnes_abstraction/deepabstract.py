"""deepabstract: layers shrunk to representatives, as a network of its own (AGNES, sections 2.2 and 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from agnes.errors import AgnesError, OutOfTime, UsageError
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.results import Representatives
from agnes_abstraction.chain import Chain, NoChain, obstacle
from agnes_abstraction.kmeans import KMeans
from agnes_abstraction.merging import TooLarge, abstract_network
from agnes_abstraction.shrinking import Shrinking

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network
    from agnes.samples import Samples

_CLOSE = 1e-3  # of the largest logit: how far the abstract network may be from the merged original


@dataclass(frozen=True)
class DeepAbstract(Method):
    """Merge neurons that answer benign images alike into a smaller, fully connected network.

    Layer by layer, first to last, the fewest clusters are searched with which accuracy holds. A representative keeps
    its incoming weights and sends out the sum of what its cluster sent. Past the time limit, or where the weights do
    not fit the memory budget, the result is kmeans' representatives, with no abstract network.
    """

    accuracy_drop: float = 0.05  # of accuracy that the whole network may lose (AGNES, section 5.1: 5 %)
    shared: bool = True  # layers get parts of that drop by their neurons; false: the first ones may spend all of it
    time_limit: float = 300.0  # seconds; past it kmeans' representatives are taken (AGNES, section 4: a timeout)
    precision: float = 0.01  # of a layer's neurons, to which the number of clusters is found; 0: to one
    rounds: int = 4  # Lloyd's rounds at most for each number of clusters tried
    images: int = 1000  # benign images used at most for activations, and as many for accuracy
    clustering_rate: float = 0.10  # of kmeans, where it steps in (AGNES, section 5.1: 10 %)

    paper: ClassVar[str] = "Dhonthi, Eiermann, Hahn, Hashemi: AGNES, sections 2.2, 3.1; DeepAbstract, ATVA 2020"

    def __post_init__(self) -> None:
        for name, good, wanted in (
            ("accuracy_drop", 0 <= self.accuracy_drop <= 1, "a share in [0, 1]"),
            ("time_limit", self.time_limit > 0, "seconds above 0"),
            ("precision", 0 <= self.precision <= 1, "a share in [0, 1]"),
            ("rounds", self.rounds >= 0, "0 or more"),
            ("images", self.images >= 1, "1 or more"),
            ("clustering_rate", 0 < self.clustering_rate <= 1, "a share in (0, 1]"),
        ):
            if not good:
                raise UsageError(f"deepabstract.{name} is {getattr(self, name):g}; set {wanted}")

    def suits(self, network: Network) -> str | None:
        return None if obstacle(network) else "convolutions and fully connected layers in a row can be merged"

    def unmet(self, network: Network) -> str | None:
        reason = obstacle(network)
        return f"needs layers in a row that can be merged: {reason}; use kmeans" if reason else None

    @hookimpl
    def abstract(self, network: Network, samples: Samples, backend: Backend) -> Representatives:
        reason = obstacle(network)
        if reason:
            raise AgnesError(f"deepabstract cannot take this network: {reason}; use kmeans")
        limited = backend.within(min(self.time_limit, backend.remaining() / 2))
        try:
            return self._merged(Chain(network), samples, limited)
        except OutOfTime:
            spent = f"{self.time_limit:g} s" if self.time_limit < backend.remaining() else "half the stage's time"
            return self._instead(f"past its time limit of {spent}", network, samples, backend)
        except TooLarge as error:
            return self._instead(str(error), network, samples, backend)
        except NoChain as error:
            raise AgnesError(f"deepabstract cannot take this network: {error}; use kmeans") from error

    def _merged(self, chain: Chain, samples: Samples, backend: Backend) -> Representatives:
        shrinking = Shrinking(chain, samples, backend, self)
        merged = shrinking.run()
        made = abstract_network(chain, merged, backend)
        shrinking.check(made, _CLOSE)
        clusters, positions, sources = {}, {}, {}
        for layer in chain.network.layers:
            found = merged[layer.name]
            flags = torch.zeros(layer.neurons, dtype=torch.bool, device=found.sources.device)
            flags[found.sources] = True
            clusters[layer.name] = found.clusters.reshape(layer.shape).cpu()
            positions[layer.name] = flags.reshape(layer.shape).cpu()
            sources[layer.name] = found.sources.cpu()
        return Representatives(clusters, positions, made, sources, shrinking.notes())

    def _instead(self, why: str, network: Network, samples: Samples, backend: Backend) -> Representatives:
        """kmeans' representatives, and why."""
        note = f"deepabstract: {why}; kmeans' representatives instead (AGNES, section 4)"
        return KMeans(clustering_rate=self.clustering_rate).found(network, samples, backend, (note,))
