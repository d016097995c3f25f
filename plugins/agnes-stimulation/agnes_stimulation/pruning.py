"""Exact pruning: a channel is dropped once it cannot come among the best, whatever the images left would say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from agnes_stimulation import ranking
from agnes_stimulation.nsf import Stimulation
from agnes_stimulation.tally import Benign, Summary, Tally

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network

    Key = tuple[bool, float]  # whether the target may win on all images, and the score

_SLACK = 1e-5  # of the largest numbers that scores are made of: rounding differs with what is computed together
_FIRST = 2  # images that every channel is tried on


class Contest:
    """A search for the best channels of all layers, by a score that each further image can only lower.

    Every channel is tried on a few images; the best of all layers are then tried on all, which sets the bar. The
    others go on with ever larger blocks of images, the most telling first, and drop out where they fall below it.
    """

    def __init__(self, top: int, winning_first: bool, scanned: Network, benign: Benign, backend: Backend) -> None:
        self._top = top
        self._winning_first = winning_first
        self._scanned = scanned
        self._benign = benign
        self._unmeasured = benign.own.all(0)
        self._size = float(benign.logits.abs().amax())  # of the numbers that scores are made of, at most
        self._backend = backend
        self._planned: dict[str, Stimulation] = {}  # without what the layers hold, which would fill the memory
        self._tried: dict[str, Summary] = {}
        self._finished: dict[str, Summary] = {}
        self._values: dict[str, torch.Tensor] = {}
        self._done: list[Key] = []  # the best channels that were tried on all images
        self.read = 0  # channels x images that were computed

    def entered(
        self,
        layers: Sequence[Layer],
        values: Callable[[Stimulation], torch.Tensor | None],
        positions: Mapping[str, torch.Tensor],
    ) -> list[Layer]:
        """Try every channel on the first images; the layers that have any, the most promising first."""
        first = slice(0, min(_FIRST, len(self._benign)))
        with self._backend.progress("trying channels", len(layers)) as tick:
            for layer in layers:
                stimulation = self._stimulation(layer)
                chosen = values(stimulation)
                where = positions.get(layer.name)
                channels = stimulation.channels(where)
                if chosen is not None and len(channels):
                    self._values[layer.name] = chosen
                    self._tried[layer.name] = self._over(stimulation, channels, first, where)[0]
                tick(1)
        promising = {name: max(self._keys(summary)) for name, summary in self._tried.items()}
        self._set_the_bar(positions)
        return sorted((la for la in layers if la.name in promising), key=lambda la: promising[la.name], reverse=True)

    def summaries(self, layer: Layer, positions: torch.Tensor | None) -> Iterator[Summary]:
        """The channels of a layer that may be among the best, over all images."""
        if layer.name in self._finished:
            yield self._finished.pop(layer.name)
        left = self._tried.pop(layer.name)
        if not self._in_question(left).any():
            return
        stimulation = self._stimulation(layer)
        while left.images < len(self._benign):
            left = left.of(self._in_question(left))
            if not len(left.channels):
                return
            block = slice(left.images, min(left.images + max(1, left.images // 2), len(self._benign)))
            left = left.with_images(self._over(stimulation, left.channels, block, positions)[0])
        self._note(left)
        yield left

    def _stimulation(self, layer: Layer) -> Stimulation:
        images = self._benign.images
        if layer.name not in self._planned:
            self._planned[layer.name] = Stimulation(self._scanned, layer, images, self._backend)
        return self._planned[layer.name].of(images)

    def _set_the_bar(self, positions: Mapping[str, torch.Tensor]) -> None:
        """Try the channels that look best on all images; from then on the images on which they do worst come first."""
        keys = [(key, name, row) for name, s in self._tried.items() for row, key in enumerate(self._keys(s))]
        ahead = sorted(keys, reverse=True)[: self._top]
        ranks: list[torch.Tensor] = []
        rest = slice(min(_FIRST, len(self._benign)), len(self._benign))
        for name in {name: None for _, name, _ in ahead}:
            tried = self._tried[name]
            chosen = torch.zeros(len(tried.channels), dtype=torch.bool, device=tried.channels.device)
            chosen[[row for _, whose, row in ahead if whose == name]] = True
            self._tried[name], best = tried.of(~chosen), tried.of(chosen)
            if rest.start < rest.stop:
                others, leads = self._over(self._stimulation(tried.layer), best.channels, rest, positions.get(name))
                best = best.with_images(others)
                ranks.append(leads.argsort(1).argsort(1))
            self._finished[name] = best
            self._note(best)
        if ranks:
            order = torch.cat(ranks).float().mean(0).argsort(stable=True) + rest.start
            self._benign = self._benign.part(torch.cat([torch.arange(rest.start, device=order.device), order]))

    def _over(
        self, stimulation: Stimulation, channels: torch.Tensor, images: slice, positions: torch.Tensor | None
    ) -> tuple[Summary, torch.Tensor]:
        """What some images say of some channels, and how far each image lets each channel's best class lead."""
        some, values = self._benign.part(images), self._values[stimulation.layer.name]
        each = Tally.size(len(values), len(some), some.logits.shape[1])
        parts: list[tuple[Summary, torch.Tensor]] = []
        for few in channels.split(max(1, self._backend.memory // 4 // each)):
            tally = Tally(stimulation.layer, few, values, some, means=False)
            stimulation.stimulate(few, tally.values, tally.take, positions, images)
            self._size = max(self._size, tally.largest)
            summary = tally.summary()
            parts.append((summary, tally.leads(summary.margins.argmax(1))))
        self.read += len(channels) * len(some)
        return Summary.joined([summary for summary, _ in parts]), torch.cat([leads for _, leads in parts])

    def _keys(self, summary: Summary) -> list[Key]:
        """The best that each channel can still become."""
        wins = (summary.winners >= 0).any(1) & self._winning_first
        return list(zip(wins.tolist(), self._bounds(summary).tolist(), strict=True))

    def _bounds(self, summary: Summary) -> torch.Tensor:
        """What a channel's score can be at most; a class that all images are of has none, and is no target."""
        return summary.margins.masked_fill(self._unmeasured, -torch.inf).amax(1)

    def _note(self, summary: Summary) -> None:
        """Set the bar by channels that were tried on all images and are candidates."""
        targets, scores = ranking.targets_and_scores(summary, "margin")
        wins = (summary.winners == targets[:, None]).any(1) & self._winning_first
        keys = [key for key in zip(wins.tolist(), scores.tolist(), strict=True) if key[1] > 0]
        self._done = sorted([*self._done, *keys], reverse=True)[: self._top]

    def _in_question(self, summary: Summary) -> torch.Tensor:
        """Which channels can still come among the best."""
        bounds = self._bounds(summary)
        good = bounds > 0
        if len(self._done) < self._top:
            return good
        winning, bar = self._done[-1]
        high = bounds >= bar - _SLACK * self._size
        if not self._winning_first:
            return good & high
        may_win = (summary.winners >= 0).any(1)
        return good & (may_win & high if winning else may_win | high)
