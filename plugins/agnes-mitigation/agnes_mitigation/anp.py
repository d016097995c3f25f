"""Adversarial neuron pruning: channels that fall first when weights are disturbed on purpose go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch.func import functional_call
from torch.nn import functional

from agnes import measuring
from agnes.hookspecs import hookimpl
from agnes.learning import Loss, bytes_per_image, gradients, tensor_at
from agnes.results import Repair
from agnes_mitigation.pruning import Place, longest, output_dimension, pruned, scale_and_shift
from agnes_mitigation.training import Batch, batches
from agnes_mitigation.watching import Learner, divide

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network
    from agnes.samples import Samples

WANTED = 10  # images a class
Noise = tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]  # by layer, on weights and on biases


@dataclass(frozen=True)
class Anp(Learner):
    """Learn a mask over channels that holds under adversarial disturbance of weights, and prune what it drops."""

    paper: ClassVar[str] = "Wu and Wang, Adversarial Neuron Pruning Purifies Backdoored Deep Models, NeurIPS 2021"

    eps: float = 0.4  # share by which weights and biases are disturbed (ANP)
    alpha: float = 0.2  # weight of the undisturbed loss, the disturbed one has the rest (ANP)
    steps: int = 200  # of the mask (ours; ANP: 2000)
    rate: float = 0.2  # learning rate of SGD for the mask (ANP)
    momentum: float = 0.9  # of SGD (ANP)
    threshold: float = 0.2  # channels whose mask falls below are pruned (ANP)
    max_accuracy_drop: float = 0.02  # on the held-out images; pruning ends before it costs more (ours)

    @hookimpl
    def mitigate(self, network: Network, samples: Samples, backend: Backend) -> Repair:
        material = divide(network, samples, self.held_out, WANTED, backend)
        lessons = batches(material, material.rows, self, network, backend.generator("anp", device="cpu"), backend)
        masks = Masked(network).learn(self, lessons, backend)
        order = sorted((value, (name, c)) for name, mask in masks.items() for c, value in enumerate(mask.tolist()))
        low = [(value, place) for value, place in order if value < self.threshold]
        return self._pruned(network, low, material.held_out, material.notes, backend)

    def _pruned(
        self,
        network: Network,
        low: Sequence[tuple[float, Place]],
        held_out: Samples,
        notes: tuple[str, ...],
        backend: Backend,
    ) -> Repair:
        """The network without the channels below the threshold, lowest first, as far as accuracy allows."""
        values = {place: value for value, place in low}
        # the mask of a BatchNorm's channel stands at its scale: at zero the shift is left
        shifts = {layer.name: f[1] for layer in network.layers if (f := scale_and_shift(network, layer))}
        before, images = measuring.accuracy(network, held_out, backend)
        assert before is not None

        def without(count: int) -> Repair:
            places = [place for _, place in low[:count]]
            copy, changes = pruned(network, places, shifts, lambda place: f"mask {values[place]:.2f}")
            return Repair(copy, changes)

        def holds(count: int) -> bool:
            after, _ = measuring.accuracy(without(count).network, held_out, backend)
            return before - (after or 0.0) <= max(self.max_accuracy_drop, 1.5 / images)

        kept = longest(len(low), holds)
        said = f"{len(low)} channels have a mask below {self.threshold:g}; {kept} of them pruned"
        found = without(kept)
        return Repair(found.network, found.changes, (*notes, said))


class Masked:
    """A network seen with its channels' weights multiplied by masks and disturbances."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.weights: dict[str, tuple[str, int]] = {}  # layer -> path of what its mask multiplies, and the dimension
        self.biases: dict[str, str] = {}
        for layer in network.layers:
            if scale_and_shift(network, layer) is not None:
                self.weights[layer.name] = f"{layer.norm}.weight", 0
                self.biases[layer.name] = f"{layer.norm}.bias"
                continue
            self.weights[layer.name] = layer.weight, output_dimension(network, layer)
            if layer.bias is not None:
                self.biases[layer.name] = layer.bias
        self.channels = {layer.name: layer.channels for layer in network.layers}

    def logits(
        self, images: torch.Tensor, on_weights: Mapping[str, torch.Tensor], on_biases: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """The logits with each channel's weights and bias multiplied."""
        changed = {}
        for name, factor in on_weights.items():
            path, dimension = self.weights[name]
            tensor = tensor_at(self.network, path)
            changed[path] = tensor * factor.view([-1 if i == dimension else 1 for i in range(tensor.dim())])
        for name, factor in on_biases.items():
            changed[self.biases[name]] = tensor_at(self.network, self.biases[name]) * factor
        return functional_call(self.network.module, changed, (images,))

    def learn(self, method: Anp, lessons: Iterator[Batch], backend: Backend) -> dict[str, torch.Tensor]:
        """The masks that keep the loss low though weights are disturbed to raise it."""
        draw = backend.generator("anp disturbance", device="cpu")
        masks = {n: torch.ones(c, device=backend.device, requires_grad=True) for n, c in self.channels.items()}
        optimiser = torch.optim.SGD(masks.values(), lr=method.rate, momentum=method.momentum)
        each = 2 * bytes_per_image(self.network, backend)
        with torch.enable_grad(), backend.progress("learning masks", method.steps) as tick:
            for _ in range(method.steps):
                batch = next(lessons)
                noise = self._worst(masks, batch, method.eps, draw, backend, each)
                optimiser.zero_grad()
                found = gradients(
                    self._objective(masks, noise, method.alpha), list(masks.values()), *batch, backend, each
                )
                for mask, gradient in zip(masks.values(), found, strict=True):
                    mask.grad = gradient
                optimiser.step()
                with torch.no_grad():
                    for mask in masks.values():
                        mask.clamp_(0, 1)
                tick(1)
        return {name: mask.detach() for name, mask in masks.items()}

    def _worst(
        self,
        masks: Mapping[str, torch.Tensor],
        batch: Batch,
        eps: float,
        draw: torch.Generator,
        backend: Backend,
        each: float,
    ) -> Noise:
        """Disturbances of weights and biases within eps, one step of sign ascent from a random start (ANP)."""

        def start(names: Mapping[str, object]) -> dict[str, torch.Tensor]:
            noise = {n: torch.rand(self.channels[n], generator=draw).to(backend.device) for n in names}
            return {n: ((2 * value - 1) * eps).requires_grad_(True) for n, value in noise.items()}

        weights, biases = start(self.weights), start(self.biases)
        fixed = {name: mask.detach() for name, mask in masks.items()}

        def loss(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return self._loss(images, labels, fixed, (weights, biases))

        noise = [*weights.values(), *biases.values()]
        found = gradients(loss, noise, *batch, backend, each)
        moved = [(n.detach() + eps * g.sign()).clamp(-eps, eps) for n, g in zip(noise, found, strict=True)]
        count = len(weights)
        return dict(zip(weights, moved[:count], strict=True)), dict(zip(biases, moved[count:], strict=True))

    def _objective(
        self,
        masks: Mapping[str, torch.Tensor],
        noise: Noise,
        alpha: float,
    ) -> Loss:
        """The loss with the masks alone and with the disturbances too, weighed."""
        nothing: Noise = ({name: torch.zeros_like(mask) for name, mask in masks.items()}, {})

        def loss(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            calm, disturbed = (self._loss(images, labels, masks, n) for n in (nothing, noise))
            return alpha * calm + (1 - alpha) * disturbed

        return loss

    def _loss(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        masks: Mapping[str, torch.Tensor],
        noise: Noise,
    ) -> torch.Tensor:
        """The loss of the masked and disturbed network."""
        weights = {name: mask + noise[0][name] for name, mask in masks.items()}
        biases = {name: 1 + value for name, value in noise[1].items()}
        return functional.cross_entropy(self.logits(images, weights, biases), labels)
