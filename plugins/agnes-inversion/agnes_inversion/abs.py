"""ABS's inversion: triggers that excite one neuron and leave the others of its layer alone (ABS, section 4.3-4.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from agnes.differentiating import logits_of, quick
from agnes.errors import OutOfTime, UsageError
from agnes.features import identity
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.nulls import told
from agnes.results import Candidate, Noted, Trigger
from agnes_inversion.arms import Arm, Parts, divide
from agnes_inversion.forms import Form, Masked, Mixed
from agnes_inversion.goals import Neurons
from agnes_inversion.hunting import Hunt
from agnes_inversion.neurons import candidate_arms, random_arms
from agnes_inversion.search import Schedule

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network
    from agnes.samples import Samples

_NULL_AT_ONCE = 25  # random neurons; a group that time runs out on is left out of the comparison
_MADE_ON = 100  # images at most, whose benign values are kept


@dataclass(frozen=True)
class NeuronInversion(Method):
    """What both of ABS's inversions share: arms are neurons, and random ones are compared with."""

    needs: ClassVar[frozenset[str]] = frozenset({"gradients", "candidates"})
    paper: ClassVar[str] = "Liu et al., ABS, CCS 2019"
    preference: ClassVar[int] = 1

    candidates: int = 10  # so many of the best are tried (ABS, section 5.1)
    neurons: Literal["one", "all"] = "one"  # all: those of a class are excited together (ABS, appendix F)
    null: int = 100  # random neurons to compare with, fewer where time is short (ABS, section 5.1)
    share: float = 0.3  # of the images, to make triggers on; the rest tests them (ABS, section 5.1)
    test_images: int = 500  # at most so many of the test part, where there is one, to measure success on
    steps: int = 200  # of the optimisation
    restarts: int = 2  # from random starts; after a third of the steps the better one goes on
    batch: int = 16  # images an arm sees in one step
    rate: float = 0.1  # Adam's learning rate
    neuron: float = 1.0  # w2: weight of the neuron's activation
    others: float = 1e-4  # w1: weight of the change of the others in its layer
    logit: float = 1.0  # weight of the target's logit, as in the authors' later code; the paper has none (0)
    success: float = 0.95  # share of images to reach the target before a smaller trigger is tried (ours)

    def __post_init__(self) -> None:
        for name in ("candidates", "test_images", "steps", "restarts", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"{self._name}.{name} is {getattr(self, name)}; give 1 or more")
        for name in ("null", "others"):
            if getattr(self, name) < 0:
                raise UsageError(f"{self._name}.{name} is {getattr(self, name)}; give 0 or more")
        if not 0 < self.share < 1:
            raise UsageError(f"{self._name}.share is {self.share:g}; give a share between 0 and 1")

    _name: ClassVar[str] = ""
    _weight: ClassVar[str] = ""  # the setting that weighs the size

    def form(self, network: Network) -> Form:
        """What a trigger looks like."""
        raise NotImplementedError

    def start(self, network: Network, arms: int, restart: int, parts: Parts, backend: Backend) -> torch.Tensor:
        """Where each arm begins."""
        raise NotImplementedError

    @hookimpl
    def invert(
        self, network: Network, samples: Samples, candidates: Sequence[Candidate], backend: Backend
    ) -> Sequence[Trigger]:
        parts = divide(samples, network, self.share, self.test_images, backend).at_most(_MADE_ON)
        images = parts.made_on.images
        arms = candidate_arms(network, candidates, self.candidates, self.neurons == "all", images, backend)
        null = random_arms(network, arms, self.null, images, backend)
        hunt = self._hunt(network, parts, backend)
        found: list[Trigger] = []
        try:
            share = len(arms) / (len(arms) + len(null))
            found += self._searched(hunt, arms, backend, backend.within(backend.remaining() * max(share, 0.5)))
        except OutOfTime as error:
            found += error.partial if isinstance(error.partial, list) else []
        try:
            for start in range(0, len(null), _NULL_AT_ONCE):
                found += self._searched(hunt, null[start : start + _NULL_AT_ONCE], backend, backend, start)
            backend.check()
        except OutOfTime as error:
            error.partial = Noted(found, told(found))
            raise
        return Noted(found, told(found))

    def _searched(
        self, hunt: Hunt, arms: Sequence[Arm], seeds: Backend, backend: Backend, offset: int = 0
    ) -> list[Trigger]:
        starts = [
            self.start(hunt.network, len(arms), offset + restart, hunt.parts, seeds) for restart in range(self.restarts)
        ]
        return hunt.triggers(arms, starts, backend)

    def _hunt(self, network: Network, parts: Parts, backend: Backend) -> Hunt:
        fast = quick(network)

        def goal(arms: Sequence[Arm]) -> Neurons:
            return Neurons(
                fast, arms, parts.made_on.images, backend, others=self.others, neuron=self.neuron, logit=self.logit
            )

        return Hunt(
            network, logits_of(fast), parts, self.form(network), goal, self._schedule(), self.batch, self.steps // 3
        )

    def _schedule(self) -> Schedule:
        return Schedule(
            steps=self.steps,
            rate=self.rate,
            betas=(0.9, 0.999),
            weight=getattr(self, self._weight),
            success=self.success,
            confidence=0.0,
            patience=2,  # looks, five steps apart
            raise_by=1.5,
            lower_by=1.5**1.5,
            setbacks=3,
            hopeless_after=self.steps,
        )


@dataclass(frozen=True)
class AbsMask(NeuronInversion):
    """Reconstruct for each candidate neuron the patch that excites it, a mask and a pattern."""

    max_mask_size: float = 0.06  # share of the image, beyond which the mask costs dearly (ABS, appendix C)
    mask: float = 0.1  # w3: weight of the mask's size, to begin with; it follows success (ours)
    penalty: float = 10.0  # for each pixel beyond the largest mask

    _name: ClassVar[str] = "abs-mask"
    _weight: ClassVar[str] = "mask"

    def form(self, network: Network) -> Form:
        _, height, width = network.input_shape
        return Masked(self.max_mask_size * height * width, self.penalty)

    def start(self, network: Network, arms: int, restart: int, parts: Parts, backend: Backend) -> torch.Tensor:
        """A mask of noise, half as large as it may be; the first start shows the mean image (ABS: an image)."""
        channels, height, width = network.input_shape
        noise = backend.normal(arms, 1 + channels, height, width, purpose=f"abs start {restart}")
        level = torch.tensor(min(0.5, self.max_mask_size / 2))
        noise[:, :1] = noise[:, :1] / 2 + torch.atanh(2 * level - 1)
        if restart == 0:
            mean = parts.made_on.images.mean(0).clamp(0.01, 0.99)
            noise[:, 1:] = noise[:, 1:] / 10 + torch.atanh(2 * mean - 1)
        return noise


@dataclass(frozen=True)
class AbsFeature(NeuronInversion):
    """Reconstruct for each candidate neuron the filter that excites it, a mix of each pixel with those around it."""

    window: int = 3  # side of the window of the largest, the least and the mean pixel
    similarity: float = 1.0  # w4: weight of 1 - SSIM, to begin with; it follows success (ours)

    _name: ClassVar[str] = "abs-feature"
    _weight: ClassVar[str] = "similarity"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 1 or self.window % 2 == 0:
            raise UsageError(f"abs-feature.window is {self.window}; give an odd number")

    def form(self, network: Network) -> Form:
        return Mixed(self.window)

    def start(self, network: Network, arms: int, restart: int, parts: Parts, backend: Backend) -> torch.Tensor:
        """The filter that changes nothing, and a little noise."""
        mix = identity(network.input_shape[0])
        noise = backend.normal(arms, *mix.shape, purpose=f"abs start {restart}")
        return mix.to(noise) + noise / 20
