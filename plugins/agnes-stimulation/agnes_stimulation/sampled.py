"""The search that methods sampling stimulation functions share: every layer, every channel, the same values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from agnes.errors import OutOfTime, UsageError
from agnes.measuring import predictions
from agnes.method import Method
from agnes.reading.parts import ranks, spread
from agnes.results import Curve
from agnes_stimulation import ranking
from agnes_stimulation.nsf import Stimulation
from agnes_stimulation.preparing import for_scanning
from agnes_stimulation.pruning import Contest
from agnes_stimulation.tally import Benign, Tally

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network
    from agnes.results import Candidate
    from agnes.samples import Samples
    from agnes_stimulation.tally import Summary

    Positions = Mapping[str, torch.Tensor]  # layer -> bool, the layer's shape


@dataclass(frozen=True)
class SampledStimulation(Method):
    """What a search over sampled values can be told."""

    samples: int = 16  # values at which each function is sampled, evenly from 0
    reach: float = 6.4  # the last value, in largest activations of the layer on benign images (ABS, authors' code: 6.4)
    top: int = 10  # candidates kept over all layers (ABS, section 5.1: top 10)
    score: Literal["elevation", "margin"] = "elevation"  # ABS, algorithm 1; margin: as the authors' code, far quicker
    quantile: float = 0.0  # of the images' elevations, taken as the class's; 0: the minimum (ABS, algorithm 1)
    winning_first: bool = True  # keep channels whose target wins on all images before others (ABS, authors' code)
    images: int = 128  # benign images used at most, class by class in turn

    def __post_init__(self) -> None:
        for name, least in (("samples", 2), ("top", 1), ("images", 1)):
            self._require(name, getattr(self, name) >= least, f"{least} or more")
        self._require("reach", self.reach > 0, "a number above 0")
        self._require("quantile", 0 <= self.quantile <= 1, "a share in [0, 1]")

    def _require(self, name: str, good: bool, wanted: str) -> None:
        if not good:
            raise UsageError(f"{type(self).__name__.lower()}.{name} is {getattr(self, name)}; set {wanted}")

    def search(
        self, network: Network, samples: Samples, positions: Positions | None, backend: Backend
    ) -> list[Candidate]:
        """The best candidates over all layers, where `positions` of each channel are set; None: whole maps."""
        scanned = for_scanning(network)
        layers = [layer.name for layer in scanned.layers]
        found: list[Candidate] = []
        try:
            benign = benign_images(network, scanned, samples, self.images, backend)
            for some in self._some_at_a_time(scanned, benign, positions, backend):
                found = ranking.best([*found, *some], self.top, self.winning_first, layers)
            return self._finished(scanned, found, benign, backend)
        except OutOfTime as error:
            raise OutOfTime(str(error), partial=found) from error

    def _some_at_a_time(
        self, scanned: Network, benign: Benign, positions: Positions | None, backend: Backend
    ) -> Iterator[list[Candidate]]:
        """The best candidates of some channels at a time."""
        layers = [layer for layer in scanned.layers if positions is None or layer.name in positions]
        contest = None
        if self._prunes:
            contest = Contest(self.top, self.winning_first, scanned, benign, backend)
            layers = contest.entered(layers, self._values, positions or {})
        with backend.progress("stimulating layers", len(layers)) as tick:
            for layer in layers:
                where = None if positions is None else positions[layer.name]
                if contest is not None:
                    summaries = contest.summaries(layer, where)
                else:
                    summaries = self._summaries(self._stimulation(scanned, layer, benign, backend), benign, where)
                for summary in summaries:
                    yield self._candidates(summary, where)
                tick(1)

    def _finished(self, scanned: Network, found: list[Candidate], benign: Benign, backend: Backend) -> list[Candidate]:
        """What is still done for the candidates alone."""
        return [c if c.curve is not None else self._with_curve(scanned, c, benign, backend) for c in found]

    def _with_curve(self, scanned: Network, candidate: Candidate, benign: Benign, backend: Backend) -> Candidate:
        """The candidate with the curve that pruning does not keep."""
        stimulation = self._stimulation(scanned, scanned.layer(candidate.layer), benign, backend)
        values = self._values(stimulation)
        if values is None:
            return candidate
        channel = torch.tensor([candidate.channel], device=values.device)
        tally = Tally(stimulation.layer, channel, values, benign)
        stimulation.stimulate(channel, tally.values, tally.take, positions_of(stimulation.layer, candidate))
        return replace(candidate, curve=Curve(values.cpu(), tally.summary().means[0].cpu()))

    @property
    def _prunes(self) -> bool:
        """Whether channels that cannot come among the best may be dropped: every image can only lower this score."""
        return self.score == "margin" and self.quantile == 0

    def _stimulation(self, scanned: Network, layer: Layer, benign: Benign, backend: Backend) -> Stimulation:
        return Stimulation(scanned, layer, benign.images, backend)

    def _candidates(self, summary: Summary, positions: torch.Tensor | None) -> list[Candidate]:
        return ranking.candidates(
            summary, self.top, score=self.score, winning_first=self.winning_first, positions=positions
        )

    def _values(self, stimulation: Stimulation) -> torch.Tensor | None:
        """The values, the same for all channels; None where nothing in the layer ever moves."""
        highest = self.reach * stimulation.largest()
        return torch.linspace(0, highest, self.samples, device=stimulation.images.device) if highest else None

    def _summaries(self, stimulation: Stimulation, benign: Benign, positions: torch.Tensor | None) -> Iterator[Summary]:
        """What came of stimulating all channels of a layer, as many at a time as memory allows."""
        values = self._values(stimulation)
        if values is None:
            return
        each = Tally.size(len(values), len(benign), benign.logits.shape[1])
        channels = stimulation.channels(positions)
        for some in channels.split(max(1, stimulation.backend.memory // 4 // each)) if len(channels) else ():
            tally = Tally(stimulation.layer, some, values, benign)
            stimulation.stimulate(some, tally.values, tally.take, positions)
            yield tally.summary(self.quantile)


def positions_of(layer: Layer, candidate: Candidate) -> torch.Tensor | None:
    """A candidate's positions in a map of the layer's shape; None: everywhere."""
    if candidate.positions is None:
        return None
    where = torch.zeros(layer.shape, dtype=torch.bool)
    where.movedim(layer.channel_dim, 0)[candidate.channel] = candidate.positions
    return where


def benign_images(network: Network, scanned: Network, samples: Samples, limit: int, backend: Backend) -> Benign:
    """At most `limit` images with their classes, the labels or where there are none the network's own, and logits."""
    images = samples.images.to(backend.device)
    classes = predictions(network, images, backend) if samples.labels is None else samples.labels
    numbers = classes.cpu().numpy()
    few = spread(numbers, len(images), limit)
    in_turn = few[np.argsort(ranks(numbers[few])[0], kind="stable")]  # so that the first ones are of many classes
    kept = torch.from_numpy(in_turn).to(backend.device)
    images = images[kept]
    if backend.device.type == "cpu":
        images = images.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        logits = backend.map(scanned, images).float()
    return Benign(images, classes.to(backend.device)[kept], logits)
