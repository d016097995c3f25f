"""TAC pruning: the channels that a trigger moves most lose their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from agnes import measuring
from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.results import Change, Repair, Trigger
from agnes_mitigation.pruning import benign_constants, prune
from agnes_mitigation.tac import outstanding, trigger_activated_change

if TYPE_CHECKING:
    import torch

    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network
    from agnes.samples import Samples

Marked = Mapping[tuple[str, int], float]  # (layer, channel) -> Z-score


@dataclass(frozen=True)
class TacPrune(Method):
    """Set to zero the weights of the channels whose maps a trigger changes far more than those of their layer."""

    needs: ClassVar[frozenset[str]] = frozenset({"triggers"})
    paper: ClassVar[str] = "Koldenhof, master's thesis, sections 4.3-4.4; TAC: Zheng et al., ECCV 2022"
    preference: ClassVar[int] = 10

    threshold: float = 2.0  # Z-score within the layer from which a channel is pruned (Koldenhof, table 5.2)
    layers: Literal["all", "conv"] = "all"  # conv alone, as in the thesis, or the hidden dense layers too
    max_accuracy_drop: float = 0.05  # past it, layers are pruned one by one (ours); 1 prunes all layers in any case

    def suits(self, network: Network) -> str | None:
        return "it needs a trigger and a few benign images, and no training"

    @hookimpl
    def mitigate(self, network: Network, samples: Samples, triggers: Sequence[Trigger], backend: Backend) -> Repair:
        layers = [layer for layer in network.layers if self.layers == "all" or layer.kind == "conv"]
        marked: dict[tuple[str, int], float] = {}
        for trigger in triggers:
            changes = trigger_activated_change(network, trigger, samples.images, layers, backend)
            for place, score in outstanding(changes, self.threshold).items():
                marked[place] = max(score, marked.get(place, score))
        if not marked:
            return Repair(
                network.copy(), (), (f"no channel reaches a Z-score of {self.threshold:g}; nothing was pruned",)
            )
        constants = benign_constants(network, samples.images, layers, backend)
        repair = _pruned(network, layers, marked, constants)
        before, _ = measuring.accuracy(network, samples, backend)
        after, images = measuring.accuracy(repair.network, samples, backend)
        if before is None or after is None:
            return repair
        if before - after <= self.max_accuracy_drop:
            return repair
        lost = f"pruning every marked channel takes accuracy from {before:.1%} to {after:.1%} of {images} images"
        return self._layer_by_layer(network, samples, triggers, layers, marked, constants, before, lost, backend)

    def _layer_by_layer(
        self,
        network: Network,
        samples: Samples,
        triggers: Sequence[Trigger],
        layers: Sequence[Layer],
        marked: Marked,
        constants: Mapping[str, torch.Tensor],
        before: float,
        lost: str,
        backend: Backend,
    ) -> Repair:
        """Ours: take in layer after layer while accuracy holds, those first that weaken the triggers most."""

        def alone(layer: Layer) -> float:
            pruned = _pruned(network, [layer], marked, constants).network
            return sum(measuring.attack_success(pruned, trigger, samples, backend)[0] for trigger in triggers)

        taken: list[Layer] = []
        left: list[str] = []
        for layer in sorted((x for x in layers if any(name == x.name for name, _ in marked)), key=alone):
            after, _ = measuring.accuracy(
                _pruned(network, [*taken, layer], marked, constants).network, samples, backend
            )
            if after is not None and before - after <= self.max_accuracy_drop:
                taken.append(layer)
            else:
                left.append(layer.name)
        notes = (
            f"{lost}, more than max_accuracy_drop={self.max_accuracy_drop:g} allows; our extension of the method then "
            f"prunes layer by layer and leaves {', '.join(left)} as it was",
        )
        return _pruned(network, taken, marked, constants, notes)


def _pruned(
    network: Network,
    layers: Sequence[Layer],
    marked: Marked,
    constants: Mapping[str, torch.Tensor],
    notes: tuple[str, ...] = (),
) -> Repair:
    """A copy of the network without the marked channels of these layers."""
    copy = network.copy()
    changes: list[Change] = []
    for layer in sorted(layers, key=lambda layer: layer.index):
        channels = [channel for name, channel in marked if name == layer.name]
        if channels:
            how = prune(copy, layer, channels, constants.get(layer.name))
            changes += [Change(layer.name, c, f"{how}; TAC Z-score {marked[layer.name, c]:.2f}") for c in channels]
    return Repair(copy, tuple(changes), notes)
