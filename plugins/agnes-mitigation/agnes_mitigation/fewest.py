"""The fewest channels that take a trigger's effect away: one after the other, for the least change on benign images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from agnes.errors import OutOfTime
from agnes_mitigation.pruning import Place, pruned

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network
    from agnes.results import Trigger
    from agnes.samples import Samples

_NOTHING = 1e-3  # a change on benign images that counts as none, nats


@dataclass(frozen=True)
class Effect:
    """What a set of pruned channels does."""

    success: float  # of the strongest trigger
    pull: float  # mean log-probability of the targets under the triggers
    shift: float  # mean divergence of the benign answers from the unpruned network's


class Scales:
    """Weighs sets of channels of a network on a few images."""

    def __init__(
        self,
        network: Network,
        samples: Samples,  # labelled
        triggers: Sequence[Trigger],
        constants: Mapping[str, torch.Tensor],
        backend: Backend,
    ) -> None:
        self._network, self._constants, self._backend = network, constants, backend
        self._images = samples.images
        self._stamped: list[tuple[torch.Tensor, int]] = []
        assert samples.labels is not None
        for trigger in triggers:
            fit = samples.labels != trigger.target
            if trigger.source is not None:
                fit = fit & (samples.labels == trigger.source)
            if fit.any():
                self._stamped.append((trigger.apply(samples.images[fit]), trigger.target))
        self._before = self._answers(network, self._images)

    def weigh(self, places: Sequence[Place]) -> Effect:
        """What pruning these channels does."""
        copy, _ = pruned(self._network, places, self._constants, lambda place: "")
        said = self._answers(copy, self._images)
        shift = float((self._before.exp() * (self._before - said)).sum(1).mean())
        successes, pulls = [0.0], []
        for images, target in self._stamped:
            answers = self._answers(copy, images)
            successes.append(float((answers.argmax(1) == target).float().mean()))
            pulls.append(float(answers[:, target].mean()))
        return Effect(max(successes), sum(pulls) / max(1, len(pulls)), shift)

    def _answers(self, network: Network, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self._backend.map(lambda part: network(part).float().log_softmax(1), images)


def fewest(
    scales: Scales,
    order: Sequence[Place],
    goal: float,
    slack: float,
    allowed: Callable[[Sequence[Place]], bool],
    backend: Backend,
) -> tuple[list[Place], Effect, OutOfTime | None]:
    """Channels taken one by one until the triggers' success is at the goal, their effect, and what ended it too early.

    Next comes the channel that lowers the targets' log-probability most for each unit of change on benign images.
    Old ratios are kept until a channel comes first: only then is it weighed again. At the goal, more are taken while
    the change stays within `slack` times what it is then.
    """
    taken: list[Place] = []
    now = scales.weigh(taken)
    limit = math.inf
    try:
        left = {place: _ratio(now, scales.weigh([place])) for place in order}
        with backend.progress("choosing channels", len(order)) as tick:
            while left:
                place = max(left, key=lambda p: left[p])
                then = scales.weigh([*taken, place])
                ratio = _ratio(now, then)
                if ratio < left[place] and ratio < max((r for p, r in left.items() if p != place), default=ratio):
                    left[place] = ratio
                    continue
                del left[place]
                tick(1)
                if ratio > 0 and then.shift <= limit and allowed([*taken, place]):
                    taken, now = [*taken, place], then
                    if now.success <= goal:
                        limit = min(limit, slack * now.shift)
    except OutOfTime as late:
        return taken, now, late
    return taken, now, None


def _ratio(before: Effect, after: Effect) -> float:
    return (before.pull - after.pull) / (max(0.0, after.shift - before.shift) + _NOTHING)
