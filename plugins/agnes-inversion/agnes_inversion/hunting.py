"""From arms to triggers: searched for in groups that fit the memory, measured on images they were not made on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from agnes import measuring
from agnes.errors import OutOfTime
from agnes_inversion.search import Found, Schedule, Search

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.differentiating import Logits
    from agnes.network import Network
    from agnes.results import Trigger
    from agnes_inversion.arms import Arm, Parts
    from agnes_inversion.forms import Form
    from agnes_inversion.goals import Goal

_COPIES = 16  # of an arm's parameters that a search holds
_FEWEST = 8  # arms below which none is stopped early
_SOURCES = 0.25  # of a target, that go on after the warm-up, where triggers are sought for pairs


@dataclass(frozen=True)
class Hunt:
    """All that a search for triggers takes besides the arms and where each begins."""

    network: Network
    logits: Logits  # of the network, quick to compute
    parts: Parts
    form: Form
    goal: Callable[[Sequence[Arm]], Goal]
    schedule: Schedule
    batch: int
    warm_up: int  # steps, after which an arm goes on from its best start
    keep: float = 1.0  # share of arms that go on from there

    def triggers(self, arms: Sequence[Arm], starts: Sequence[torch.Tensor], backend: Backend) -> list[Trigger]:
        """The best trigger of each arm; out of time, those found by then travel with the error.

        Each of `starts` holds a start for all arms.
        """
        found: list[Trigger] = []
        groups = self._groups(arms, starts, backend)
        for place, group in enumerate(groups):
            share = backend.within(backend.remaining() / (len(groups) - place))
            try:
                found += self._group(arms[group], [start[group] for start in starts], share)
            except OutOfTime as error:
                found += error.partial if isinstance(error.partial, list) else []
                if backend.remaining() <= 0:
                    error.partial = found
                    raise
        return found

    def _groups(self, arms: Sequence[Arm], starts: Sequence[torch.Tensor], backend: Backend) -> list[slice]:
        """As few as the memory allows, of equal length; half of it is left for the images."""
        each = _COPIES * sum(start[0].numel() * start.element_size() for start in starts)
        fitting = max(1, int(backend.memory / 2 / each))
        count = math.ceil(len(arms) / fitting)
        length = math.ceil(len(arms) / max(1, count))
        return [slice(start, start + length) for start in range(0, len(arms), max(1, length))]

    def _group(self, arms: Sequence[Arm], starts: Sequence[torch.Tensor], backend: Backend) -> list[Trigger]:
        every = list(arms) * len(starts)
        search = self._search(every, backend)
        try:
            found = search.run(torch.cat(list(starts)))
        except OutOfTime as error:
            if isinstance(error.partial, Found):
                error.partial = self._measured(every, error.partial, backend)
            raise
        return self._measured(every, found, backend)

    def _search(self, arms: Sequence[Arm], backend: Backend) -> Search:
        images = self.parts.made_on.images
        return Search(
            self.form,
            self.goal(arms),
            self.logits,
            images,
            torch.tensor([arm.target for arm in arms], device=images.device),
            self.parts.eligible(arms),
            self.schedule,
            backend,
            self.batch,
            self.parts.labels if any(arm.source is not None for arm in arms) else None,
            dropping(arms, self.warm_up, self.keep),
        )

    def _measured(self, arms: Sequence[Arm], found: Found, backend: Backend) -> list[Trigger]:
        """The best restart of each arm, measured on the images it was not made on."""
        backend = replace(backend, deadline=None)  # what was found in time is worth measuring
        triggers: list[Trigger] = []
        for arm, index in best_starts(arms, found).items():
            given_up = arm.source is not None and bool(found.dropped[index] & ~found.passed[index])
            if found.success[index] < 0 or given_up:
                continue
            facts = {name: getattr(arm, name) for name in ("target", "source", "purpose", "layer", "channel")}
            eligible = self.parts.eligible([arm])[0]
            images = self.parts.made_on.images[eligible] if eligible.any() else self.parts.made_on.images
            trigger = self.form.trigger(found.made[index], images, asr=0.0, held_out=0, **facts)
            asr, count = measuring.attack_success(self.network, trigger, self.parts.held_out, backend)
            triggers.append(replace(trigger, asr=asr, held_out=count))
        return triggers


def dropping(arms: Sequence[Arm], warm_up: int, keep: float) -> Callable[[int, Found], torch.Tensor]:
    """Which arms stop after the warm-up: of equal ones all but the best, and of the others those with most to change.

    These stay in the comparison at the size they had. More than half go on, so the median is that of arms that ran
    to the end, and sizes left too large above it can only widen the spread: no class looks smaller for it. Of pairs
    every target's best go on: a target is compared by the smallest of its triggers.
    """

    def drop(step: int, found: Found) -> torch.Tensor:
        stopped = torch.zeros(len(arms), dtype=torch.bool)
        if step == warm_up:
            best = list(best_starts(arms, found).values())
            stopped[:] = True
            in_pairs = any(arm.source is not None for arm in arms)
            stopped[_leading_pairs(arms, best, found) if in_pairs else _smallest(arms, best, found, keep)] = False
        return stopped.to(found.sizes.device)

    return drop


def _smallest(arms: Sequence[Arm], best: Sequence[int], found: Found, keep: float) -> list[int]:
    """Candidates, and the arms whose triggers are smallest."""
    going_on = max(_FEWEST, math.ceil(max(keep, 0.6) * len(best)))
    sizes = [0.0 if arms[index].purpose == "candidate" else float(found.sizes[index]) for index in best]
    order = sorted(range(len(best)), key=lambda place: sizes[place])
    return [best[place] for place in order[:going_on]]


def _leading_pairs(arms: Sequence[Arm], best: Sequence[int], found: Found) -> list[int]:
    """Of each target the sources that have come furthest."""
    by_target: dict[int, list[int]] = {}
    for index in best:
        by_target.setdefault(arms[index].target, []).append(index)
    leading: list[int] = []
    for rivals in by_target.values():
        rivals.sort(key=lambda index: found.rank(index))
        leading += rivals[: math.ceil(_SOURCES * len(rivals))]
    return leading


def best_starts(arms: Sequence[Arm], found: Found) -> dict[Arm, int]:
    """For each arm, which of its starts has found most."""
    best: dict[Arm, int] = {}
    for index, arm in enumerate(arms):
        if arm not in best or found.better(index, best[arm]):
            best[arm] = index
    return best
