"""The search of deepabstract: for each layer in turn the fewest clusters with which accuracy holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from agnes.errors import AgnesError
from agnes_abstraction.activations import chosen_samples, fitting, images_note
from agnes_abstraction.clustering import Clusters, nearest_to_centres
from agnes_abstraction.merging import Merged, alone

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network
    from agnes.samples import Samples
    from agnes_abstraction.chain import Chain, Segment
    from agnes_abstraction.deepabstract import DeepAbstract

_DIRECTIONS = 32


class Shrinking:
    """The layers of a chain, merged first to last; each is looked at behind those merged before it."""

    def __init__(self, chain: Chain, samples: Samples, backend: Backend, settings: DeepAbstract) -> None:
        self.chain = chain
        self.backend = backend
        self.settings = settings
        layers = chain.network.layers
        limit = min(settings.images, fitting(2 * max(layer.neurons for layer in layers), backend))
        self.shown = chosen_samples(samples, limit, backend)
        self.there = min(settings.images, len(samples))
        tested = samples.test if samples.test is not None and samples.test.labels is not None else None
        self.tested = self.shown if tested is None else chosen_samples(tested, limit, backend)
        self.classes = self._run_from(0, self.tested.images).argmax(1)
        if self.tested.labels is not None:
            self.right = int((self.classes == self.tested.labels).sum())
            self.classes = self.tested.labels
        else:
            self.right = len(self.tested)  # without labels, the network's own predictions are what must hold
        self.kept = self.right
        self.merged: dict[str, Merged] = {}

    def run(self) -> dict[str, Merged]:
        """The clusters of every layer."""
        shown, tested = self.shown.images, self.tested.images
        neurons = sum(layer.neurons for layer in self.chain.network.layers)
        done = 0
        with self.backend.progress("merging layers", len(self.chain.network.layers)) as tick:
            for place, segment in enumerate(self.chain.segments):
                if segment.layer is None:
                    break
                same = shown is tested
                shown = self._run(segment, shown)
                tested = shown if same else self._run(segment, tested)
                done += segment.layer.neurons
                part = done / neurons if self.settings.shared else 1.0
                allowed = self.settings.accuracy_drop * len(self.tested) * part
                merged, self.kept = self._smallest(place, segment.layer, shown, tested, self.right - allowed)
                self.merged[segment.layer.name] = merged
                shown = merged.spread(shown)
                tested = shown if same else merged.spread(tested)
                tick(1)
        return self.merged

    def notes(self) -> tuple[str, ...]:
        """The abstraction rate per layer and overall, and what it cost."""
        layers = self.chain.network.layers
        left = {layer.name: len(self.merged[layer.name].sources) for layer in layers}
        rates = [f"{layer.name} {1 - left[layer.name] / layer.neurons:.0%}" for layer in layers]
        overall = 1 - sum(left.values()) / sum(layer.neurons for layer in layers)
        count = len(self.tested)
        what = "accuracy" if self.tested.labels is not None else "agreement with the network"
        said = [
            f"abstraction rate {overall:.0%} ({', '.join(rates)})",
            f"{what} {self.right / count:.1%} before and {self.kept / count:.1%} after, on {count} images",
        ]
        if len(self.shown) < self.there:
            said.append(images_note("all layers", len(self.shown), self.there))
        return tuple(said)

    def check(self, made: Network, tolerance: float) -> None:
        """Refuse an abstract network that computes something else than the merged layers do."""
        images = self.tested.images[:64]
        values = images
        for segment in self.chain.segments:
            values = self._run(segment, values)
            if segment.layer is not None:
                values = self.merged[segment.layer.name].spread(values)
        with torch.no_grad():
            apart = float((self.backend.map(made, images) - values).abs().max())
        if apart > tolerance * (1 + float(values.abs().max())):
            raise AgnesError(
                f"deepabstract: the fully connected network differs from the merged one by {apart:.2g}; use kmeans"
            )

    def _smallest(
        self, place: int, layer: Layer, shown: torch.Tensor, tested: torch.Tensor, least: float
    ) -> tuple[Merged, int]:
        """The fewest clusters found by bisection that leave `least` images right, and how many they leave."""
        best = (alone(layer, shown.device), self.kept)
        vectors = shown.flatten(1).T.float().contiguous()
        loudest = self._loudest_of_the_silent(place, layer, vectors)
        search = Clusters(vectors, self.backend.generator("deepabstract", layer.name, device="cpu"), self.backend)
        low, high = 0, layer.neurons  # low is too few, high is enough
        while high - low > max(1, self.settings.precision * layer.neurons):
            self.backend.check()
            middle = (low + high) // 2
            labels = search.labels(middle, self.settings.rounds)
            merged = Merged(labels, _standing(vectors, labels, loudest))
            right = self._right(place + 1, merged.spread(tested))
            if right >= least:
                high, best = min(middle, len(merged.sources)), (merged, right)
            else:
                low = middle
        return best

    def _loudest_of_the_silent(self, place: int, layer: Layer, vectors: torch.Tensor) -> torch.Tensor:
        """Of the neurons that no image activates the one whose outgoing weights are the largest; none where none is.

        Lengths of the weights' columns, estimated: their products with random directions, by the gradient.
        """
        silent = (~vectors.any(1)).nonzero().flatten()
        if not len(silent):
            return silent
        following = self.chain.segments[place + 1]
        values = torch.zeros((_DIRECTIONS, *layer.shape), device=vectors.device, requires_grad=True)
        with torch.enable_grad():
            reached = self.chain.run_affine(following, values)
            generator = self.backend.generator("outgoing", layer.name, device="cpu")
            directions = torch.randn(reached.shape, generator=generator).to(reached)
            (gradients,) = torch.autograd.grad((reached * directions).sum(), values)
        lengths = gradients.flatten(1).square().sum(0)
        return silent[lengths[silent].argmax()][None]

    def _right(self, place: int, values: torch.Tensor) -> int:
        return int((self._run_from(place, values).argmax(1) == self.classes).sum())

    def _run_from(self, place: int, values: torch.Tensor) -> torch.Tensor:
        """The logits from the values at a segment's start."""

        def run(part: torch.Tensor) -> torch.Tensor:
            for segment in self.chain.segments[place:]:
                part = self.chain.run(segment, part)
            return part

        with torch.no_grad():
            return self.backend.map(run, values)

    def _run(self, segment: Segment, values: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.backend.map(lambda part: self.chain.run(segment, part), values)


def _standing(vectors: torch.Tensor, labels: torch.Tensor, loudest: torch.Tensor) -> torch.Tensor:
    """The neuron nearest each centre; where that is a silent one, all of which lie there, the loudest of them."""
    sources = nearest_to_centres(vectors, labels)
    if len(loudest) and not vectors[sources[labels[loudest]]].any():
        sources[labels[loudest]] = loudest
    return sources
