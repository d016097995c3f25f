"""Fine-tuning on benign images, with steps that look for flat places or plain ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from agnes.hookspecs import hookimpl
from agnes_mitigation.persisting import Persistent
from agnes_mitigation.training import Regime, batches, tune
from agnes_mitigation.watching import Watch, divide, repaired

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.errors import OutOfTime
    from agnes.network import Network
    from agnes.results import Repair, Trigger
    from agnes.samples import Samples

WANTED = 10  # images a class


@dataclass(frozen=True)
class FtSam(Persistent):
    """Fine-tune on benign images with sharpness-aware steps, which move the weights a backdoor rests on."""

    paper: ClassVar[str] = (
        "Zhu et al., Enhancing Fine-Tuning Based Backdoor Defense with Sharpness-Aware Minimization, ICCV 2023"
    )
    preference: ClassVar[int] = 2

    rho: float = 2.0  # radius of the perturbation, in each weight's own size (FT-SAM); 0: plain fine-tuning
    steps: int = 300  # (ours; FT-SAM: passes over a twentieth of the training data)
    rate: float = 0.05  # learning rate of SGD at the start; it falls to a hundredth (ours; FT-SAM: 0.01)
    momentum: float = 0.9  # of SGD (FT-SAM)
    weight_decay: float = 5e-4  # (FT-SAM)
    longest: float = 1.0  # longer gradients are shortened to this norm (ours: BatchNorm's statistics stand still)
    max_accuracy_drop: float = 0.05  # on the held-out images; no state that loses more is kept (ours)

    @hookimpl
    def mitigate(self, network: Network, samples: Samples, triggers: Sequence[Trigger], backend: Backend) -> Repair:
        material = divide(network, samples, self.held_out, WANTED, backend)
        generator = backend.generator("ft-sam", device="cpu")
        lessons = batches(material, material.rows, self, network, generator, backend)
        copy = network.copy()
        known = [trigger for trigger in triggers if trigger.convicts]
        watch = Watch(copy, material.held_out, known, self.max_accuracy_drop, backend, learnt=material.learnt)

        def train(rate: float) -> OutOfTime | None:
            regime = Regime(self.steps, rate, self.momentum, self.weight_decay, self.rho, self.longest)
            return tune(copy, lessons, regime, watch, backend, "fine-tuning")

        late, told = self.persistently(train, self.rate, watch)
        best, why = self.worth(network, copy, known, material, backend)
        return repaired(network, best, "fine-tuned on benign images", (*material.notes, told), late, why=why)
