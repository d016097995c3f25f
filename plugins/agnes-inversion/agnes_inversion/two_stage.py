"""Koldenhof's inversion: first what excites a channel must make of its map, then what makes that of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch

from agnes import measuring
from agnes.differentiating import logits_of, quick
from agnes.errors import OutOfTime, UsageError
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.nulls import told
from agnes.results import Candidate, Noted, Trigger
from agnes_inversion.arms import Arm, Parts, Purpose, divide
from agnes_inversion.forms import Additive
from agnes_inversion.goals import Maps
from agnes_inversion.hunting import Hunt
from agnes_inversion.intermediate import Making, Output, intermediate_triggers
from agnes_inversion.neurons import Neuron, random_neurons
from agnes_inversion.search import Schedule
from agnes_inversion.tao import additive_start

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network
    from agnes.samples import Samples

_MADE_ON = 100  # images at most, whose benign maps are kept


@dataclass(frozen=True)
class TwoStage(Method):
    """Reconstruct the trigger of a channel's map, then the trigger of images that makes it."""

    needs: ClassVar[frozenset[str]] = frozenset({"gradients", "candidates", "conv"})
    paper: ClassVar[str] = "Koldenhof: thesis, section 4.2"
    preference: ClassVar[int] = 1

    null: int = 20  # random channels to compare with (ABS, section 5.1: 100); the thesis has none
    share: float = 0.5  # of the images, to make triggers on; the rest tests them (ABS, section 5.1: 0.3)
    test_images: int = 500  # at most so many of the test part, where there is one, to measure success on
    steps: int = 1000  # of the trigger of images (thesis, section 4.2.3)
    restarts: int = 1  # from random patterns; the smallest trigger is kept
    batch: int = 32  # images a channel sees in one step
    rate: float = 0.1  # Adam's learning rate (Tao)
    map_rate: float = 0.1  # the same for the trigger of the map, in standard deviations of the layer's values
    rise_in: Output = "probabilities"  # what a class must rise in by 0.3, and by 1.3 times the next (thesis, 4.2.1)
    weight: float = 1e-4  # alpha, of the size, to begin with
    success: float = 0.9  # share of images from which on alpha is doubled (thesis, table 5.2: ASR_alpha)
    largest: float = 0.2  # share of the image beyond which alpha is doubled, too (thesis, table 5.2: s_alpha)
    valid_success: float = 0.85  # of a valid trigger, at least (thesis, table 5.2: ASR_valid)
    valid_size: float = 0.25  # share of the image that a valid trigger stays below (thesis, table 5.2: s_valid)
    linked: float = (
        2.0  # Z-score of the change from which a channel belongs to the trigger (thesis, table 5.2: u_prune)
    )

    def __post_init__(self) -> None:
        for name in ("test_images", "steps", "restarts", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"two-stage.{name} is {getattr(self, name)}; give 1 or more")
        if self.null < 0:
            raise UsageError(f"two-stage.null is {self.null}; give 0 or more")
        if not 0 < self.share < 1:
            raise UsageError(f"two-stage.share is {self.share:g}; give a share between 0 and 1")

    @hookimpl
    def invert(
        self, network: Network, samples: Samples, candidates: Sequence[Candidate], backend: Backend
    ) -> Sequence[Trigger]:
        parts = divide(samples, network, self.share, self.test_images, backend).at_most(_MADE_ON)
        run = _Run(self, network, quick(network), parts, backend)
        try:
            for layer, arms in self._by_layer(network, candidates, backend):
                run.layer(layer, arms)
        except OutOfTime as error:
            error.partial = run.found
            raise
        return Noted(run.found, run.notes())

    def _by_layer(
        self, network: Network, candidates: Sequence[Candidate], backend: Backend
    ) -> list[tuple[Layer, list[_Channel]]]:
        """The channels of convolutions that are tried: candidates and random ones, from the deepest layer on."""
        layers = [layer for layer in network.layers if layer.kind == "conv"]
        aims = {(c.layer, c.channel): c.target for c in sorted(candidates, key=lambda c: c.score)}
        channels = [_Channel(*neuron, target, "candidate") for neuron, target in aims.items()]
        channels += [_Channel(*n, None, "null") for n in random_neurons(layers, aims, self.null, backend)]
        tried = [(layer, [c for c in channels if c.layer == layer.name]) for layer in reversed(layers)]
        return [(layer, some) for layer, some in tried if some]

    def schedule(self, area: int) -> Schedule:
        """Alpha is doubled for a trigger that works or is too large, and halved for one that fails and is small."""
        return Schedule(
            steps=self.steps,
            rate=self.rate,
            betas=(0.5, 0.9),  # Tao
            weight=self.weight,
            success=self.success,
            confidence=0.0,
            patience=2,  # looks, five steps apart (thesis: ten steps)
            raise_by=2.0,  # thesis
            lower_by=2.0,  # thesis
            setbacks=4,
            hopeless_after=self.steps // 2,
            largest=self.largest * area,
        )


class _Channel(NamedTuple):
    """A channel that is tried, and why."""

    layer: str
    channel: int
    target: int | None
    purpose: Purpose


class _Run:
    """One inversion: what was found so far, and which channels need none of their own."""

    def __init__(self, method: TwoStage, network: Network, fast: Network, parts: Parts, backend: Backend) -> None:
        self.method, self.network, self.fast, self.parts, self.backend = method, network, fast, parts, backend
        self.found: list[Trigger] = []
        self.linked: set[Neuron] = set()
        self.rejected: list[Neuron] = []
        self.spared: list[Neuron] = []

    def layer(self, layer: Layer, channels: Sequence[_Channel]) -> None:
        """Try the channels of a layer together, less those that an earlier trigger is linked to."""
        self.spared += [(c.layer, c.channel) for c in channels if (c.layer, c.channel) in self.linked]
        channels = [c for c in channels if (c.layer, c.channel) not in self.linked]
        if not channels:
            return
        made = intermediate_triggers(
            self.fast,
            self.fast.layer(layer.name),
            [c.channel for c in channels],
            [c.target for c in channels],
            self.parts.made_on,
            Making(self.method.map_rate, self.method.rise_in),
            self.backend,
        )
        arms, maps = [], []
        for channel, trigger in zip(channels, made, strict=True):
            if not trigger.valid:
                self.rejected.append((channel.layer, channel.channel))
                continue
            arms.append(Arm(trigger.target, channel.purpose, channel.layer, channel.channel))
            maps.append(trigger.map)
        if arms:
            self._invert(arms, torch.stack(maps))

    def _invert(self, arms: Sequence[Arm], maps: torch.Tensor) -> None:
        """The triggers of images that make these maps; then the channels linked to those that are valid."""
        wanted = dict(zip(arms, maps, strict=True))
        images = self.parts.made_on.images

        def goal(some: Sequence[Arm]) -> Maps:
            return Maps(self.fast, some, torch.stack([wanted[arm] for arm in some]), images, self.backend)

        area = images.shape[2] * images.shape[3]
        m = self.method
        warm_up = m.steps // 4 if m.restarts > 1 else 0
        hunt = Hunt(
            self.network, logits_of(self.fast), self.parts, Additive(), goal, m.schedule(area), m.batch, warm_up
        )
        starts = [
            additive_start(self.network, len(arms), f"two-stage start {arms[0].layer} {restart}", self.backend)
            for restart in range(m.restarts)
        ]
        try:
            triggers = hunt.triggers(arms, starts, self.backend)
        except OutOfTime as error:
            self.found += error.partial if isinstance(error.partial, list) else []
            raise
        self.found += triggers
        for trigger in triggers:
            if trigger.purpose == "candidate" and trigger.asr > m.valid_success and trigger.l1 < m.valid_size * area:
                self._link(trigger)

    def _link(self, trigger: Trigger) -> None:
        """Every channel that a valid trigger moves far more than others of its layer (thesis, 4.3)."""
        layers = [layer for layer in self.network.layers if layer.kind == "conv"]
        changes = measuring.trigger_activated_change(
            self.network, trigger, self.parts.made_on.images, layers, self.backend
        )
        self.linked |= measuring.outstanding(changes, self.method.linked).keys()

    def notes(self) -> list[str]:
        """What became of the channels that have no trigger of their own."""
        notes = list(told(self.found))
        if self.rejected:
            notes.append(f"{len(self.rejected)} channels were given up after the first stage")
        if self.linked:
            names = ", ".join(f"{layer}:{channel}" for layer, channel in sorted(self.linked))
            notes.append(f"channels linked to a valid trigger: {names}")
        if self.spared:
            notes.append(f"{len(self.spared)} linked channels were not inverted")
        return notes
