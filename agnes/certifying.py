"""What a repair did, counted: answers on labelled images, weights that differ, and answers that stayed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from agnes import measuring
from agnes.learning import tensor_at

if TYPE_CHECKING:
    from agnes.backend import Backend
    from agnes.network import Network
    from agnes.results import Confusion
    from agnes.samples import Samples


def confusion(network: Network, samples: Samples, backend: Backend) -> Confusion:
    """How many images of each class are taken for which, on the images that give the accuracy."""
    scored = measuring.scored(samples)
    if scored is None or scored.labels is None:
        return ()
    seen = measuring.predictions(network, scored.images, backend).cpu()
    pairs, counts = torch.stack([scored.labels.cpu(), seen], dim=1).unique(dim=0, return_counts=True)
    return tuple((int(row[0]), int(row[1]), int(count)) for row, count in zip(pairs, counts, strict=True))


def agreement(one: Network, other: Network, samples: Samples, backend: Backend) -> float:
    """The share of images that both networks call the same; labels are not asked for."""
    images = (samples.test or samples).images
    same = measuring.predictions(one, images, backend) == measuring.predictions(other, images, backend)
    return float(same.float().mean())


def weights(network: Network) -> dict[str, torch.Tensor]:
    """The parameters, and the layers' weights that a file brought as plain tensors, by path."""
    named = dict(network.module.named_parameters())
    for layer in network.layers:
        for path in filter(None, (layer.weight, layer.bias)):
            named.setdefault(path, tensor_at(network, path))  # type: ignore[arg-type]
    return dict(named)


def weights_changed(before: Network, after: Network) -> int:
    """How many numbers differ."""
    now = weights(after)
    changed = 0
    for path, tensor in weights(before).items():
        if path not in now or now[path].shape != tensor.shape:
            changed += tensor.numel()
        else:
            changed += int((now[path] != tensor).sum())
    return changed
