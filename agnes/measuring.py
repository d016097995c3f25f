"""Accuracy, attack success and what a trigger changes inside, measured one way for every method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.layers import Layer
    from agnes.network import Network
    from agnes.results import Trigger
    from agnes.samples import Samples

_CHANGED = 0.1  # of full brightness


def predictions(network: Network, images: torch.Tensor, backend: Backend) -> torch.Tensor:
    """The class each image is given."""
    with torch.no_grad():
        return backend.map(lambda part: network(part).argmax(1), images)


def accuracy(network: Network, samples: Samples, backend: Backend) -> tuple[float | None, int]:
    """The share of labelled images classified right, and their number; the test part is taken where there is one."""
    measured = scored(samples)
    if measured is None or measured.labels is None:
        return None, 0
    right = predictions(network, measured.images, backend) == measured.labels.to(backend.device)
    return float(right.float().mean()), len(measured)


def with_labels(network: Network, samples: Samples, backend: Backend) -> Samples:
    """The samples, those without labels called what this network calls them."""
    test = None if samples.test is None else with_labels(network, samples.test, backend)
    if samples.labels is None:
        samples = replace(samples, labels=predictions(network, samples.images, backend).to(samples.images.device))
    return replace(samples, test=test)


def attack_success(network: Network, trigger: Trigger, samples: Samples, backend: Backend) -> tuple[float, int]:
    """The share of images not of the target class that the trigger sends there, and the number of those images."""
    measured = samples.test if samples.test is not None else samples
    classes = measured.labels if measured.labels is not None else predictions(network, measured.images, backend).cpu()
    eligible = (classes != trigger.target).cpu()
    if trigger.source is not None:
        eligible &= (classes == trigger.source).cpu()
    images = measured.images[eligible.to(measured.images.device)]
    if len(images) == 0:
        return 0.0, 0
    with torch.no_grad():
        hits = backend.map(lambda part: network(trigger.apply(part)).argmax(1), images) == trigger.target
    return float(hits.float().mean()), len(images)


def reach(network: Network, trigger: Trigger, samples: Samples, backend: Backend) -> float:
    """The share of the classes, less the target, of which the trigger sends most images to the target."""
    measured = with_labels(network, samples.test if samples.test is not None else samples, backend)
    assert measured.labels is not None
    labels = measured.labels.to(backend.device)
    with torch.no_grad():
        hits = backend.map(lambda part: network(trigger.apply(part)).argmax(1), measured.images) == trigger.target
    classes = [label for label in labels.unique().tolist() if label != trigger.target]
    moved = sum(float(hits[labels == label].float().mean()) > 0.5 for label in classes)
    return moved / len(classes) if classes else 0.0


def with_success(
    network: Network, trigger: Trigger, samples: Samples, backend: Backend, *, unseen: bool = True
) -> Trigger:
    """The trigger with its success on the test part, or on these images; `unseen`: it was not chosen on the latter."""
    asr, count = attack_success(network, trigger, samples, backend)
    return replace(trigger, asr=asr, held_out=count, unseen=unseen or samples.test is not None)


@dataclass(frozen=True)
class Likeness:
    """How like a true trigger another is; for experiments, where the true one is known."""

    mse: float  # of the changes that both make, squared, summed over colours, mean over pixels (Koldenhof, table 5.6)
    iou: float  # pixels that both change, of those that either does; 1 where neither does


def likeness(trigger: Trigger, true: Trigger, images: torch.Tensor, least: float = _CHANGED) -> Likeness:
    """How like the true trigger another is, by the mean change that each makes to some images.

    `least`: so strong a change in any colour counts as one for `iou`.
    """
    with torch.no_grad():
        one, other = ((each.apply(images) - images).mean(0) for each in (trigger, true))
        ours, theirs = (change.abs().amax(0) >= least for change in (one, other))
        either = int((ours | theirs).sum())
        both = int((ours & theirs).sum())
        return Likeness(float((one - other).square().sum(0).mean()), both / either if either else 1.0)


def trigger_activated_change(
    network: Network, trigger: Trigger, images: torch.Tensor, layers: Sequence[Layer], backend: Backend
) -> dict[str, torch.Tensor]:
    """Per layer, for each channel the mean over images of the Frobenius norm of its change (Koldenhof, 4.3)."""
    if not layers:
        return {}

    def change(part: torch.Tensor) -> torch.Tensor:
        benign, triggered = network.read(part, layers), network.read(trigger.apply(part), layers)
        norms = [layer.by_channel(triggered[layer.name] - benign[layer.name]).norm(dim=2) for layer in layers]
        return torch.cat(norms, dim=1)  # images, channels of all layers

    with torch.no_grad():
        means = backend.map(change, images, what="reading what the trigger changes").mean(0)
    return dict(zip([layer.name for layer in layers], means.split([layer.channels for layer in layers]), strict=True))


def z_scores(values: torch.Tensor) -> torch.Tensor:
    """How many standard deviations each channel lies above the mean of its layer; zero where all are alike."""
    deviations = values - values.mean()
    spread = deviations.square().mean().sqrt()
    return deviations / spread if spread > 1e-6 * values.abs().max() else torch.zeros_like(values)


def outstanding(changes: Mapping[str, torch.Tensor], threshold: float) -> dict[tuple[str, int], float]:
    """The channels at or above the threshold, as (layer, channel), with their scores."""
    found: dict[tuple[str, int], float] = {}
    for layer, values in changes.items():
        scores = z_scores(values)
        for channel in (scores >= threshold).nonzero().flatten().tolist():
            found[layer, channel] = float(scores[channel])
    return found


def scored(samples: Samples) -> Samples | None:
    """The images that give the accuracy: the test part where it has labels, else the samples; None: no labels."""
    measured = samples.test if samples.test is not None and samples.test.labels is not None else samples
    return None if measured.labels is None or len(measured) == 0 else measured
