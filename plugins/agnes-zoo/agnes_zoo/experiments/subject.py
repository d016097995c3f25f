"""One network under measurement, with its images and the truth about it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from agnes import measuring
from agnes.api import open_network
from agnes.backend import Backend
from agnes.inverting import inverted
from agnes.network import Network
from agnes.results import Trigger
from agnes.samples import Samples
from agnes_zoo.attacks import Attack, from_description, success
from agnes_zoo.dealing import Dealt, Images, deal
from agnes_zoo.experiments.store import Store
from agnes_zoo.making import Plan
from agnes_zoo.training import Watch, as_tensors


@dataclass(frozen=True, kw_only=True)
class TrueTrigger(Trigger):
    """What was put into the network, for experiments alone."""

    attack: Attack = field(compare=False, repr=False)
    shape: tuple[int, int, int] = (3, 32, 32)  # of the images it is for

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        return self.attack.stamp(images)

    def change(self) -> torch.Tensor:
        grey = torch.full((1, *self.shape), 0.5)
        return (self.apply(grey) - grey).abs().amax(1)[0]


@dataclass(frozen=True)
class Subject:
    """A network, and all that is known of it."""

    plan: Plan
    file: Path
    truth: Mapping[str, Any]
    store: Store
    backend: Backend

    @classmethod
    def of(cls, plan: Plan, store: Store, backend: Backend, watch: Watch | None = None) -> Subject:
        """Trained now if need be."""
        file, truth = store.network(plan, watch)
        return cls(plan, file, truth, store, backend)

    def clock(self) -> float:
        """Seconds of this process, which no other work on the machine lengthens; on a GPU, of the clock."""
        return time.process_time() if self.backend.device.type == "cpu" else time.monotonic()

    @cached_property
    def network(self) -> Network:
        return open_network(self.file).to(self.backend.device)

    @cached_property
    def found(self) -> dict[str, Any]:
        """Searches of this network that were run already, for several measurements."""
        return {}

    @cached_property
    def dealt(self) -> Dealt:
        return deal(self.plan.data)

    @cached_property
    def samples(self) -> Samples:
        """What a scan is given: few images of each class, and a test part."""
        return _samples(self.dealt.samples, self.dealt).with_test(self.benign)

    @cached_property
    def benign(self) -> Samples:
        """More images of each class, which no training has seen: for repairs."""
        return _samples(self.dealt.test, self.dealt)

    @cached_property
    def training(self) -> Samples:
        """The clean images it was trained on."""
        return _samples(self.dealt.train, self.dealt)

    @cached_property
    def held_out(self) -> Samples:
        """For the truth alone."""
        return _samples(self.dealt.held_out, self.dealt)

    @cached_property
    def inverted(self) -> Samples:
        """Images made from the network, one for each class, in the place of benign ones (ABS, section 5.4)."""
        return inverted(self.network, self.backend)

    @cached_property
    def attack(self) -> Attack | None:
        said = self.truth["true_attack"]
        return None if said is None else from_description(said)

    @property
    def target(self) -> int | None:
        return None if self.attack is None else self.attack.target

    @cached_property
    def true_trigger(self) -> TrueTrigger | None:
        if self.attack is None or self.attack.target is None:
            return None
        return TrueTrigger(
            target=self.attack.target,
            asr=self.truth["asr"],
            held_out=len(self.held_out),
            attack=self.attack,
            shape=self.network.input_shape,
        )

    def accuracy(self, network: Network) -> float:
        """On images held out."""
        return measuring.accuracy(network, self.held_out, self.backend)[0] or 0.0

    def true_success(self, network: Network) -> float | None:
        """Of the true attack, on images held out."""
        if self.attack is None:
            return None
        images, labels = self.held_out.images, self.held_out.labels
        assert labels is not None
        stamped = self.attack.stamp(images, labels)
        return success(measuring.predictions(network, stamped, self.backend).cpu(), labels, self.attack)

    def success(self, network: Network, trigger: Trigger) -> float:
        """Of a reconstructed trigger, on images held out."""
        return measuring.attack_success(network, trigger, self.held_out, self.backend)[0]


def _samples(images: Images, dealt: Dealt) -> Samples:
    return Samples(*as_tensors(*images), class_names=dealt.class_names)
