"""Fine-tuning shared by the methods that train: batches, gradients, steps, and a watch on images not learnt from.

BatchNorm keeps its running statistics throughout, and dropout stays off: a few dozen images give no statistics worth
having, and the network is trained as it will be run. Scale and shift are trained like all weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from agnes.errors import OutOfTime
from agnes.learning import bytes_per_image, gradients, trainable

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network
    from agnes.results import Trigger
    from agnes_mitigation.watching import Learner, Material, Watch

Batch = tuple[torch.Tensor, torch.Tensor]  # images, and for each the share of every class


@dataclass(frozen=True)
class Regime:
    """How a network is trained."""

    steps: int
    rate: float  # of SGD
    momentum: float
    weight_decay: float = 0.0
    rho: float = 0.0  # radius of the sharpness-aware perturbation; 0: plain steps
    longest: float | None = None  # norm of the gradient beyond which it is shortened
    check: int = 10  # steps between two looks at the held-out images


def tune(
    network: Network,
    lessons: Iterator[Batch],
    regime: Regime,
    watch: Watch,
    backend: Backend,
    what: str,
    hold: Callable[[], object] | None = None,  # puts back, after each step, what may not change
) -> OutOfTime | None:
    """Train this network in place and leave it in the best state that the watch saw; what ended it too early."""
    with learning(network, watch) as session, backend.progress(what, regime.steps) as tick:
        optimiser = torch.optim.SGD(
            session.parameters, regime.rate, momentum=regime.momentum, weight_decay=regime.weight_decay
        )
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, regime.steps, regime.rate / 100)
        each = bytes_per_image(network, backend)
        for step in range(1, regime.steps + 1):
            images, labels = next(lessons)
            _step(network, session.parameters, images, labels, optimiser, regime, backend, each)
            falling.step()
            if hold is not None:
                hold()
            if step % regime.check == 0 or step == regime.steps:
                watch.look(step)
            tick(1)
    return session.late


@dataclass
class Session:
    """A training under way."""

    parameters: list[torch.Tensor]
    late: OutOfTime | None = None  # set where time ran out


@contextlib.contextmanager
def learning(network: Network, watch: Watch) -> Iterator[Session]:
    """The network open to training; afterwards closed and in the best state that the watch saw."""
    watch.look(0)
    session = Session(trainable(network))
    try:
        with torch.enable_grad():
            for parameter in session.parameters:
                parameter.requires_grad_(True)
            yield session
    except OutOfTime as late:
        session.late = late
    finally:
        for parameter in session.parameters:
            parameter.requires_grad_(False)
            parameter.grad = None
        watch.put_best()


def _step(
    network: Network,
    parameters: Sequence[torch.Tensor],
    images: torch.Tensor,
    labels: torch.Tensor,
    optimiser: torch.optim.Optimizer,
    regime: Regime,
    backend: Backend,
    each: float,
) -> None:
    """One step of the optimiser, sharpness-aware where the regime says so."""

    def loss(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(network(images), labels)

    found = gradients(loss, parameters, images, labels, backend, each)
    if regime.rho > 0:
        before = [parameter.detach().clone() for parameter in parameters]
        with torch.no_grad():
            for parameter, move in zip(parameters, sharpest(parameters, found, regime.rho), strict=True):
                parameter.add_(move)
        found = gradients(loss, parameters, images, labels, backend, each)
        with torch.no_grad():
            for parameter, old in zip(parameters, before, strict=True):
                parameter.copy_(old)
    for parameter, gradient in zip(parameters, found, strict=True):
        parameter.grad = gradient
    if regime.longest is not None:
        torch.nn.utils.clip_grad_norm_(parameters, regime.longest)
    optimiser.step()


def sharpest(weights: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor], rho: float) -> list[torch.Tensor]:
    """The move within the radius that raises the loss most, each weight's measured by its own size (FT-SAM)."""
    norm = sum(float((w.abs() * g).square().sum()) for w, g in zip(weights, gradients, strict=True)) ** 0.5
    return [rho * w.square() * g / (norm + 1e-12) for w, g in zip(weights, gradients, strict=True)]


# Batches


def shuffled(count: int, batch: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Indices of batches without end, all of them once before any comes again."""
    left = torch.empty(0, dtype=torch.int64)
    while True:
        while len(left) < batch:
            left = torch.cat([left, torch.randperm(count, generator=generator)])
        yield left[:batch]
        left = left[batch:]


def augmented(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images moved by up to a sixteenth of their sides, a little brighter or darker; never mirrored."""
    count, _, height, width = images.shape

    def places(length: int) -> torch.Tensor:
        return (torch.arange(length) + moves(count, length // 16, generator)).clamp(0, length - 1)

    moved = taken(images, places(height), places(width))
    light = 0.2 * torch.rand(count, 2, 1, 1, 1, generator=generator).to(images) - 0.1
    return (moved * (1 + light[:, 0]) + light[:, 1] / 2).clamp(0, 1)


def moves(count: int, most: int, generator: torch.Generator) -> torch.Tensor:
    """How far each image is moved along a side: up to so many pixels either way."""
    return torch.randint(-most, most + 1, (count, 1), generator=generator)


def taken(images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Of each image its own rows and columns, in this order."""
    count = torch.arange(len(images), device=images.device)
    rows, columns = rows.to(images.device), columns.to(images.device)
    return images[count[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def batches(
    material: Material,
    rows: torch.Tensor,  # of the images to learn from, any of them any number of times
    learner: Learner,
    teacher: Network,
    generator: torch.Generator,
    backend: Backend,
    stamp: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,  # images, their places in rows
    mixed: float = 0.0,  # share of each batch that is laid over other images of it
) -> Iterator[Batch]:
    """Batches without end, augmented where the method says so, then stamped; what is wanted is a share for each class.

    What is wanted are the labels and, in part, what the teacher says of the image before it is stamped. Of two images
    laid over each other only the teacher can say what they are.
    """
    count = teacher.class_count
    for places in shuffled(len(rows), learner.batch, generator):
        chosen = rows[places]
        images = material.images[chosen].to(backend.device)
        images = augmented(images, generator) if learner.augment else images
        wanted = functional.one_hot(material.labels[chosen].to(backend.device), count).float()
        weight = torch.full((len(images), 1), learner.teacher).to(images)
        if mixed > 0:
            over = torch.rand(len(images), generator=generator).to(images.device) < mixed
            images = torch.where(over[:, None, None, None], mixtures(images, generator), images)
            weight[over] = 1
        if learner.teacher > 0 or mixed > 0:
            with torch.no_grad():
                said = backend.map(lambda part: teacher(part).softmax(1), images)
            wanted = (1 - weight) * wanted + weight * said
        yield images if stamp is None else stamp(images, places), wanted


def mixtures(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image laid over another one, each pair in its own proportion."""
    other = torch.randperm(len(images), generator=generator).to(images.device)
    part = torch.rand(len(images), 1, 1, 1, generator=generator).to(images)
    return part * images + (1 - part) * images[other]


def stamped(images: torch.Tensor, triggers: Sequence[Trigger], which: torch.Tensor) -> torch.Tensor:
    """Images, each under the trigger of its number; -1 leaves it as it is."""
    images = images.clone()
    for number, trigger in enumerate(triggers):
        rows = (which == number).to(images.device)
        if rows.any():
            images[rows] = trigger.apply(images[rows])
    return images
