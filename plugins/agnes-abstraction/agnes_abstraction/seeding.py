"""Starting centres: k-means++, greedy, several centres a step, and continued where more are wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from agnes.backend import Backend

_STEP = 0.1  # new centres of a step, as a share of those there are
_LARGEST_STEP = 256
_TRIALS = 4  # points drawn for each new centre of a step
_FIRST_TRIALS = 8  # while centres come one at a time
_WITNESSES = 8192  # points on which trials are compared
_BLOCK = 32 << 20  # bytes of distances at once


class Seeds:
    """Centres in the order in which they were found: the first few serve as well as all.

    Points are drawn in proportion to their squared distance from the centres so far. Of those drawn, the ones that
    shorten the most are kept, leaving out any that lies in the reach of another.
    """

    def __init__(self, points: torch.Tensor, generator: torch.Generator, backend: Backend) -> None:
        lengths = points.square().sum(1, keepdim=True)
        ones = torch.ones_like(lengths)
        self.left = torch.cat([points * -2, lengths, ones], 1)  # times what _right gives: squared distances
        self.generator = generator
        self.backend = backend
        self.block = min(_BLOCK, backend.memory // 8)
        order = torch.randperm(len(points), generator=generator, device=generator.device)
        self.witnesses = order[:_WITNESSES].sort().values.to(points.device)
        self.towards = -self.left[self.witnesses]
        self.chosen = order[-1:].to(points.device)
        self.near = torch.full_like(lengths[:, 0], float("inf"))  # squared distance from the nearest centre so far
        self._update(self.chosen)

    def first(self, count: int) -> torch.Tensor:
        """Indices of so many centres; fewer where every point coincides with one."""
        while len(self.chosen) < count:
            found = len(self.chosen)
            step = min(count - found, max(1, int(found * _STEP)), _LARGEST_STEP)
            trials = self._drawn(step * _TRIALS if step > 1 else _FIRST_TRIALS)
            if not len(trials):
                break
            kept = self._best_apart(trials, step)
            self._update(kept)
            self.chosen = torch.cat([self.chosen, kept])
            self.backend.check()
        return self.chosen[:count]

    def _drawn(self, count: int) -> torch.Tensor:
        """Points in proportion to their squared distance, each once."""
        reach = self.near.double().cumsum(0)
        if float(reach[-1]) <= 0:
            return self.chosen[:0]
        at = torch.rand(count, generator=self.generator, dtype=torch.float64, device=self.generator.device)
        drawn = torch.searchsorted(reach, at.to(reach.device) * reach[-1], right=True).clamp_(max=len(reach) - 1)
        drawn = drawn.unique()
        return drawn[self.near[drawn] > 0]

    def _best_apart(self, trials: torch.Tensor, step: int) -> torch.Tensor:
        """Of the points drawn, up to `step` that shorten the distances most and do not take from each other."""
        order = self._gains(trials).argsort(descending=True, stable=True)
        ordered = trials[order]
        if step == 1 or len(ordered) == 1:
            return ordered[:1]
        between = self.left[ordered] @ self._right(ordered)
        reach = self.near[ordered]
        clashes = ((between < reach[:, None]) | (between < reach)).cpu().numpy()
        taken = np.zeros(len(ordered), dtype=bool)
        kept: list[int] = []
        for index, clash in enumerate(clashes):
            if not taken[index]:
                kept.append(index)
                taken |= clash
                if len(kept) == step:
                    break
        return ordered[torch.tensor(kept, device=ordered.device)]

    def _gains(self, trials: torch.Tensor) -> torch.Tensor:
        """By how much each would shorten the distances of the witnesses."""
        centres = self._right(trials)
        self.towards[:, -2] = self.near[self.witnesses] - self.left[self.witnesses, -2]
        gains = torch.zeros(len(trials), device=centres.device)
        for part in self.towards.split(max(1, self.block // (4 * len(trials)))):
            gains += (part @ centres).clamp_(min=0).sum(0)
        return gains

    def _right(self, chosen: torch.Tensor) -> torch.Tensor:
        rows = self.left[chosen]
        return torch.cat([rows[:, :-2] * -0.5, rows[:, -1:], rows[:, -2:-1]], 1).T

    def _update(self, added: torch.Tensor) -> None:
        centres = self._right(added)
        rows = max(1, self.block // (4 * len(added)))
        found = torch.cat([(part @ centres).amin(1) for part in self.left.split(rows)])
        self.near = torch.minimum(self.near, found.clamp_(min=0))
        self.near[added] = 0
