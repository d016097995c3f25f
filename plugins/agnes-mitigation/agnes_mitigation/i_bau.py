"""Unlearning by implicit gradients: the network learns to withstand the worst change that all images share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch.nn import functional

from agnes.hookspecs import hookimpl
from agnes.learning import bytes_per_image
from agnes_mitigation.persisting import Persistent
from agnes_mitigation.training import Batch, batches, learning
from agnes_mitigation.watching import Watch, divide, repaired

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.errors import OutOfTime
    from agnes.network import Network
    from agnes.results import Repair, Trigger
    from agnes.samples import Samples

WANTED = 10  # images a class
_HELD = 6  # times what one backward pass holds: the second derivative keeps the first one's graph
Scalar = Callable[[torch.Tensor], torch.Tensor]  # of the change


@dataclass(frozen=True)
class IBau(Persistent):
    """Make the network withstand the worst change that all images share, by implicit hypergradients."""

    paper: ClassVar[str] = "Zeng et al., Adversarial Unlearning of Backdoors via Implicit Hypergradient, ICLR 2022"

    rounds: int = 5  # of finding the worst change and unlearning it (I-BAU)
    search: int = 10  # steps that look for the worst change (ours)
    steps: int = 20  # of unlearning in each round (ours)
    share: float = 0.1  # of each batch under the change, the rest stays benign (ours; the authors' programs: 0.01)
    radius: float = 5.0  # largest norm of the change, pixels from 0 to 1 (ours; the authors' programs: 10 or none)
    terms: int = 5  # of the series that stands for the inverse Hessian (I-BAU)
    inner_rate: float = 0.1  # step of the map whose fixed point the change is (I-BAU)
    penalty: float = 1e-3  # weight of the change's squared norm (I-BAU)
    rate: float = 1e-3  # Adam's learning rate for the network at the start; it falls to a hundredth (ours)
    max_accuracy_drop: float = 0.05  # on the held-out images; no state that loses more is kept (ours)

    @hookimpl
    def mitigate(self, network: Network, samples: Samples, triggers: Sequence[Trigger], backend: Backend) -> Repair:
        material = divide(network, samples, self.held_out, WANTED, backend)
        copy = network.copy()
        fits = max(1, int(backend.memory / (_HELD * bytes_per_image(copy, backend))))
        generator = backend.generator("i-bau", device="cpu")
        learner = replace(self, batch=min(self.batch, fits))
        lessons = batches(material, material.rows, learner, network, generator, backend)
        known = [trigger for trigger in triggers if trigger.convicts]
        watch = Watch(copy, material.held_out, known, self.max_accuracy_drop, backend, learnt=material.learnt)
        late, told = self.persistently(
            lambda rate: self._unlearn(copy, lessons, rate, watch, backend), self.rate, watch
        )
        best, why = self.worth(network, copy, known, material, backend)
        how = "trained under the worst universal change"
        return repaired(network, best, how, (*material.notes, told), late, why=why)

    def _unlearn(
        self, network: Network, lessons: Iterator[Batch], rate: float, watch: Watch, backend: Backend
    ) -> OutOfTime | None:
        total = self.rounds * (self.search + self.steps)
        with learning(network, watch) as session, backend.progress("unlearning", total) as tick:
            optimiser = torch.optim.Adam(session.parameters, lr=rate)
            falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.rounds * self.steps, rate / 100)
            for number in range(self.rounds):
                change = self._worst(network, lessons, tick)
                for _ in range(self.steps):
                    images, labels = next(lessons)
                    found = self._gradients(network, session.parameters, images, labels, change)
                    for parameter, gradient in zip(session.parameters, found, strict=True):
                        parameter.grad = gradient
                    optimiser.step()
                    falling.step()
                    tick(1)
                watch.look(number + 1)
        return session.late

    def _worst(self, network: Network, lessons: Iterator[Batch], tick: Callable[[int], None]) -> torch.Tensor:
        """The change within the radius that misleads most, climbed to in steps of one length."""
        change = torch.zeros(1, *network.input_shape, device=network.device)
        for _ in range(self.search):
            images, labels = next(lessons)
            (slope,) = torch.autograd.grad(self._harm(network, images, labels)(change.requires_grad_(True)), change)
            with torch.no_grad():
                change = change - slope * (self.radius / 4 / (slope.norm() + 1e-12))
                change = change * (self.radius / max(self.radius, float(change.norm())))
            tick(1)
        return change.detach()

    def _harm(self, network: Network, images: torch.Tensor, labels: torch.Tensor) -> Scalar:
        """What the change minimises: the loss with its sign turned, and its own size."""

        def harm(change: torch.Tensor) -> torch.Tensor:
            lost = functional.cross_entropy(network((images + change).clamp(0, 1)), labels)
            return self.penalty * change.square().sum() - lost

        return harm

    def _gradients(
        self,
        network: Network,
        parameters: Sequence[torch.Tensor],
        images: torch.Tensor,
        labels: torch.Tensor,
        change: torch.Tensor,
    ) -> list[torch.Tensor]:
        """Of the loss on images of which a share is under the change, which moves as the network does."""
        under = max(1, round(self.share * len(images)))

        def outer(change: torch.Tensor) -> torch.Tensor:
            seen = torch.cat([(images[:under] + change).clamp(0, 1), images[under:]])
            return functional.cross_entropy(network(seen), labels)

        inner = self._harm(network, images, labels)
        direct, through = hypergradient(outer, inner, parameters, change, self.terms, self.inner_rate, self.radius)
        # away from the inner optimum the series grows: it may not outweigh the direct part (ours)
        weight = min(1.0, _norm(direct) / (_norm(through) + 1e-12))
        return [d + weight * t for d, t in zip(direct, through, strict=True)]


def _norm(tensors: Sequence[torch.Tensor]) -> float:
    return sum(float(tensor.square().sum()) for tensor in tensors) ** 0.5


def hypergradient(
    outer: Scalar,
    inner: Scalar,
    parameters: Sequence[torch.Tensor],
    change: torch.Tensor,
    terms: int,
    rate: float,
    radius: float,
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The two parts of the gradient of outer(change*(parameters)); change* is where a step of descent on inner rests.

    With phi(change) = change - rate * d inner, put back within the radius, they are d outer / d parameters and
    (d phi / d parameters)' q, where q = sum over k up to `terms` of ((d phi / d change)')^k d outer / d change.
    """
    change = change.detach().requires_grad_(True)
    direct = torch.autograd.grad(outer(change), [change, *parameters], allow_unused=True)
    (slope,) = torch.autograd.grad(inner(change), change, create_graph=True)
    phi = change - rate * slope
    phi = phi * (radius / phi.norm().clamp(min=radius))
    start = direct[0] if direct[0] is not None else torch.zeros_like(change)
    total = start
    for _ in range(terms):
        (pulled,) = torch.autograd.grad(phi, change, total, retain_graph=True)
        total = start + pulled
    through = torch.autograd.grad(phi, parameters, total, allow_unused=True)
    return _filled(direct[1:], parameters), _filled(through, parameters)


def _filled(gradients: Sequence[torch.Tensor | None], parameters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Gradients with zeros for parameters that do not matter."""
    return [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]
