"""Unlearning: a short training on benign images, a fifth of them under the trigger with their true labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from agnes.hookspecs import hookimpl
from agnes_mitigation.persisting import Persistent
from agnes_mitigation.training import Regime, batches, stamped, tune
from agnes_mitigation.watching import Watch, divide, repaired

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.errors import OutOfTime
    from agnes.network import Network
    from agnes.results import Repair, Trigger
    from agnes.samples import Samples

WANTED = 10  # images a class


@dataclass(frozen=True)
class Unlearn(Persistent):
    """Teach the true labels of images under the trigger, for one pass over a small set of benign images."""

    needs: ClassVar[frozenset[str]] = frozenset({"triggers"})
    paper: ClassVar[str] = "Wang et al., Neural Cleanse, IEEE S&P 2019, section VI"
    preference: ClassVar[int] = 6

    share: float = 0.2  # of each batch under a trigger (Neural Cleanse)
    steps: int = 200  # however few the images (ours; Neural Cleanse's one pass over a tenth of GTSRB is about 110)
    rate: float = 0.03  # learning rate of SGD at the start; it falls to a hundredth (ours)
    momentum: float = 0.9  # of SGD (ours)
    longest: float = 1.0  # longer gradients are shortened to this norm (ours)
    max_accuracy_drop: float = 0.08  # on the held-out images; no state that loses more is kept (ours)

    def suits(self, network: Network) -> str | None:
        return "it needs a trigger and a few images, and trains a copy for a short while"

    @hookimpl
    def mitigate(self, network: Network, samples: Samples, triggers: Sequence[Trigger], backend: Backend) -> Repair:
        material = divide(network, samples, self.held_out, WANTED, backend)
        generator = backend.generator("unlearn", device="cpu")

        def stamp(images: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            which = torch.randint(len(triggers), (len(rows),), generator=generator)
            which[torch.rand(len(rows), generator=generator) >= self.share] = -1
            return stamped(images, triggers, which)

        lessons = batches(material, material.rows, self, network, generator, backend, stamp)
        copy = network.copy()
        watch = Watch(copy, material.held_out, triggers, self.max_accuracy_drop, backend, learnt=material.learnt)

        def train(rate: float) -> OutOfTime | None:
            regime = Regime(self.steps, rate, self.momentum, longest=self.longest)
            return tune(copy, lessons, regime, watch, backend, "unlearning")

        late, told = self.persistently(train, self.rate, watch)
        best, why = self.worth(network, copy, triggers, material, backend)
        return repaired(network, best, "trained on images under the trigger", (*material.notes, told), late, why=why)
