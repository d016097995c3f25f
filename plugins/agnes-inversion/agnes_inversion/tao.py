"""Tao et al.'s inversion: two tanh-squashed patterns, added and subtracted, no mask."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from agnes import measuring
from agnes.errors import AgnesError, OutOfTime, UsageError
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.results import AdditiveTrigger, Candidate, Trigger
from agnes_inversion.arms import Arm, Parts, choose_arms, divide
from agnes_inversion.probing import best_squares
from agnes_inversion.search import Found, Schedule, Search

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network
    from agnes.samples import Samples

Logits = Callable[[torch.Tensor], torch.Tensor]

_START = -3.0  # before tanh: 0.0025 of full brightness
_SQUARE = 1.5  # before tanh: 0.95 of full brightness
_PROBING = 0.2  # share of the time left
_FEWEST = 8  # arms below which none is stopped early


@dataclass(frozen=True)
class TaoInversion(Method):
    """Reconstruct the smallest additive pattern that sends benign images to a class, for all classes at once."""

    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})
    paper: ClassVar[str] = "Tao et al., Better Trigger Inversion Optimization in Backdoor Scanning, CVPR 2022"
    preference: ClassVar[int] = 10

    classes: Literal["all", "candidates"] = "all"  # every class, or those that candidates point to and a few others
    null_classes: int = 60  # with classes=candidates: so many others at most, for comparison
    share: float = 0.5  # of the images, to make triggers on; the rest tests them (ABS, section 5.1: 0.3)
    test_images: int = 500  # at most so many of the test part, where there is one, to measure success on
    steps: int = 300  # of the optimisation (Tao: 1000, with a weight that moves half as fast)
    warm_up: int = 100  # steps for every class, before those with the largest triggers may stop (K-Arm)
    keep: float = 1.0  # share of classes that go on from there, candidates first; less saves time and costs certainty
    restarts: int = 1  # from random patterns; the smallest trigger is kept
    probe: int = 8  # images on which squares of one colour are tried for a further start, 0: none (ours)
    batch: int = 8  # images an arm sees in one step (Tao: 32); every fifth step all of them decide what is kept
    rate: float = 0.1  # Adam's learning rate (Tao)
    weight: float = 1e-2  # of the size, to begin with (Tao: 1e-3)
    success: float = 0.99  # share of images to reach the target before a smaller trigger is tried (Neural Cleanse)
    confidence: float = 0.99  # how sure the network must be for an image to count as sent there; ours, for other images
    patience: int = 5  # steps in a row before the weight changes (Tao: 10)

    def __post_init__(self) -> None:
        for name in ("steps", "restarts", "batch", "patience", "test_images"):
            if getattr(self, name) < 1:
                raise UsageError(f"tao-inversion.{name} is {getattr(self, name)}; give 1 or more")
        if not 0 < self.share < 1:
            raise UsageError(f"tao-inversion.share is {self.share:g}; give a share between 0 and 1")

    def suits(self, network: Network) -> str | None:
        return "it needs nothing but gradients and compares all classes"

    @hookimpl
    def invert(
        self, network: Network, samples: Samples, candidates: Sequence[Candidate], backend: Backend
    ) -> Sequence[Trigger]:
        classes = self._arms(network, candidates, backend)
        parts = divide(samples, network, self.share, self.test_images, backend)
        logits = _logits(network)
        probed = self._probed(network, logits, parts, classes, backend)
        arms = classes * (self.restarts + len(probed))
        search = self._search(logits, parts, arms, backend)
        start = self._start(network, len(classes) * self.restarts, backend)
        try:
            found = search.run(torch.cat([start, *probed]))
        except OutOfTime as error:
            if isinstance(error.partial, Found):
                error.partial = self._triggers(network, parts, arms, error.partial, backend)
            raise
        return self._triggers(network, parts, arms, found, backend)

    def _arms(self, network: Network, candidates: Sequence[Candidate], backend: Backend) -> list[Arm]:
        everything = self.classes == "all"
        if not everything and all(c.target is None for c in candidates):
            raise AgnesError("tao-inversion has no candidate with a target class; scan with tao-inversion.classes=all")
        draw = backend.generator("inversion classes", device="cpu")
        purpose = "scan" if everything else "null"
        others = network.class_count if everything else self.null_classes
        return choose_arms(network.class_count, candidates, others, purpose, draw)

    def _probed(
        self, network: Network, logits: Logits, parts: Parts, arms: Sequence[Arm], backend: Backend
    ) -> list[torch.Tensor]:
        """A start for each arm at the square that leads most images to its class; none where time is short."""
        if not self.probe:
            return []
        draw = backend.generator("inversion probe", device="cpu")
        chosen = torch.randperm(len(parts.made_on), generator=draw)[: self.probe]
        images = parts.made_on.images[chosen.to(parts.made_on.images.device)]
        assert parts.made_on.labels is not None
        labels = parts.made_on.labels[chosen.to(parts.made_on.labels.device)].to(images.device)
        try:
            squares = best_squares(
                logits, images, labels, network.class_count, backend.within(_PROBING * backend.remaining())
            )
        except OutOfTime:
            return []
        patterns = torch.stack([squares[arm.target].pattern(network.input_shape) for arm in arms]).to(images)
        brighter = torch.where(patterns > 0, _SQUARE, _START)
        darker = torch.where(patterns < 0, _SQUARE, _START)
        return [torch.stack([brighter, darker], 1).to(images)]

    def _search(self, logits: Logits, parts: Parts, arms: Sequence[Arm], backend: Backend) -> Search:
        targets = torch.tensor([arm.target for arm in arms], device=backend.device)
        return Search(
            logits,
            parts.made_on.images,
            targets,
            parts.eligible(targets),
            self._schedule(),
            backend,
            self.batch,
            self._drop(arms),
        )

    def _drop(self, arms: Sequence[Arm]) -> Callable[[int, Found], torch.Tensor]:
        """Which arms stop after the warm-up: of each class all but the best, and classes with the largest triggers.

        These stay in the comparison at the size they had. More than half go on, so the median is that of arms that ran
        to the end, and sizes left too large above it can only widen the spread: no class looks smaller for it.
        """
        pointed_to = torch.tensor([arm.purpose == "candidate" for arm in arms])

        def drop(step: int, found: Found) -> torch.Tensor:
            stopped = torch.zeros(len(arms), dtype=torch.bool)
            if step == self.warm_up:
                best = torch.tensor(list(_best_starts(arms, found).values()))
                stopped[:] = True
                stopped[best] = False
                going_on = max(_FEWEST, math.ceil(max(self.keep, 0.6) * len(best)))
                sizes = found.sizes.cpu().masked_fill(pointed_to, 0)[best]
                stopped[best[sizes.argsort(stable=True)[going_on:]]] = True
            return stopped.to(found.sizes.device)

        return drop

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
        )

    def _start(self, network: Network, arms: int, backend: Backend) -> torch.Tensor:
        """Random patterns near zero."""
        return _START - backend.normal(arms, 2, *network.input_shape, purpose="inversion start").abs()

    def _triggers(
        self, network: Network, parts: Parts, arms: Sequence[Arm], found: Found, backend: Backend
    ) -> list[Trigger]:
        """The best restart of each arm, measured on the images it was not made on."""
        measuring_backend = replace(backend, deadline=None)  # what was found in time is worth measuring
        patterns = found.patterns.masked_fill(found.patterns.abs() < 1 / 255, 0)
        triggers: list[Trigger] = []
        for index in _best_starts(arms, found).values():
            if found.success[index] < 0:
                continue
            arm = arms[index]
            trigger = AdditiveTrigger(
                target=arm.target,
                asr=0.0,
                held_out=0,
                purpose=arm.purpose,
                layer=arm.layer,
                channel=arm.channel,
                delta=patterns[index].clone(),
            )
            asr, count = measuring.attack_success(network, trigger, parts.held_out, measuring_backend)
            triggers.append(replace(trigger, asr=asr, held_out=count))
        return triggers


def _logits(network: Network) -> Logits:
    """The network as a function that is quick to differentiate: normalisation folded, channels last."""
    layout = torch.channels_last
    module = network.fold_batch_norm().module.to(memory_format=layout)  # type: ignore[call-overload]  # our own copy
    return lambda images: module(images.contiguous(memory_format=layout))


def _best_starts(arms: Sequence[Arm], found: Found) -> dict[int, int]:
    """For each class, which of its arms has found most."""
    best: dict[int, int] = {}
    for index, arm in enumerate(arms):
        if arm.target not in best or found.better(index, best[arm.target]):
            best[arm.target] = index
    return best
