"""Accuracy and attack success, measured one way for every method."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network
    from agnes.results import Trigger
    from agnes.samples import Samples


def predictions(network: Network, images: torch.Tensor, backend: Backend) -> torch.Tensor:
    """The class each image is given."""
    with torch.no_grad():
        return backend.map(lambda part: network(part).argmax(1), images)


def accuracy(network: Network, samples: Samples, backend: Backend) -> tuple[float | None, int]:
    """The share of labelled images classified right, and their number; the test part is taken where there is one."""
    measured = samples.test if samples.test is not None and samples.test.labels is not None else samples
    if measured.labels is None or len(measured) == 0:
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
