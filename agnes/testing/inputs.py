"""What methods are given in the checks: tiny networks, images, and the results of the stages before."""

from __future__ import annotations

import torch

from agnes.backend import Backend
from agnes.network import Network
from agnes.results import AdditiveTrigger, Candidate, MaskTrigger, Representatives, Trigger
from agnes.samples import Samples
from agnes.testing import networks as tiny

MEMORY = 64 << 20


def tiny_backend(memory: int = MEMORY, seed: int = 0, time_budget: float | None = None) -> Backend:
    """A backend on the CPU."""
    return Backend.choose("cpu", memory=memory, seed=seed, time_budget=time_budget)


def tiny_network(name: str, seed: int = 0) -> Network:
    """One of the tiny networks, its weights drawn from the seed."""
    return Network.of(tiny.networks()[name](seed), tiny.INPUT_SHAPE)


def tiny_samples(
    network: Network, *, each: int = 2, labelled: bool = True, test: bool = False, seed: int = 0
) -> Samples:
    """Noise in the network's input shape, `each` images of every class; with a test part where asked for."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(network.class_count).repeat(each)
    images = torch.rand((len(labels), *network.input_shape), generator=generator)
    samples = Samples(images, labels if labelled else None, source="tiny samples")
    return samples.with_test(tiny_samples(network, each=each, seed=seed + 1)) if test else samples


def representatives_of(network: Network) -> Representatives:
    """Neurons in clusters of two, the first of each its representative."""
    clusters = {layer.name: (torch.arange(layer.neurons) // 2).reshape(layer.shape) for layer in network.layers}
    positions = {layer.name: (torch.arange(layer.neurons) % 2 == 0).reshape(layer.shape) for layer in network.layers}
    return Representatives(clusters, positions, method="checks")


@torch.no_grad()
def candidates_of(network: Network, samples: Samples) -> tuple[Candidate, ...]:
    """One channel each of the first and the last layer, between its largest value and four times that."""
    found = []
    for layer in dict.fromkeys((network.layers[-1], network.layers[0])):
        largest = float(network.read(samples.images, [layer])[layer.name].amax())
        low = max(largest, 0.1)
        elevations = tuple(1.0 if label == 1 else 0.0 for label in range(network.class_count))
        found.append(
            Candidate(layer.name, layer.channels - 1, 1, 1.0, low, 4 * low, elevations=elevations, method="checks")
        )
    return tuple(found)


def triggers_of(network: Network) -> tuple[Trigger, ...]:
    """A white corner and a faint stain, both said to lead to class 1."""
    channels, height, width = network.input_shape
    mask = torch.zeros(1, height, width)
    mask[:, -3:, -3:] = 1
    delta = torch.zeros(channels, height, width)
    delta[:, :2, :2] = 0.25
    corner = MaskTrigger(
        target=1, asr=1.0, held_out=4, method="checks", mask=mask, pattern=torch.ones(channels, height, width)
    )
    return corner, AdditiveTrigger(target=1, asr=0.9, held_out=4, method="checks", delta=delta)
