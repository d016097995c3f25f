"""The search that methods sampling stimulation functions share: every layer, every channel, the same values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from agnes.errors import OutOfTime, UsageError
from agnes.measuring import predictions
from agnes.method import Method
from agnes.reading.parts import spread
from agnes_stimulation import ranking
from agnes_stimulation.nsf import Stimulation

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network
    from agnes.results import Candidate
    from agnes.samples import Samples
    from agnes_stimulation.nsf import Curves

    Positions = Mapping[str, torch.Tensor]  # layer -> bool, the layer's shape


@dataclass(frozen=True)
class SampledStimulation(Method):
    """What a search over sampled values can be told."""

    samples: int = 16  # values at which each function is sampled, evenly from 0
    reach: float = 6.4  # the last value, in largest activations of the layer on benign images (ABS, authors' code: 6.4)
    top: int = 10  # candidates kept over all layers (ABS, section 5.1: top 10)
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
        found: list[Candidate] = []
        try:
            for some in self._layer_by_layer(network, samples, positions, backend):
                found = ranking.best([*found, *some], self.top, self.winning_first)
        except OutOfTime as error:
            raise OutOfTime(str(error), partial=found) from error
        return found

    def _layer_by_layer(
        self, network: Network, samples: Samples, positions: Positions | None, backend: Backend
    ) -> Iterator[list[Candidate]]:
        """The candidates of some channels at a time."""
        images, classes = benign(network, samples, self.images, backend)
        folded = network.fold_batch_norm()
        with torch.no_grad():
            logits = backend.map(folded, images).float()
        layers = [layer for layer in folded.layers if positions is None or layer.name in positions]
        with backend.progress("stimulating layers", len(layers)) as tick:
            for layer in layers:
                where = None if positions is None else positions[layer.name]
                for curves in self._curves(Stimulation(folded, layer, images, backend), where):
                    yield ranking.candidates(curves, logits, classes, quantile=self.quantile, positions=where)
                tick(1)

    def _curves(self, stimulation: Stimulation, positions: torch.Tensor | None) -> Iterator[Curves]:
        highest = self.reach * stimulation.largest()
        if highest == 0:
            return  # nothing in the layer ever moves: there is no range to sample
        values = torch.linspace(0, highest, self.samples, device=stimulation.images.device)
        yield from stimulation.curves(values, positions)


def benign(network: Network, samples: Samples, limit: int, backend: Backend) -> tuple[torch.Tensor, torch.Tensor]:
    """At most `limit` images and their classes: the labels, or where there are none the network's own."""
    images = samples.images.to(backend.device)
    classes = predictions(network, images, backend) if samples.labels is None else samples.labels
    kept = torch.from_numpy(spread(classes.cpu().numpy(), len(images), limit)).to(backend.device)
    return images[kept], classes.to(backend.device)[kept]
