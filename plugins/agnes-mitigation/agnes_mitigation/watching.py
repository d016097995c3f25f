"""What training methods learn from and what they are judged on, and what came of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from agnes import measuring
from agnes.errors import OutOfTime
from agnes.method import Method
from agnes.results import Change, Repair

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network
    from agnes.results import Trigger
    from agnes.samples import Samples

WORKS = 0.5  # a trigger that moves this share of the images still works (ours)


@dataclass(frozen=True)
class Learner(Method):
    """What methods that train a copy of the network have in common."""

    batch: int = 32  # images a step
    augment: bool = True  # images are shifted a little and change brightness, so that few go further (ours)
    teacher: float = 0.5  # weight of the network's own answer to the benign image beside its label (ours)
    held_out: float = 0.2  # share of the images that is not learnt from and decides which state is kept (ours)


@dataclass(frozen=True)
class Material:
    """Labelled images in two parts."""

    learnt: Samples
    held_out: Samples
    notes: tuple[str, ...]

    @property
    def images(self) -> torch.Tensor:
        return self.learnt.images

    @property
    def rows(self) -> torch.Tensor:
        """All images, once."""
        return torch.arange(len(self.learnt))

    @property
    def labels(self) -> torch.Tensor:
        assert self.learnt.labels is not None
        return self.learnt.labels


def labelled(network: Network, samples: Samples, backend: Backend) -> tuple[Samples, tuple[str, ...]]:
    """The images without the test part, which is for measuring alone; unknown labels are the network's own."""
    samples = replace(samples, test=None)
    if samples.labels is not None:
        return samples, ()
    note = "the images have no labels; the network's own predictions took their place"
    return measuring.with_labels(network, samples, backend), (note,)


def divide(network: Network, samples: Samples, share: float, wanted: int, backend: Backend) -> Material:
    """Images to learn from and images to watch; `wanted` is how many a class the method asks for."""
    samples, notes = labelled(network, samples, backend)
    if len(samples) < wanted * network.class_count:
        notes += (f"{len(samples)} images for {network.class_count} classes; {wanted} a class would be better",)
    held_out, learnt = samples.split(share, backend.generator("held-out images", device="cpu"))
    return Material(learnt, held_out, notes)


class Watch:
    """Keeps the best state of a network in training.

    Best is: not more accuracy lost on the held-out images than allowed (or one image, where they are few), then the
    least success left to the triggers, where one image is as good as none, then the most training.
    """

    def __init__(
        self,
        network: Network,
        held_out: Samples,
        triggers: Sequence[Trigger],
        max_drop: float,
        backend: Backend,
        accuracy_before: float | None = None,  # of the network as it is, unless told
        learnt: Samples | None = None,  # for triggers that no held-out image shows
    ) -> None:
        self.network = network
        self.success = 1.0
        self.lost = 0.0
        self.step = 0
        self._held_out, self._triggers, self._backend = held_out, triggers, backend
        self._parts = [held_out] if learnt is None else [held_out, learnt]
        self._one = 1.5 / len(held_out)  # a share that one image makes, and two do not
        self._allowed = max(max_drop, self._one)
        self._before = accuracy_before
        self._best: tuple[bool, float, int] | None = None
        self._state: dict[str, torch.Tensor] = {}
        self._first: dict[str, torch.Tensor] = {}

    @property
    def kept(self) -> tuple[int, float, float]:
        """The state that is best so far: its step, the triggers' success, and the accuracy that it lost."""
        return self.step, self.success, self.lost

    @property
    def content(self) -> bool:
        """Whether training came to a state worth keeping under which no trigger works."""
        return self.step > 0 and self.success < WORKS

    def look(self, step: int) -> None:
        """Measure, and keep the state where it is the best so far."""
        accuracy, _ = measuring.accuracy(self.network, self._held_out, self._backend)
        assert accuracy is not None
        self._before = accuracy if self._before is None else self._before
        success = attack_success(self.network, self._triggers, self._parts, self._backend)
        lost = self._before - accuracy
        merit = (lost > self._allowed, max(success, self._one), -step)
        if self._best is None or merit < self._best:
            self._best, self.success, self.lost, self.step = merit, success, lost, step
            self._state = {name: value.clone() for name, value in self.network.module.state_dict().items()}
            self._first = self._first or self._state

    def put_first(self) -> None:
        """Set the network back to the state that was seen first."""
        self.network.module.load_state_dict(self._first)

    def put_best(self) -> None:
        """Set the network back to the best state."""
        if self._state:
            self.network.module.load_state_dict(self._state)


def attack_success(network: Network, triggers: Sequence[Trigger], parts: Sequence[Samples], backend: Backend) -> float:
    """The largest success of the triggers; 0 where there are none, or no image for them."""
    return max(successes(network, triggers, parts, backend), default=0.0)


def successes(network: Network, triggers: Sequence[Trigger], parts: Sequence[Samples], backend: Backend) -> list[float]:
    """Of each trigger, on the first of these parts that has an image for it; those that none has are left out."""
    found = []
    for trigger in triggers:
        measured = (measuring.attack_success(network, trigger, part, backend) for part in parts)
        found += itertools.islice((success for success, images in measured if images), 1)  # the rest is not measured
    return found


def repaired(
    network: Network,
    copy: Network,
    how: str,
    notes: Sequence[str],
    late: OutOfTime | None = None,
    pruned: Sequence[Change] = (),  # before it was trained
    why: str = "",  # nothing was changed, where that is told already
) -> Repair:
    """The repair that a changed copy is, with all that differs in it."""
    changes = (*pruned, *changes_between(network, copy, how))
    why = why or ("" if changes else "no state was better than the network as it came; nothing was changed")
    said = (*notes, why) if why else tuple(notes)
    return raised(Repair(copy, changes, said), late)


def raised(repair: Repair, late: OutOfTime | None) -> Repair:
    """The repair, or what there is of it inside the error that ended the work too early."""
    if late is not None:
        raise OutOfTime(str(late), partial=repair)
    return repair


def changes_between(before: Network, after: Network, how: str) -> tuple[Change, ...]:
    """One change for each module whose tensors differ, with how far they moved."""
    old, new = before.module.state_dict(), after.module.state_dict()
    moved: dict[str, list[str]] = {}
    for path, tensor in new.items():
        if not torch.equal(tensor, old[path]):
            owner, _, name = path.rpartition(".")
            size = float(old[path].float().norm())
            share = f"{float((tensor - old[path]).float().norm()) / size:.2%} of its size" if size else "from zero"
            moved.setdefault(owner or name, []).append(f"{name} by {share}")
    return tuple(Change(layer, None, f"{how}; moved {', '.join(parts)}") for layer, parts in moved.items())
