"""abs: stimulation of every channel and neuron, sampled where the functions bend (ABS, sections 4.1 and 4.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch

from agnes.hookspecs import hookimpl
from agnes_stimulation import adaptive
from agnes_stimulation.nsf import Stimulation
from agnes_stimulation.sampled import SampledStimulation
from agnes_stimulation.tally import summary_of

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network
    from agnes.results import Candidate
    from agnes.samples import Samples
    from agnes_stimulation.tally import Benign, Summary


@dataclass(frozen=True)
class Abs(SampledStimulation):
    """Set each channel's whole map to a value, and keep the channels that lift one class above all others."""

    samples: int = 16  # values a channel is sampled at most
    refine: bool = True  # put half of them where the function bends (ABS, section 4.1); false: all evenly
    tolerance: float = 0.02  # of slopes, relative: three neighbours that differ by less lie on one line
    extend: int = 4  # times at most that a candidate's range is doubled while its target wins and slopes change

    paper: ClassVar[str] = "Liu, Lee, Tao, Ma, Aafer, Zhang: ABS, sections 4.1 and 4.2"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("tolerance", self.tolerance >= 0, "0 or more")
        self._require("extend", self.extend >= 0, "0 or more")

    @hookimpl
    def stimulate(self, network: Network, samples: Samples, backend: Backend) -> list[Candidate]:
        return self.search(network, samples, None, backend)

    @property
    def _prunes(self) -> bool:
        return super()._prunes and not self._refines

    @property
    def _refines(self) -> bool:
        return self.refine and self.samples >= 2 * adaptive.FEWEST

    def _summaries(self, stimulation: Stimulation, benign: Benign, positions: torch.Tensor | None) -> Iterator[Summary]:
        if not self._refines:
            yield from super()._summaries(stimulation, benign, positions)
            return
        highest = self.reach * stimulation.largest()
        if not highest:
            return
        each = 16 * self.samples * len(benign) * benign.logits.shape[1]
        channels = stimulation.channels(positions)
        for some in channels.split(max(1, stimulation.backend.memory // 4 // each)) if len(channels) else ():
            curves = adaptive.curves(stimulation, some, highest, self.samples, self.tolerance)
            yield summary_of(curves, benign, self.quantile)

    def _finished(self, scanned: Network, found: list[Candidate], benign: Benign, backend: Backend) -> list[Candidate]:
        """The candidates, the range of each followed upwards while its target goes on winning."""
        found = super()._finished(scanned, found, benign, backend)
        if not self.extend:
            return found
        followed = []
        for candidate in found:
            stimulation = self._stimulation(scanned, scanned.layer(candidate.layer), benign, backend)
            high = adaptive.followed(stimulation, candidate, self.extend, self.tolerance)
            followed.append(replace(candidate, high=high))
        return followed
