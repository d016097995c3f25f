"""One network of known truth: from a plan of plain values to a trained module and what is true of it."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from agnes.errors import UsageError
from agnes.registry import Registry
from agnes_zoo.checkpoints import Checkpoint
from agnes_zoo.dealing import DataPlan, Dealt, Images, deal
from agnes_zoo.measuring import accuracy, attack_success
from agnes_zoo.training import Regime, Training, Watch, as_tensors, initialised

if TYPE_CHECKING:
    from agnes_zoo.attacks import Attack

ANY = "any"  # a target or a source that the seed draws


@dataclass(frozen=True)
class Plan:
    """Everything that one network depends on."""

    arch: str
    data: DataPlan
    regime: Regime = field(default_factory=Regime)  # its seed is the network's
    attack: str | None = None  # None: a clean network
    options: Mapping[str, Any] = field(default_factory=dict)  # of the attack

    @property
    def seed(self) -> int:
        return self.regime.seed

    def with_seed(self, seed: int) -> Plan:
        return replace(self, regime=replace(self.regime, seed=seed))

    def as_json(self) -> dict[str, Any]:
        return {
            "arch": self.arch,
            "data": asdict(self.data),
            "training": asdict(self.regime),
            "attack": self.attack,
            "options": json.loads(json.dumps(dict(self.options))),
        }

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Plan:
        """From what as_json() gave."""
        return cls(said["arch"], DataPlan(**said["data"]), Regime(**said["training"]), said["attack"], said["options"])

    @property
    def digest(self) -> str:
        """What this plan is known by."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Made:
    """A trained network and the truth about it."""

    module: nn.Module
    truth: dict[str, Any]  # plain values, for a manifest


def architecture(name: str) -> Callable[[int], nn.Module]:
    """What makes networks of this name, from whichever plugin brings it."""
    return Registry.discover().named(name, ("architecture",)).load()


def make(
    plan: Plan, *, work: Path | None = None, watch: Watch | None = None, device: torch.device | str = "cpu"
) -> Made:
    """Train the network; with a folder to work in, an interrupted one goes on where it was."""
    started = time.monotonic()
    maker = _Maker(plan, deal(plan.data), work, watch or Watch(), torch.device(device))
    module = maker.module()
    truth = {**_truth(plan, maker, module), "seconds": round(time.monotonic() - started, 1)}
    maker.tidy()
    return Made(module.cpu(), truth)


class _Maker:
    """The making of one network."""

    def __init__(self, plan: Plan, dealt: Dealt, work: Path | None, watch: Watch, device: torch.device) -> None:
        self.plan, self.dealt, self.work, self.watch, self.device = plan, dealt, work, watch, device
        self.clean = _on(device, dealt.train)
        self.held_out = _on(device, dealt.held_out)
        self.attack: Attack | None = None
        self._clean_network: nn.Module | None = None
        self._checkpoints: list[Checkpoint] = []

    def module(self) -> nn.Module:
        """Trained as planned."""
        if self.plan.attack is None:
            return self._trained(self._blank(), *self.clean, None, "network")
        attack = attack_of(self.plan, len(self.dealt.class_names))
        attack = attack.prepare(self._trained_clean, *self.clean, self.plan.seed)
        start = copy.deepcopy(self._trained_clean()) if attack.fine_tunes else self._blank()
        images, labels = self.clean
        if not attack.dynamic:
            from agnes_zoo.attacks import poison

            images, labels = poison(images, labels, attack, np.random.default_rng((self.plan.seed, 1)))
        return self._trained(start, images, labels, attack, "network")

    def _trained_clean(self) -> nn.Module:
        """The same network trained on clean images, made once."""
        network = self._clean_network
        if network is None:
            network = self._clean_network = self._trained(self._blank(), *self.clean, None, "clean")
        return network

    def _blank(self) -> nn.Module:
        module = initialised(architecture(self.plan.arch), len(self.dealt.class_names), self.plan.seed)
        try:
            with torch.no_grad():
                module.eval()(torch.zeros(1, *self.dealt.shape))
        except RuntimeError as error:
            shape = "x".join(map(str, self.dealt.shape))
            raise UsageError(
                f"{self.plan.arch} takes no images of {shape}; choose other data or another --arch"
            ) from error
        return module.to(self.device)

    def _trained(
        self, module: nn.Module, images: torch.Tensor, labels: torch.Tensor, attack: Attack | None, what: str
    ) -> nn.Module:
        checkpoint = None
        if self.work is not None:
            checkpoint = Checkpoint(self.work / f"{what}.checkpoint", f"{what} {self.plan.digest}")
            self._checkpoints.append(checkpoint)
        training = Training(module, images, labels, self.plan.regime, attack, self.clean[0])
        training.run(self.watch, checkpoint)
        self.attack = training.attack
        return module

    def tidy(self) -> None:
        """Nothing is left to go on with."""
        for checkpoint in self._checkpoints:
            checkpoint.remove()


def _on(device: torch.device, images: Images) -> tuple[torch.Tensor, torch.Tensor]:
    pixels, labels = as_tensors(*images)
    return pixels.to(device), labels.to(device)


def attack_of(plan: Plan, classes: int) -> Attack:
    """The attack of a plan; what its options leave open follows from the plan's seed."""
    from agnes_zoo.attacks import find

    assert plan.attack is not None
    attack = find(plan.attack)(**{"classes": classes, "seed": plan.seed, **_drawn(plan, classes)})
    if attack.target is not None and not 0 <= attack.target < classes:
        raise UsageError(
            f"{plan.attack}: target {attack.target} is no class; the data has {classes}, from 0 on: set target to one"
        )
    return attack


def _drawn(plan: Plan, classes: int) -> dict[str, Any]:
    """The options, a target or source that may be any class drawn by the seed, the two never the same."""
    options = dict(plan.options)
    target, source = np.random.default_rng((plan.seed, 2)).permutation(classes)[:2].tolist()
    for name, other, taken in (("target", target, source), ("source", source, target)):
        if options.get(name) == ANY:
            known = options.get("source" if name == "target" else "target")
            options[name] = taken if other == known else other
    return options


def _truth(plan: Plan, maker: _Maker, module: nn.Module) -> dict[str, Any]:
    """What the network is and does, measured on images that nothing was trained on."""
    attack, classes = maker.attack, len(maker.dealt.class_names)
    found: dict[str, Any] = {
        **plan.as_json(),
        "data_digest": maker.dealt.digest,
        "classes": classes,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "trojaned": attack is not None,
        "targets": [],
        "true_attack": None,
        "accuracy": accuracy(module, *maker.held_out),
        "asr": None,
    }
    if attack is not None:
        found["targets"] = list(range(classes)) if attack.target is None else [attack.target]
        found["true_attack"] = attack.described()
        found["asr"] = attack_success(module, *maker.held_out, attack)
    return found


def check(plan: Plan, registry: Registry | None = None) -> None:
    """An error, before anything is trained, for a plan that names what there is not."""
    (registry or Registry.discover()).named(plan.arch, ("architecture",))
    if plan.attack is not None:
        from agnes_zoo.attacks import find

        find(plan.attack)
    if min(plan.regime.epochs, plan.regime.batch) < 1:
        raise UsageError("a training needs at least one epoch and one image a batch")
