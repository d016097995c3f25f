"""Tao et al.'s inversion: two tanh-squashed patterns, added and subtracted, no mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from agnes.differentiating import Logits, logits_of, quick
from agnes.errors import AgnesError, OutOfTime, UsageError
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.results import Candidate, Noted, Trigger
from agnes.text import counted
from agnes_inversion.arms import Arm, Parts, choose_arms, divide
from agnes_inversion.boxes import best_boxes
from agnes_inversion.forms import Additive
from agnes_inversion.goals import ToClass
from agnes_inversion.hunting import Hunt
from agnes_inversion.search import Schedule

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network
    from agnes.samples import Samples

_START = -3.0  # before tanh: 0.0025 of full brightness
_SQUARE = 1.5  # before tanh: 0.95 of full brightness
_PROBING = 0.2  # share of the time left


@dataclass(frozen=True)
class TaoInversion(Method):
    """Reconstruct the smallest additive pattern that sends benign images to a class, for all classes at once."""

    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})
    paper: ClassVar[str] = "Tao et al., Better Trigger Inversion Optimization in Backdoor Scanning, CVPR 2022"
    preference: ClassVar[int] = 10

    pairs: bool = False  # a trigger for each source and target, for label-specific backdoors (ABS, appendix D)
    classes: Literal["all", "candidates"] = "all"  # every class, or those that candidates point to and a few others
    null_classes: int = 60  # with classes=candidates: so many others at most, for comparison
    share: float = 0.7  # of the images, to make triggers on; the rest tests them (ABS, section 5.1: 0.3)
    views: int = 24  # images at least, by moving, turning and lighting those there are; 0: as they are (ours)
    test_images: int = 500  # at most so many of the test part, where there is one, to measure success on
    steps: int = 150  # of the optimisation (Tao: 1000, with a weight that moves half as fast)
    warm_up: int = 40  # steps for every class, before those with the largest triggers may stop (K-Arm)
    keep: float = 0.6  # share of classes that go on from there, candidates first; less saves time and costs certainty
    restarts: int = 1  # from random patterns; the smallest trigger is kept
    probe: int = 4  # images on which squares of one colour are tried for a further start, 0: none (ours)
    batch: int = 8  # images an arm sees in one step (Tao: 32); every tenth step all of them decide what is kept
    rate: float = 0.1  # Adam's learning rate (Tao)
    weight: float = 1e-2  # of the size, to begin with (Tao: 1e-3)
    success: float = 0.99  # share of images to reach the target before a smaller trigger is tried (Neural Cleanse)
    confidence: float = 0.99  # how sure the network must be for an image to count as sent there; ours, for other images
    patience: int = 5  # steps in a row before the weight changes (Tao: 10)

    def __post_init__(self) -> None:
        for name in ("steps", "restarts", "batch", "patience", "test_images"):
            if getattr(self, name) < 1:
                raise UsageError(f"tao-inversion.{name} is {getattr(self, name)}; give 1 or more")
        for name in ("views", "probe"):
            if getattr(self, name) < 0:
                raise UsageError(f"tao-inversion.{name} is {getattr(self, name)}; give 0 or more")
        if not 0 < self.share < 1:
            raise UsageError(f"tao-inversion.share is {self.share:g}; give a share between 0 and 1")

    def suits(self, network: Network) -> str | None:
        return "it needs nothing but gradients and compares all classes"

    @hookimpl
    def invert(
        self, network: Network, samples: Samples, candidates: Sequence[Candidate], backend: Backend
    ) -> Sequence[Trigger]:
        parts = divide(samples, network, self.share, self.test_images, backend).in_views(self.views)
        arms = self._arms(network, parts, candidates, backend)
        logits = logits_of(quick(network))
        starts = [
            additive_start(network, len(arms), f"inversion start{restart or ''}", backend)
            for restart in range(self.restarts)
        ]
        starts += self._probed(network, logits, parts, arms, backend)
        found = self._hunt(network, logits, parts).triggers(arms, starts, backend)
        left = len(arms) - len(found)
        return Noted(found, (f"{counted(left, 'pair')} stopped early, without a trigger that works",) if left else ())

    def _arms(self, network: Network, parts: Parts, candidates: Sequence[Candidate], backend: Backend) -> list[Arm]:
        everything = self.classes == "all"
        if not everything and all(c.target is None for c in candidates):
            raise AgnesError("tao-inversion has no candidate with a target class; scan with tao-inversion.classes=all")
        draw = backend.generator("inversion classes", device="cpu")
        purpose = "scan" if everything else "null"
        others = network.class_count if everything else self.null_classes
        arms = choose_arms(network.class_count, candidates, others, purpose, draw)
        return self._in_pairs(network, parts, arms) if self.pairs else arms

    def _in_pairs(self, network: Network, parts: Parts, arms: Sequence[Arm]) -> list[Arm]:
        """Each arm once for every source that there are images of, to make triggers on and to test them."""
        sources = parts.sources()
        if not sources:
            raise AgnesError(
                f"{parts.made_on.source}: no class has two images, one to make a trigger on and one to test it; "
                "tao-inversion.pairs needs several of each"
            )
        return [replace(arm, source=source) for arm in arms for source in sources if source != arm.target]

    def _probed(
        self, network: Network, logits: Logits, parts: Parts, arms: Sequence[Arm], backend: Backend
    ) -> list[torch.Tensor]:
        """A start for each arm at the square that leads most images to its class; none where time is short."""
        if not self.probe:
            return []
        chosen = self._probe_images(parts, backend).to(parts.labels.device)
        images, eligible = parts.made_on.images[chosen], parts.eligible(arms)[:, chosen]
        targets = torch.tensor([arm.target for arm in arms], device=images.device)
        try:
            best = best_boxes(logits, images, targets, eligible, backend.within(_PROBING * backend.remaining()))
        except OutOfTime:
            return []
        patterns = torch.stack([square.pattern(network.input_shape) for square in best]).to(images)
        brighter = torch.where(patterns > 0, _SQUARE, _START)
        darker = torch.where(patterns < 0, _SQUARE, _START)
        return [torch.stack([brighter, darker], 1).to(images)]

    def _probe_images(self, parts: Parts, backend: Backend) -> torch.Tensor:
        """`probe` images; in pairs, one of every class."""
        draw = backend.generator("inversion probe", device="cpu")
        order = torch.randperm(len(parts.made_on), generator=draw)
        if not self.pairs:
            return order[: self.probe]
        labels = parts.labels.cpu()[order]
        return torch.stack([order[(labels == label).nonzero()[0, 0]] for label in labels.unique()])

    def _hunt(self, network: Network, logits: Logits, parts: Parts) -> Hunt:
        def goal(arms: Sequence[Arm]) -> ToClass:
            return ToClass(logits, torch.tensor([arm.target for arm in arms], device=network.device))

        less = 2 if self.pairs else 1  # there are many, and most stop after the warm-up
        batch, warm_up = max(1, self.batch // less), max(1, self.warm_up // less)
        return Hunt(network, logits, parts, Additive(), goal, self._schedule(), batch, warm_up, self.keep)

    def _schedule(self) -> Schedule:
        return Schedule(
            steps=self.steps,
            rate=self.rate,
            betas=(0.5, 0.9),  # Tao
            weight=self.weight,
            success=self.success,
            confidence=self.confidence,
            patience=self.patience,
            raise_by=1.5,  # Tao
            lower_by=1.5**1.5,  # Tao
            setbacks=3,
            hopeless_after=self.steps // 2,
            check=10,
            vary=self.views > 0,
        )


def additive_start(network: Network, arms: int, purpose: str, backend: Backend) -> torch.Tensor:
    """Random patterns near zero."""
    return _START - backend.normal(arms, 2, *network.input_shape, purpose=purpose).abs()
