"""Neural Cleanse: for every class the smallest mask and pattern that still work. The baseline of the papers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from agnes.differentiating import logits_of, quick
from agnes.errors import UsageError
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.results import Candidate, Trigger
from agnes_inversion.arms import Arm, choose_arms, divide
from agnes_inversion.forms import Masked
from agnes_inversion.goals import ToClass
from agnes_inversion.hunting import Hunt
from agnes_inversion.search import Schedule

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network
    from agnes.samples import Samples


@dataclass(frozen=True)
class NeuralCleanse(Method):
    """Reconstruct for every class the smallest mask and pattern that send benign images there."""

    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})
    paper: ClassVar[str] = "Wang et al., Neural Cleanse, IEEE S&P 2019"
    preference: ClassVar[int] = 1

    share: float = 0.5  # of the images, to make triggers on; the rest tests them (ABS, section 5.1: 0.3)
    test_images: int = 500  # at most so many of the test part, where there is one, to measure success on
    steps: int = 1000  # of the optimisation (Neural Cleanse)
    restarts: int = 1  # from random masks and patterns; the smallest trigger is kept
    batch: int = 32  # images a class sees in one step (Neural Cleanse); every fifth step all decide what is kept
    rate: float = 0.1  # Adam's learning rate (Neural Cleanse)
    weight: float = 1e-3  # lambda, of the mask's size, from the first run of successes on (Neural Cleanse)
    multiplier: float = 1.5  # lambda rises by it and falls by its 1.5th power (Neural Cleanse)
    success: float = 0.99  # share of images to reach the target before a smaller trigger is tried (Neural Cleanse)
    patience: int = 5  # steps in a row before lambda changes (Neural Cleanse)

    def __post_init__(self) -> None:
        for name in ("steps", "restarts", "batch", "patience", "test_images"):
            if getattr(self, name) < 1:
                raise UsageError(f"neural-cleanse.{name} is {getattr(self, name)}; give 1 or more")
        if not 0 < self.share < 1:
            raise UsageError(f"neural-cleanse.share is {self.share:g}; give a share between 0 and 1")
        if not self.multiplier > 1:
            raise UsageError(f"neural-cleanse.multiplier is {self.multiplier:g}; give more than 1")

    @hookimpl
    def invert(
        self, network: Network, samples: Samples, candidates: Sequence[Candidate], backend: Backend
    ) -> Sequence[Trigger]:
        draw = backend.generator("inversion classes", device="cpu")
        arms = choose_arms(network.class_count, candidates, network.class_count, "scan", draw)
        parts = divide(samples, network, self.share, self.test_images, backend)
        logits = logits_of(quick(network))

        def goal(arms: Sequence[Arm]) -> ToClass:
            return ToClass(logits, torch.tensor([arm.target for arm in arms], device=network.device))

        warm_up = self.steps // 4 if self.restarts > 1 else 0
        hunt = Hunt(network, logits, parts, Masked(), goal, self._schedule(), self.batch, warm_up)
        starts = [random_masks(network, len(arms), restart, backend) for restart in range(self.restarts)]
        return hunt.triggers(arms, starts, backend)

    def _schedule(self) -> Schedule:
        return Schedule(
            steps=self.steps,
            rate=self.rate,
            betas=(0.5, 0.9),  # Neural Cleanse
            weight=self.weight,
            success=self.success,
            confidence=0.0,
            patience=self.patience,
            raise_by=self.multiplier,
            lower_by=self.multiplier**1.5,
            setbacks=3,
            hopeless_after=self.steps,
            from_zero=True,
        )


def random_masks(network: Network, arms: int, restart: int, backend: Backend) -> torch.Tensor:
    """Masks and patterns of uniform noise, before tanh."""
    channels, height, width = network.input_shape
    shape = (arms, 1 + channels, height, width)
    noise = torch.rand(*shape, generator=backend.generator("masks", restart, device="cpu")).to(backend.device)
    return torch.atanh((2 * noise - 1) * (1 - 1e-6))
