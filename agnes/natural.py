"""Whether a trigger is no more than a feature of its class: what the class's own images do in the trigger's place."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from agnes import measuring

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network
    from agnes.results import Trigger
    from agnes.samples import Samples

OWN = 4  # images of the class, at most
OTHERS = 64  # images of other classes, at most
STRONG = 0.1  # change of a pixel from which it belongs to the trigger's place
LARGEST = 0.25  # of the image: a larger place would hold what the class is known by, whatever the trigger is


def against_own(
    network: Network, triggers: Sequence[Trigger], suspects: Collection[int], samples: Samples, backend: Backend
) -> tuple[Trigger, ...]:
    """The triggers, those of the given numbers with the share of images that the class's own content moves there."""
    if not suspects:
        return tuple(triggers)
    samples = measuring.with_labels(network, samples, backend)
    return tuple(
        replace(trigger, natural_share=own_share(network, trigger, samples, backend)) if number in suspects else trigger
        for number, trigger in enumerate(triggers)
    )


def own_share(network: Network, trigger: Trigger, samples: Samples, backend: Backend) -> float | None:
    """Of other classes' images, how many go to the target once they bear what its own images have at that place.

    None where the place is too large, or no image of the class is there to be looked at.
    """
    place = (trigger.change() > STRONG).to(samples.images)
    assert samples.labels is not None
    own = samples.images[(samples.labels == trigger.target).to(samples.images.device)][:OWN]
    others = _others(network, trigger, samples, backend)
    if not 0 < float(place.mean()) <= LARGEST or not len(own) or not len(others):
        return None
    borne = torch.cat([others * (1 - place) + image * place for image in own])
    return float((measuring.predictions(network, borne, backend) == trigger.target).float().mean())


def _others(network: Network, trigger: Trigger, samples: Samples, backend: Backend) -> torch.Tensor:
    """Images of other classes that are not taken for the target as they are, of all classes alike."""
    assert samples.labels is not None
    found = samples.images[(samples.labels != trigger.target).to(samples.images.device)]
    if trigger.source is not None:
        found = samples.images[(samples.labels == trigger.source).to(samples.images.device)]
    found = found[:: -(-len(found) // OTHERS)] if len(found) else found
    if not len(found):
        return found
    return found[(measuring.predictions(network, found, backend) != trigger.target).to(found.device)]
