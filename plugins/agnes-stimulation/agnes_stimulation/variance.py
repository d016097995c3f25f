"""variance: channels whose response to benign images hardly varies (Koldenhof, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from agnes.errors import OutOfTime, UsageError
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.results import Candidate, Noted

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network
    from agnes.samples import Samples


@dataclass(frozen=True)
class Variance(Method):
    """Keep the channels of convolutions whose maps are of nearly the same size on every benign image."""

    threshold: float = -2.0  # Z-score of the variance within its layer, below it is a candidate (thesis, eq. 4.1: -2)
    images: int = 1000  # benign images used at most

    needs: ClassVar[frozenset[str]] = frozenset({"conv"})
    paper: ClassVar[str] = "Koldenhof: thesis, section 4.1"

    def __post_init__(self) -> None:
        if self.images < 2:
            raise UsageError(f"variance.images is {self.images}; set 2 or more")
        if not self.threshold < 0:
            raise UsageError(f"variance.threshold is {self.threshold}; set a number below 0")

    @hookimpl
    def stimulate(self, network: Network, samples: Samples, backend: Backend) -> Noted | list[Candidate]:
        images = samples.images[: self.images]
        if len(images) < 2:
            return Noted((), ("one image has no variance; give two or more",))
        layers = [layer for layer in network.layers if layer.kind == "conv"]
        found: list[Candidate] = []
        try:
            with backend.progress("measuring variances", len(layers)) as tick:
                for layer in reversed(layers):  # thesis, algorithm 1: from the deepest to the shallowest
                    found += self._candidates(layer, z_scores(norms(network, layer, images, backend).var(0)))
                    tick(1)
        except OutOfTime as error:
            raise OutOfTime(str(error), partial=_ranked(found)) from error
        return _ranked(found)

    def _candidates(self, layer: Layer, scores: torch.Tensor) -> list[Candidate]:
        chosen = (scores < self.threshold).nonzero().flatten().tolist()
        # no class was seen to win on any value: the range is turned round
        return [Candidate(layer.name, channel, None, -float(scores[channel]), 1.0, 0.0) for channel in chosen]


def _ranked(found: list[Candidate]) -> list[Candidate]:
    """The least varying first; of equal ones the deepest."""
    return sorted(found, key=lambda candidate: -candidate.score)


def norms(network: Network, layer: Layer, images: torch.Tensor, backend: Backend) -> torch.Tensor:
    """The Frobenius norm of each channel's own map: images, channels."""

    def work(part: torch.Tensor) -> torch.Tensor:
        return layer.by_channel(network.read(part, [layer])[layer.name]).float().norm(dim=2)

    with torch.no_grad():
        return backend.map(work, images)


def z_scores(values: torch.Tensor) -> torch.Tensor:
    """By how many standard deviations each lies above the mean; zero where all are equal."""
    spread = values.std(correction=0)
    return (values - values.mean()) / spread if spread > 0 else torch.zeros_like(values)
