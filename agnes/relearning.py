"""Whether a repaired network takes its backdoor up again more readily than it learns something new.

A few images under the trigger are taught as the target, a few benign ones as what they are, and steps are counted until
half of other images obey the trigger. The same is done with other classes in the target's place: a network that has
forgotten its backdoor takes about as long for the one as for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from agnes.learning import bytes_per_image, gradients, trainable
from agnes.results import Relearning

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network
    from agnes.results import Trigger
    from agnes.samples import Samples

LEARNT = 8  # images under the trigger, and as many benign ones
MEASURED = 32  # further images at most
LIMIT = 20  # steps at most
GOAL = 0.5  # success at which a class counts as learnt
CONTROLS = 3  # other classes that are taught in the target's place
_RATE, _MOMENTUM, _LONGEST = 0.02, 0.9, 1.0  # of SGD; longer gradients are shortened to this norm


def relearn(network: Network, trigger: Trigger, samples: Samples, backend: Backend) -> Relearning | None:
    """Steps until the trigger leads to its target again, and to other classes; None: too few images for it.

    `samples` have labels; the network itself is left alone.
    """
    assert samples.labels is not None
    labels = samples.labels.cpu()
    fit = labels != trigger.target
    if trigger.source is not None:
        fit &= labels == trigger.source
    draw = backend.generator("relearning", device="cpu")
    rows = fit.nonzero().flatten()
    rows = rows[torch.randperm(len(rows), generator=draw)]
    others = [c for c in torch.randperm(network.class_count, generator=draw).tolist() if c != trigger.target]
    others = [c for c in others if c != trigger.source][:CONTROLS]
    count = min(LEARNT, len(rows) // 2)
    if count < 2 or not others:
        return None
    learnt, further = samples.subset(rows[:count]), samples.subset(rows[count : count + MEASURED])
    steps = {c: _steps(network, trigger, c, learnt, further, backend) for c in (trigger.target, *others)}
    controls = {c: steps[c] for c in sorted(others)}
    return Relearning(trigger.target, trigger.method, len(learnt), len(further), LIMIT, steps[trigger.target], controls)


def _steps(
    network: Network, trigger: Trigger, taught: int, learnt: Samples, further: Samples, backend: Backend
) -> int | None:
    """Steps until the trigger leads to the class that is taught; None: not within the limit."""
    copy = network.copy()
    assert learnt.labels is not None
    assert further.labels is not None
    unlike = further.images[further.labels != taught]
    benign = learnt.images.to(backend.device)
    images = torch.cat([trigger.apply(benign), benign])
    wanted = torch.cat([torch.full_like(learnt.labels, taught), learnt.labels]).to(backend.device)
    parameters = trainable(copy)
    speeds = [torch.zeros_like(parameter) for parameter in parameters]
    each = bytes_per_image(copy, backend)
    for step in range(LIMIT + 1):
        if _obeys(copy, trigger, taught, unlike, backend, each) >= GOAL:
            return step
        backend.check()
        if step < LIMIT:
            _step(copy, parameters, speeds, images, wanted, backend, each)
    return None


def _step(
    network: Network,
    parameters: Sequence[torch.Tensor],
    speeds: Sequence[torch.Tensor],
    images: torch.Tensor,
    wanted: torch.Tensor,
    backend: Backend,
    each: float,
) -> None:
    """One step of gradient descent with momentum, its gradient shortened where it is long."""

    def loss(images: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(network(images), wanted)

    with torch.enable_grad():
        for parameter in parameters:
            parameter.requires_grad_(True)
        found = gradients(loss, parameters, images, wanted, backend, each)
    norm = sum(float(gradient.square().sum()) for gradient in found) ** 0.5
    shorter = min(1.0, _LONGEST / (norm + 1e-12))
    for parameter, speed, gradient in zip(parameters, speeds, found, strict=True):
        parameter.requires_grad_(False)
        parameter.sub_(_RATE * speed.mul_(_MOMENTUM).add_(gradient, alpha=shorter))


def _obeys(
    network: Network, trigger: Trigger, taught: int, images: torch.Tensor, backend: Backend, each: float
) -> float:
    """The share of images that go to the class under the trigger, and do not without it."""

    def work(start: int, stop: int) -> int:
        part = images[start:stop].to(backend.device)
        under, without = network(trigger.apply(part)).argmax(1), network(part).argmax(1)
        return int(((under == taught) & (without != taught)).sum())

    with torch.no_grad():
        return sum(backend.chunked(work, len(images), each=each)) / max(1, len(images))
