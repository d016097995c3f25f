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
    """Teach true labels of images under random marks and, where triggers are known, under these."""

    paper: ClassVar[str] = (
        "ours; after Borgnia et al., Strong Data Augmentation Sanitizes Poisoning and Backdoor Attacks Without an "
        "Accuracy Tradeoff, ICASSP 2021"
    )
    preference: ClassVar[int] = 12
    wants_images: ClassVar[int] = 10

    batch: int = 64  # images a step (ours)
    teacher: float = 0.6  # weight of the network's own answer to the image before it is marked beside its label (ours)
    held_out: float = 0.1  # share of the images that is not learnt from and decides which state is kept (ours)
    share: float = 0.5  # of each batch under a mark or a trigger (ours)
    known: float = 0.5  # of these under a trigger, where there is one (ours)
    convicted: float = 1.0  # the same where a trigger convicts (ours)
    mixed: float = 0.25  # of each batch laid over another image, where a trigger convicts (ours)
    steps: int = 150  # of training (ours)
    rate: float = 0.05  # learning rate of SGD at the start; it falls to a hundredth (ours)
    gentle: float = 0.03  # the same where a trigger convicts (ours)
    momentum: float = 0.9  # of SGD (ours)
    longest: float = 1.0  # longer gradients are shortened to this norm (ours)
    max_accuracy_drop: float = 0.25  # on the held-out images; no state that loses more is kept (ours)

    def suits(self, network: Network) -> str | None:
        return "it needs no trigger, makes use of one, and trains a copy on labelled images"

    @hookimpl
    def mitigate(self, network: Network, samples: Samples, triggers: Sequence[Trigger], backend: Backend) -> Repair:
        material = divide(network, samples, self.held_out, self.wants_images, backend)
        generator = backend.generator("withstand", device="cpu")

        convicting = any(trigger.convicts for trigger in triggers)
        known = (self.convicted if convicting else self.known) if triggers else 0.0

        def stamp(images: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
            chance = torch.rand(len(images), generator=generator)
            which = torch.randint(max(1, len(triggers)), (len(images),), generator=generator)
            which[chance >= self.share * known] = -1
            others = ((which < 0) & (chance < self.share)).to(images.device)
            found = varied(images, stamped(images, triggers, which), generator)
            if others.any():
                found[others] = marked(images[others], generator)
            return found

        mixed = self.mixed if convicting else 0.0
        lessons = batches(material, material.rows, self, network, generator, backend, stamp, mixed)
        copy = network.copy()
        watch = Watch(copy, material.held_out, triggers, self.max_accuracy_drop, backend, learnt=material.learnt)
        rate = self.gentle if convicting else self.rate
        regime = Regime(self.steps, rate, self.momentum, longest=self.longest)
        late = tune(copy, lessons, regime, watch, backend, "hardening")
        return repaired(network, copy, "trained on images under marks", material.notes, late)
