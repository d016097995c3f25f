"""abssm: stimulation of every neuron of an abstract network (AGNES, section 3)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from agnes.errors import AgnesError
from agnes.hookspecs import hookimpl
from agnes.layers import ACTIVATIONS
from agnes.results import Noted
from agnes_stimulation.sampled import SampledStimulation

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network
    from agnes.results import Candidate, Representatives
    from agnes.samples import Samples

_CHAIN = ACTIVATIONS | {"conv", "linear", "batch_norm", "avg_pool", "flatten", "dropout", "permute", "pad", "scale"}


@dataclass(frozen=True)
class AbsSM(SampledStimulation):
    """Set each neuron of the abstract network to a value, and name the original neurons it stands for.

    Where the abstraction gave none, its representatives are stimulated in the original network, as aproxsm does.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"representatives"})
    paper: ClassVar[str] = "Dhonthi, Eiermann, Hahn, Hashemi: AGNES, section 3"
    preference: ClassVar[int] = 10
    wants: ClassVar[str] = "deepabstract"

    def suits(self, network: Network) -> str | None:
        return "the network has only convolutions and fully connected layers" if network.kinds <= _CHAIN else None

    @hookimpl
    def stimulate(
        self, network: Network, samples: Samples, representatives: Representatives | None, backend: Backend
    ) -> Noted | list[Candidate]:
        if representatives is None:
            raise AgnesError("abssm was given no representatives; add an abstraction method such as deepabstract")
        if representatives.abstract_network is None:
            found = self.search(network, samples, representatives.positions, backend)
            note = "there is no abstract network; the representatives were stimulated in the original, as by aproxsm"
            return Noted(found, (note,))
        abstract = representatives.abstract_network.to(backend.device)
        found = self.search(abstract, samples, None, backend)
        return [original(c, network.layer(c.layer), representatives.sources[c.layer]) for c in found]


def original(candidate: Candidate, layer: Layer, sources: torch.Tensor) -> Candidate:
    """The candidate of an abstract neuron as one of the neuron that it stands for."""
    place = np.unravel_index(int(sources[candidate.channel]), layer.shape)
    where = torch.zeros(layer.shape, dtype=torch.bool)
    where[place] = True
    channel = int(place[layer.channel_dim])
    return replace(candidate, channel=channel, positions=where.movedim(layer.channel_dim, 0)[channel].clone())
