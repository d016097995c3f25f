"""Hardening: the network learns that no mark on an image changes its class, whether a trigger is known or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from agnes.hookspecs import hookimpl
from agnes_mitigation.marks import marked, varied
from agnes_mitigation.training import Regime, batches, stamped, tune
from agnes_mitigation.watching import Learner, Watch, divide, repaired

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network
    from agnes.results import Repair, Trigger
    from agnes.samples import Samples


@dataclass(frozen=True)
class Withstand(Learner):
    """Teach true labels of images under the triggers that are known or, where none is, under random marks."""

    paper: ClassVar[str] = (
        "ours; after Borgnia et al., Strong Data Augmentation Sanitizes Poisoning and Backdoor Attacks Without an "
        "Accuracy Tradeoff, ICASSP 2021"
    )
    preference: ClassVar[int] = 12
    wants_images: ClassVar[int] = 10

    batch: int = 64  # images a step (ours)
    teacher: float = 0.6  # weight of the network's own answer to the image before it is marked beside its label (ours)
    held_out: float = 0.1  # share of the images that is not learnt from and decides which state is kept (ours)
    share: float = 0.5  # of each batch under random marks, where no trigger is known (ours)
    known: float = 0.25  # of each batch under triggers in place of these, where some are known (ours)
    mixed: float = 0.25  # of each batch laid over another image, where a trigger is known (ours)
    steps: int = 300  # of training (ours)
    rate: float = 0.05  # learning rate of SGD at the start; it falls to a hundredth (ours)
    gentle: float = 0.03  # the same where a trigger is known (ours)
    momentum: float = 0.9  # of SGD (ours)
    longest: float = 1.0  # longer gradients are shortened to this norm (ours)
    max_accuracy_drop: float = 0.25  # on the held-out images; no state that loses more is kept (ours)

    def suits(self, network: Network) -> str | None:
        return "it needs no trigger, makes use of one, and trains a copy on labelled images"

    @hookimpl
    def mitigate(self, network: Network, samples: Samples, triggers: Sequence[Trigger], backend: Backend) -> Repair:
        material = divide(network, samples, self.held_out, self.wants_images, backend)
        generator = backend.generator("withstand", device="cpu")

        def stamp(images: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
            chance = torch.rand(len(images), generator=generator)
            if not triggers:
                found, under = images.clone(), (chance < self.share).to(images.device)
                if under.any():
                    found[under] = marked(images[under], generator)
                return found
            which = torch.randint(len(triggers), (len(images),), generator=generator)
            which[chance >= self.known] = -1
            return varied(images, stamped(images, triggers, which), generator)

        rate, mixed = (self.gentle, self.mixed) if triggers else (self.rate, 0.0)
        lessons = batches(material, material.rows, self, network, generator, backend, stamp, mixed)
        copy = network.copy()
        watch = Watch(copy, material.held_out, triggers, self.max_accuracy_drop, backend, learnt=material.learnt)
        regime = Regime(self.steps, rate, self.momentum, longest=self.longest)
        late = tune(copy, lessons, regime, watch, backend, "hardening")
        return repaired(network, copy, "trained on images under marks", material.notes, late)
