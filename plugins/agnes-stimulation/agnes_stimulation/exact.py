"""abs-exact: stimulation functions with all their turn points (ABS, section 4.1, the precise analysis)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from agnes.errors import OutOfTime, UsageError
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.results import Noted
from agnes_stimulation import ranking
from agnes_stimulation.following import Lines
from agnes_stimulation.preparing import for_scanning
from agnes_stimulation.sampled import benign_images
from agnes_stimulation.tally import Summary, elevations, least_leads

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network
    from agnes.results import Candidate
    from agnes.samples import Samples
    from agnes_stimulation.tally import Benign


@dataclass(frozen=True)
class AbsExact(Method):
    """Set each channel's whole map to every value, through all turn points, and keep those that lift one class."""

    depth: int = 2  # layers that are examined, from the last one back; 0: all
    pieces: int = 4096  # turn points of one line at most; a channel with more is left out, and the report says so
    reach: float = 6.4  # the last value, in largest activations of the layer on benign images (ABS, authors' code: 6.4)
    samples: int = 33  # evenly spaced values at which the kept curves and ranges are read off
    top: int = 10  # candidates kept over all layers (ABS, section 5.1: top 10)
    winning_first: bool = True  # keep channels whose target wins on all images before others (ABS, authors' code)
    images: int = 128  # benign images used at most, class by class in turn

    needs: ClassVar[frozenset[str]] = frozenset({"piecewise_linear"})
    paper: ClassVar[str] = "Liu, Lee, Tao, Ma, Aafer, Zhang: ABS, section 4.1"

    def __post_init__(self) -> None:
        for name, least in (("depth", 0), ("pieces", 2), ("samples", 2), ("top", 1), ("images", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"abs-exact.{name} is {getattr(self, name)}; set {least} or more")
        if self.reach <= 0:
            raise UsageError(f"abs-exact.reach is {self.reach}; set a number above 0")

    @hookimpl
    def stimulate(self, network: Network, samples: Samples, backend: Backend) -> Noted:
        scanned = for_scanning(network)
        layers = scanned.layers[-self.depth :] if self.depth else scanned.layers
        notes: list[str] = []
        if len(layers) < len(scanned.layers):
            before = len(scanned.layers) - len(layers)
            notes.append(f"the first {before} of {len(scanned.layers)} layers were not examined (depth={self.depth})")
        found: list[Candidate] = []
        try:
            benign = benign_images(network, scanned, samples, self.images, backend)
            with backend.progress("following turn points", len(layers)) as tick:
                for layer in reversed(layers):
                    lines = Lines(scanned, layer, benign, self.pieces, backend)
                    for summary in self._summaries(lines, benign):
                        some = ranking.candidates(summary, self.top, winning_first=self.winning_first)
                        found = ranking.best([*found, *some], self.top, self.winning_first)
                    if lines.left_out:
                        notes.append(_left_out(layer, lines.left_out, self.pieces))
                    tick(1)
        except OutOfTime as error:
            raise OutOfTime(str(error), partial=Noted(found, notes)) from error
        return Noted(found, notes)

    def _summaries(self, lines: Lines, benign: Benign) -> Iterator[Summary]:
        """What came of the channels of a layer, some at a time."""
        highest = self.reach * lines.stimulation.largest()
        if not highest:
            return
        grid = torch.linspace(0, highest, self.samples, device=benign.images.device)
        for channels, peaks, logits in lines.over(highest, grid):
            lifts = peaks - benign.logits
            won = logits.argmax(3)
            winners = won[..., 0].masked_fill((won != won[..., :1]).any(2), -2)
            yield Summary(
                lines.stimulation.layer,
                channels,
                grid.expand(len(channels), -1),
                elevations(lifts, benign.own),
                least_leads(lifts, benign.own),
                winners,
                logits.mean(2),
                len(benign),
            )


def _left_out(layer: Layer, count: int, pieces: int) -> str:
    what = f"{count} of {layer.channels} channels of '{layer.name}' left out"
    return f"{what}: over {pieces} turn points a line, or more than the memory holds"
