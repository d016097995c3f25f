"""Neurons that triggers are sought for: candidates, and others drawn at random for comparison."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from agnes_inversion.arms import Arm

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network
    from agnes.results import Candidate

_AIMED_WITH = 32  # images at most
_EXCITED = 2.0  # times the largest value of the layer

Neuron = tuple[str, int]  # layer and channel


def excited(network: Network, neurons: Sequence[Neuron], images: torch.Tensor, backend: Backend) -> list[torch.Tensor]:
    """For each neuron, how much each class's logit rises when its whole map is set far up; the mean over images."""
    images = images[:: -(-len(images) // _AIMED_WITH)]  # of all classes: images lie class by class
    rises: dict[Neuron, torch.Tensor] = {}
    with torch.no_grad():
        for name in dict.fromkeys(name for name, _ in neurons):
            layer = network.layer(name)
            state = network.until(layer, images)
            before = network.after(layer, state)
            value = _EXCITED * max(float(state.value.amax()), 1e-6)
            for channel in dict.fromkeys(channel for other, channel in neurons if other == name):
                backend.check()
                maps = state.value.clone()
                maps[layer.channel_index(channel)] = value
                rises[name, channel] = (network.after(layer, state, maps) - before).mean(0)
    return [rises[neuron] for neuron in neurons]


def candidate_arms(
    network: Network,
    candidates: Sequence[Candidate],
    count: int,
    together: bool,
    images: torch.Tensor,
    backend: Backend,
) -> list[Arm]:
    """The best candidates, each alone or all of a class together; one without a class gets the one it raises most."""
    by_neuron: dict[Neuron, Candidate] = {}
    for candidate in sorted(candidates, key=lambda c: -c.score):
        by_neuron.setdefault((candidate.layer, candidate.channel), candidate)
    best = list(by_neuron.values())[:count]
    aimless = [(c.layer, c.channel) for c in best if c.target is None]
    raised = dict(zip(aimless, excited(network, aimless, images, backend), strict=True))
    arms = [
        Arm(int(raised[c.layer, c.channel].argmax()) if c.target is None else c.target, "candidate", c.layer, c.channel)
        for c in best
    ]
    return _joined(arms) if together else arms


def _joined(arms: Sequence[Arm]) -> list[Arm]:
    """One arm a class, with the neurons of all (ABS, appendix F)."""
    by_target: dict[int, list[Arm]] = {}
    for arm in arms:
        by_target.setdefault(arm.target, []).append(arm)
    return [
        replace(first, others=tuple(neuron for arm in rest for neuron in arm.neurons))
        for first, *rest in by_target.values()
    ]


def random_neurons(layers: Sequence[Layer], taken: Collection[Neuron], count: int, backend: Backend) -> list[Neuron]:
    """So many neurons of some layers, drawn at random from those that are not taken."""
    free = [(la.name, channel) for la in layers for channel in range(la.channels) if (la.name, channel) not in taken]
    order = torch.randperm(len(free), generator=backend.generator("null neurons", device="cpu"))[:count]
    return [free[i] for i in order.tolist()]


def random_arms(
    network: Network, taken: Sequence[Arm], count: int, images: torch.Tensor, backend: Backend
) -> list[Arm]:
    """Neurons drawn at random, each aimed at the class that it raises most (ABS, section 5.1)."""
    used = {neuron for arm in taken for neuron in arm.neurons}
    drawn = random_neurons(network.layers, used, count, backend)
    targets = [int(rise.argmax()) for rise in excited(network, drawn, images, backend)]
    return [Arm(target, "null", *neuron) for neuron, target in zip(drawn, targets, strict=True)]
