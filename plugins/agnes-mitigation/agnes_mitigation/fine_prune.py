"""Fine-pruning: channels asleep on benign images go, then the rest is fine-tuned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from agnes import measuring
from agnes.errors import AgnesError
from agnes.hookspecs import hookimpl
from agnes_mitigation.pruning import Place, benign_constants, longest, prune, pruned
from agnes_mitigation.training import Regime, batches, tune
from agnes_mitigation.watching import Learner, Watch, divide, labelled, repaired

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network
    from agnes.results import Change, Repair
    from agnes.samples import Samples

WANTED = 10  # images a class


@dataclass(frozen=True)
class FinePrune(Learner):
    """Prune the last convolution's channels that benign images wake least, then fine-tune the rest."""

    paper: ClassVar[str] = "Liu, Dolan-Gavitt and Garg, Fine-Pruning, RAID 2018"

    prune_drop: float = 0.04  # accuracy that pruning may cost on the images, before fine-tuning (ours)
    steps: int = 200  # of fine-tuning (ours); 0: prune alone
    rate: float = 1e-3  # learning rate of SGD (ours)
    momentum: float = 0.9  # of SGD (ours)
    max_accuracy_drop: float = 0.02  # on the held-out images, from the pruned network's (ours)

    @hookimpl
    def mitigate(self, network: Network, samples: Samples, backend: Backend) -> Repair:
        layer = last_convolution(network)
        constants = benign_constants(network, samples.images, [layer], backend)
        copy, changes = self._pruned(network, layer, samples, constants, backend)
        material = divide(network, samples, self.held_out, WANTED, backend)
        lessons = batches(
            material, material.rows, self, network, backend.generator("fine-prune", device="cpu"), backend
        )
        channels = [change.channel for change in changes if change.channel is not None]

        def hold() -> None:
            if channels:
                prune(copy, layer, channels, constants.get(layer.name))

        watch = Watch(copy, material.held_out, (), self.max_accuracy_drop, backend)
        regime = Regime(self.steps, self.rate, self.momentum)
        late = tune(copy, lessons, regime, watch, backend, "fine-tuning", hold) if self.steps else None
        notes = (*material.notes, f"{len(changes)} of {layer.channels} channels of '{layer.name}' pruned")
        return repaired(network, copy, "fine-tuned after pruning", notes, late, changes)

    def _pruned(
        self,
        network: Network,
        layer: Layer,
        samples: Samples,
        constants: Mapping[str, torch.Tensor],
        backend: Backend,
    ) -> tuple[Network, tuple[Change, ...]]:
        """The network without as many of the sleepiest channels as accuracy allows."""
        samples, _ = labelled(network, samples, backend)
        activity = mean_activations(network, layer, samples.images, backend)
        order: list[Place] = [(layer.name, channel) for channel in activity.argsort(stable=True).tolist()]
        before, images = measuring.accuracy(network, samples, backend)
        assert before is not None

        def without(count: int) -> tuple[Network, tuple[Change, ...]]:
            return pruned(
                network, order[:count], constants, lambda place: f"mean activation {float(activity[place[1]]):.3g}"
            )

        def holds(count: int) -> bool:
            after, _ = measuring.accuracy(without(count)[0], samples, backend)
            return before - (after or 0.0) <= max(self.prune_drop, 1.5 / images)

        return without(longest(len(order) - 1, holds))


def last_convolution(network: Network) -> Layer:
    """The last convolution or, where there is none, the last hidden layer."""
    if not network.layers:
        raise AgnesError("fine-prune: the network has no hidden layer to prune")
    return next((layer for layer in reversed(network.layers) if layer.kind == "conv"), network.layers[-1])


def mean_activations(network: Network, layer: Layer, images: torch.Tensor, backend: Backend) -> torch.Tensor:
    """How far each channel lies from zero on average."""

    def activity(part: torch.Tensor) -> torch.Tensor:
        return layer.by_channel(network.read(part, [layer])[layer.name]).abs().mean(2)

    with torch.no_grad():
        return backend.map(activity, images, what="reading activations").mean(0)
