"""TAC pruning: the channels that a trigger moves most lose their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from agnes import measuring
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.results import Repair, Trigger
from agnes_mitigation.fewest import Scales, fewest
from agnes_mitigation.pruning import Place, Which, benign_constants, layers_of, pruned
from agnes_mitigation.tac import outstanding, trigger_activated_change, z_scores
from agnes_mitigation.watching import labelled, raised

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network
    from agnes.samples import Samples


@dataclass(frozen=True)
class TacPrune(Method):
    """Set to zero the weights of the channels whose maps a trigger changes far more than those of their layer."""

    needs: ClassVar[frozenset[str]] = frozenset({"triggers"})
    paper: ClassVar[str] = "Koldenhof, master's thesis, sections 4.3-4.4; TAC: Zheng et al., ECCV 2022"
    preference: ClassVar[int] = 10

    threshold: float = 2.0  # Z-score within the layer from which a channel is pruned (Koldenhof, table 5.2)
    layers: Which = "all"  # conv alone, as in the thesis, or the hidden dense layers too
    choose: Literal["fewest", "all"] = "fewest"  # as few of these as end the triggers (ours), or all (Koldenhof)
    goal: float = 0.05  # choose=fewest: success of the triggers on the images that is as good as none (ours)
    slack: float = 1.5  # choose=fewest: past the goal more go, up to so many times the change on benign images (ours)
    most: int = 60  # choose=fewest: channels considered, the highest Z-scores (ours)
    probe: int = 64  # choose=fewest: images on which channels are weighed (ours)
    max_accuracy_drop: float = 0.05  # on the images; channels or layers that cost more stay (ours); 1: no limit

    def suits(self, network: Network) -> str | None:
        return "it needs a trigger and a few benign images, and no training"

    @hookimpl
    def mitigate(self, network: Network, samples: Samples, triggers: Sequence[Trigger], backend: Backend) -> Repair:
        layers = layers_of(network, self.layers)
        marked: dict[Place, float] = {}
        for trigger in triggers:
            changes = trigger_activated_change(network, trigger, samples.images, layers, backend)
            for place, score in (outstanding(changes, self.threshold) | _own(trigger, changes)).items():
                marked[place] = max(score, marked.get(place, score))
        if not marked:
            return Repair(
                network.copy(), (), (f"no channel reaches a Z-score of {self.threshold:g}; nothing was pruned",)
            )
        constants = benign_constants(network, samples.images, layers, backend)
        samples, notes = labelled(network, samples, backend)
        work = _Pruning(network, samples, marked, constants, self.max_accuracy_drop, notes, backend)
        return self._fewest(work, triggers) if self.choose == "fewest" else work.layer_by_layer(layers, triggers)

    def _fewest(self, work: _Pruning, triggers: Sequence[Trigger]) -> Repair:
        """Ours: one by one, until the triggers have no success left."""
        order = sorted(work.marked, key=lambda place: -work.marked[place])[: self.most]
        few = torch.randperm(len(work.samples), generator=work.backend.generator("tac-prune probe", device="cpu"))
        probe = work.samples.subset(few[: self.probe].sort().values)
        scales = Scales(work.network, probe, triggers, work.constants, work.backend)
        before = scales.weigh([]).success
        taken, effect, late = fewest(scales, order, self.goal, self.slack, work.allowed, work.backend)
        count = f"of {len(work.marked)} channels that the triggers move most or came from"
        if late is None and effect.success > before / 2:
            left = f"leaves the triggers {effect.success:.0%} of success on {len(probe)} images; nothing was pruned"
            return work.without([], (*work.notes, f"pruning {len(taken)} {count} {left}"))
        note = f"{len(taken)} {count} were pruned; on {len(probe)} images the triggers' success is {effect.success:.0%}"
        return raised(work.without(taken, (*work.notes, note)), late)


def _own(trigger: Trigger, changes: Mapping[str, torch.Tensor]) -> dict[Place, float]:
    """The channel that a trigger was reconstructed from, whatever its score (Koldenhof, algorithm 1)."""
    if trigger.layer is None or trigger.channel is None or trigger.layer not in changes:
        return {}
    return {(trigger.layer, trigger.channel): float(z_scores(changes[trigger.layer])[trigger.channel])}


@dataclass(frozen=True)
class _Pruning:
    """A network, the channels that may go, and what limits it."""

    network: Network
    samples: Samples  # labelled
    marked: Mapping[Place, float]  # with their Z-scores
    constants: Mapping[str, torch.Tensor]
    max_drop: float
    notes: tuple[str, ...]
    backend: Backend

    def without(self, places: Sequence[Place], notes: tuple[str, ...]) -> Repair:
        """A copy of the network without these channels."""
        copy, changes = pruned(
            self.network, places, self.constants, lambda place: f"TAC Z-score {self.marked[place]:.2f}"
        )
        return Repair(copy, changes, notes)

    def accuracy(self, network: Network) -> float:
        return measuring.accuracy(network, self.samples, self.backend)[0] or 0.0

    def allowed(self, places: Sequence[Place]) -> bool:
        """Whether accuracy without these channels is within the limit."""
        return self.accuracy(self.network) - self.accuracy(self.without(places, ()).network) <= self.max_drop

    def layer_by_layer(self, layers: Sequence[Layer], triggers: Sequence[Trigger]) -> Repair:
        """All marked channels; where that costs too much, layer after layer, those first that weaken triggers most."""
        everything = self.without(list(self.marked), self.notes)
        if self.allowed(list(self.marked)):
            return everything

        def of(layer: Layer) -> list[Place]:
            return [place for place in self.marked if place[0] == layer.name]

        def alone(layer: Layer) -> float:
            network = self.without(of(layer), ()).network
            return sum(measuring.attack_success(network, t, self.samples, self.backend)[0] for t in triggers)

        taken: list[Place] = []
        left: list[str] = []
        for layer in sorted(filter(of, layers), key=alone):
            if self.allowed([*taken, *of(layer)]):
                taken += of(layer)
            else:
                left.append(layer.name)
        before, after = self.accuracy(self.network), self.accuracy(everything.network)
        note = (
            f"pruning every marked channel takes accuracy from {before:.1%} to {after:.1%} of {len(self.samples)} "
            f"images, more than max_accuracy_drop={self.max_drop:g} allows; our extension of the method then prunes "
            f"layer by layer and leaves {', '.join(left)} as it was"
        )
        return self.without(taken, (*self.notes, note))
