"""What trying many changes comes to, by plain loops over changes, images and classes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Hashable, Sequence

import torch

from agnes.network import Network
from agnes.samples import Samples

Changed = Callable[[int, torch.Tensor], torch.Tensor]


def margins(logits: torch.Tensor) -> list[list[float]]:
    """Of every image and class the logit less the largest of the others."""
    rows = logits.tolist()
    return [[row[c] - max(v for o, v in enumerate(row) if o != c) for c in range(len(row))] for row in rows]


def unit_of(network: Network, known: Samples) -> float:
    """The lower median of the margins of images that are taken for what they are."""
    seen = zip(margins(network(known.images)), known.labels.tolist(), strict=True)
    return statistics.median_low([row[label] for row, label in seen if row[label] > 0])


def led(network: Network, images: torch.Tensor, labels: torch.Tensor, unit: float) -> tuple[list[float], float]:
    """How far images of other classes are led to each class, and how far all keep their own."""
    rows, owners = margins(network(images)), labels.tolist()
    to_each = []
    for label in range(len(rows[0])):
        counted = [max(row[label] / unit, -1.5) for row, own in zip(rows, owners, strict=True) if own != label]
        lifted = [math.log(1 + value) if value > 0 else value for value in counted]
        to_each.append(sum(lifted) / len(lifted) if lifted else 0.0)
    kept = [min(max(row[own] / unit, -1), 1) for row, own in zip(rows, owners, strict=True)]
    return to_each, sum(kept) / len(kept)


def below(share: float, values: Sequence[float]) -> float:
    """The least value that at least so large a share of all does not exceed."""
    return min(value for value in values if sum(each <= value for each in values) >= share * len(values))


def by_class(
    network: Network,
    known: Samples,
    changed: Changed,
    groups: Sequence[Hashable],
    spared: float,
    natural: Callable[[int, int], bool] = lambda number, label: False,
    few: Samples | None = None,
    best: int | None = None,
    milder: float = 0.5,
    looks: Samples | None = None,
) -> list[float]:
    """For each class the score of its best change; tried on `few` images first, where some are given.

    The best are tried on `looks`, or on all images that are known.
    """
    few, unit = few or known, unit_of(network, known)
    first = [led(network, changed(number, few.images), few.labels, unit) for number in range(len(groups))]
    lost = []
    for group in groups:
        alike = [kept for (_, kept), other in zip(first, groups, strict=True) if other == group]
        lost.append(spared * (1 - below(milder, alike)))
    scores = []
    for label in range(network.class_count):
        tried = [number for number in range(len(groups)) if not natural(number, label)]
        tried.sort(key=lambda number: first[number][0][label] - lost[number], reverse=True)
        on = looks or known
        again = [(led(network, changed(n, on.images), on.labels, unit)[0][label], lost[n]) for n in tried[:best]]
        scores.append(max((to_class - less for to_class, less in again), default=-1.5 - 2 * spared))
    return scores
