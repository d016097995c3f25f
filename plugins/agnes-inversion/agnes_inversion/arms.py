"""Arms: the classes that triggers are sought for, and the images each may be sought on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch

from agnes import measuring
from agnes.errors import AgnesError
from agnes.reading.parts import spread
from agnes_inversion.varying import several

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network
    from agnes.results import Candidate
    from agnes.samples import Samples

Purpose = Literal["candidate", "scan", "null"]


@dataclass(frozen=True)
class Arm:
    """One class that a trigger is sought for, and why."""

    target: int
    purpose: Purpose
    layer: str | None = None
    channel: int | None = None
    source: int | None = None  # only images of this class are to reach the target
    others: tuple[tuple[str, int], ...] = ()  # layers and channels excited together with its own

    @property
    def neurons(self) -> tuple[tuple[str, int], ...]:
        """Layers and channels, its own first."""
        own = () if self.layer is None or self.channel is None else ((self.layer, self.channel),)
        return own + self.others


def best_by_target(candidates: Sequence[Candidate]) -> dict[int, Candidate]:
    """The best candidate of each target."""
    best: dict[int, Candidate] = {}
    for candidate in sorted(candidates, key=lambda c: -c.score):
        if candidate.target is not None:
            best.setdefault(candidate.target, candidate)
    return best


def choose_arms(
    class_count: int, candidates: Sequence[Candidate], others: int, purpose: Purpose, generator: torch.Generator
) -> list[Arm]:
    """The best candidate of each target, and at most `others` of the remaining classes, drawn by the generator."""
    best = best_by_target(candidates)
    arms = [Arm(target, "candidate", c.layer, c.channel) for target, c in best.items()]
    rest = [target for target in range(class_count) if target not in best]
    order = torch.randperm(len(rest), generator=generator).tolist()
    return arms + [Arm(rest[i], purpose) for i in sorted(order[: max(0, others)])]


@dataclass(frozen=True)
class Parts:
    """The images that triggers are made on, and the others, that tell whether they work."""

    made_on: Samples  # labels as known or, without any, as the network sees them
    held_out: Samples

    def in_views(self, count: int) -> Parts:
        """The images to make triggers on as often as it takes to have `count` of them; each time seen another way."""
        return replace(self, made_on=several(self.made_on, count)) if count else self

    def at_most(self, count: int) -> Parts:
        """No more than `count` images to make triggers on, the classes in turn."""
        kept = spread(self.labels.cpu().numpy(), len(self.made_on), count)
        return replace(self, made_on=self.made_on.subset(torch.from_numpy(kept)))

    @property
    def labels(self) -> torch.Tensor:
        """Of the images that triggers are made on."""
        assert self.made_on.labels is not None
        return self.made_on.labels

    def eligible(self, arms: Sequence[Arm]) -> torch.Tensor:
        """Which images each arm is made on: those not of its class; of its source, where it has one. Bool."""
        labels = self.labels
        rows = [labels != arm.target if arm.source is None else labels == arm.source for arm in arms]
        return torch.stack(rows)

    def sources(self) -> list[int]:
        """The classes that both parts have images of."""
        tested = self.held_out.test if self.held_out.test is not None else self.held_out
        known = set(self.labels.tolist())
        return sorted(known if tested.labels is None else known & set(tested.labels.tolist()))


def divide(samples: Samples, network: Network, share: float, test_images: int, backend: Backend) -> Parts:
    """Split the images in two, each class in proportion; unlabelled ones get the class the network gives them.

    Where there is a test part, success is measured on that, on `test_images` of it at most.
    """
    if len(samples) < 2:
        raise AgnesError(
            f"{samples.source}: {len(samples)} image is too few to make a trigger and test it on another; "
            "give one per class"
        )
    if samples.labels is None:
        samples = replace(samples, labels=measuring.predictions(network, samples.images, backend))
    if samples.test is not None and len(samples.test) > test_images:
        draw = backend.generator("inversion test images", device="cpu")
        few = torch.randperm(len(samples.test), generator=draw)[:test_images].sort().values
        samples = replace(samples, test=samples.test.subset(few))
    made_on, held_out = samples.split(share, backend.generator("inversion split", device="cpu"))
    return Parts(made_on, held_out)
