"""The overactivation index: how strongly noise excites a network's first rectified maps."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import fx

from agnes.errors import UsageError
from agnes.hookspecs import hookimpl
from agnes.layers import kind_of
from agnes.method import Method
from agnes.results import Evidence

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network

_FEWEST = 2  # copies of which a mean and a deviation can be taken
_LEAST = 1e-12  # a deviation or a mean below it counts as none
_FAR = 1e6  # the score where there is no deviation to measure with


@dataclass(frozen=True)
class Overactivation(Method):
    """Feed noise and compare what the first ReLU lets through with a clean twin, or with the network's own weights."""

    paper: ClassVar[str] = "Wu, Overactivation: Verifying and testing backdoors in deep neural networks, 2024"

    images: int = 200  # noise images (paper, Table 2.2)
    noise: Literal["uniform", "normal"] = "uniform"  # in [0, 1], or around 0; the paper does not say which (ours)
    reference: str | None = None  # the file of a clean network of the same design, which the paper compares with
    ratio: float = 1.0  # with a reference, a ratio of the means above it speaks for a backdoor (paper: none is given)
    null: Literal["permuted", "redrawn"] = "permuted"  # without one, what is done to the first weights; our extension
    copies: int = 50  # networks of such weights
    deviations: float = 3.0  # of theirs by which the mean must lie above theirs

    def __post_init__(self) -> None:
        if self.images < 1:
            raise UsageError("overactivation.images must be 1 or more")
        if self.copies < _FEWEST:
            raise UsageError(f"overactivation.copies must be {_FEWEST} or more")

    def unmet(self, network: Network) -> str | None:
        return "needs a ReLU in the network, and there is none" if first_relu(network) is None else None

    @hookimpl
    def diagnose(self, network: Network, backend: Backend) -> Evidence:
        noise, largest = self._noise(network, backend), self.values(network, backend)
        if self.reference is not None:
            return self._against_twin(largest, self._twin(network, self.reference), noise, backend)
        return self._against_own(largest, network, noise, backend)

    def values(self, network: Network, backend: Backend) -> torch.Tensor:
        """S_A of the method's noise images."""
        return largest_values(start_of(network), self._noise(network, backend), backend)

    def _noise(self, network: Network, backend: Backend) -> torch.Tensor:
        """The same for the same seed."""
        if self.noise == "normal":
            return backend.normal(self.images, *network.input_shape)
        return noise_images(network.input_shape, self.images, backend)

    def _twin(self, network: Network, reference: str) -> Network:
        from agnes.api import open_network

        twin = open_network(os.path.expanduser(reference))
        if twin.input_shape != network.input_shape:
            raise UsageError(
                f"overactivation.reference takes images of {_by(twin.input_shape)}, the network of "
                f"{_by(network.input_shape)}; name a clean network of the same design"
            )
        if first_relu(twin) is None:
            raise UsageError("overactivation.reference has no ReLU; name a clean network of the same design")
        return twin

    def _against_twin(self, largest: torch.Tensor, twin: Network, noise: torch.Tensor, backend: Backend) -> Evidence:
        """The paper's index."""
        theirs = largest_values(start_of(twin.to(backend.device)), noise, backend)
        index = compared(largest, theirs)
        return Evidence(
            name="overactivation against the reference",
            score=index.mean_ratio,
            threshold=self.ratio,
            null=tuple(theirs.tolist()),
            note=f"the ratio of the means; that of the largest is {index.max_ratio:.4g}, and on {index.larger} of "
            f"{len(noise)} noise images the network's value is the larger ({index.larger}:{len(noise) - index.larger})",
        )

    def _against_own(self, largest: torch.Tensor, network: Network, noise: torch.Tensor, backend: Backend) -> Evidence:
        """Our extension: the same network with its first weights scattered."""
        means = []
        for number in range(self.copies):
            backend.check()
            other = scattered(start_of(network), self.null, backend.generator("overactivation", number, device="cpu"))
            means.append(float(largest_values(other, noise, backend).mean()))
        null = torch.tensor(means, dtype=torch.float64)
        deviation, above = float(null.std()), float(largest.mean()) - float(null.mean())
        score = above / deviation if deviation > _LEAST else _FAR * (above > _LEAST)
        return Evidence(
            name=f"overactivation against its own {self.null} weights",
            score=max(-_FAR, min(score, _FAR)),
            threshold=self.deviations,
            null=tuple(means),
            note=f"in deviations of {self.copies} such networks (our extension: no reference was given); the mean is "
            f"{largest.mean():.4g} against {null.mean():.4g}, the largest {largest.max():.4g}",
        )


@dataclass(frozen=True)
class Index:
    """The overactivation index of one network against another (Wu, Table 2.2)."""

    max_ratio: float
    mean_ratio: float
    larger: int  # of the noise images, those on which the first network's value is the larger


def compared(suspect: torch.Tensor, reference: torch.Tensor) -> Index:
    """The index from the values of both on the same images."""
    return Index(
        float(suspect.max() / reference.max().clamp(min=_LEAST)),
        float(suspect.mean() / reference.mean().clamp(min=_LEAST)),
        int((suspect > reference).sum()),
    )


def noise_images(shape: tuple[int, int, int], count: int, backend: Backend) -> torch.Tensor:
    """Every value uniform in [0, 1]; the same for the same seed."""
    return torch.rand((count, *shape), generator=backend.generator("overactivation noise", device="cpu"))


def first_relu(network: Network) -> fx.Node | None:
    """The first of the graph's nodes that is a ReLU."""
    return next((node for node in network.module.graph.nodes if kind_of(network.module, node) == "relu"), None)


def start_of(network: Network) -> fx.GraphModule:
    """The network up to its first ReLU; the weights are shared."""
    last = first_relu(network)
    if last is None:
        raise UsageError("the network has no ReLU")
    graph, copied = fx.Graph(), {}
    for node in network.module.graph.nodes:
        copied[node] = graph.node_copy(node, lambda known: copied[known])
        if node is last:
            break
    graph.output(copied[last])
    start = fx.GraphModule(network.module, graph)
    start.graph.eliminate_dead_code()
    start.delete_all_unused_submodules()
    start.recompile()
    return start


def largest_values(
    start: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, backend: Backend
) -> torch.Tensor:
    """S_A: for each image the largest value in the maps after the first ReLU."""
    with torch.no_grad():
        return backend.map(lambda part: start(part).flatten(1).amax(1).float(), images).cpu()


def scattered(start: fx.GraphModule, how: str, generator: torch.Generator) -> fx.GraphModule:
    """A copy whose weights are the same numbers in another order, or normal ones of the same mean and deviation."""
    other = copy.deepcopy(start)
    with torch.no_grad():
        for weight in other.parameters():
            if weight.dim() < 2:
                continue  # biases and normalisation stay
            if how == "permuted":
                order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
                weight.copy_(weight.flatten()[order].view_as(weight))
            else:
                drawn = torch.randn(weight.shape, generator=generator).to(weight)
                weight.copy_(drawn * weight.std(unbiased=False) + weight.mean())
    return other


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
