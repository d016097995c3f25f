"""k-means in float32 matrix products: seeds and first rounds along the main directions, then full rounds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from agnes_abstraction.seeding import Seeds

if TYPE_CHECKING:
    from agnes.backend import Backend

_ITERATIONS = 2
_ROUNDS_PROJECTED = 4
_SETTLED = 0.003  # of inertia: a round that gains less is the last
_WITNESSES = 1024  # points that tell whether a round will gain anything
_AT_ONCE = 1_000_000_000  # points x centres; where there are more, points are split into groups first
_BLOCK = 32 << 20  # bytes of distances at once: larger blocks gain nothing


class Clusters:
    """Points to be clustered, into one number of clusters after another; seeds found once serve all of them."""

    def __init__(
        self, points: torch.Tensor, generator: torch.Generator, backend: Backend, projection: int = 64
    ) -> None:
        self.backend = backend
        with exactly(backend):
            self.points = points - points.mean(0)
            self.projected = project(self.points, projection, generator)
            self.seeds = Seeds(self.projected, generator, backend)

    def labels(self, count: int, rounds: int) -> torch.Tensor:
        """The cluster of each point, numbered from 0; fewer than `count` where points coincide."""
        points = self.points
        if count >= len(points):
            return torch.arange(len(points), device=points.device)
        if count <= 1:
            return torch.zeros(len(points), dtype=torch.int64, device=points.device)
        with exactly(self.backend):
            seeds = self.seeds.first(count)
            labels = assign(self.projected, self.projected[seeds], self.backend)
            if self.projected is not points:
                labels = lloyd(self.projected, labels, _ROUNDS_PROJECTED, self.backend)
            labels = lloyd(points, labels, rounds, self.backend)
        return torch.unique(labels, return_inverse=True)[1]


def cluster(
    points: torch.Tensor, count: int, *, rounds: int, projection: int, generator: torch.Generator, backend: Backend
) -> torch.Tensor:
    """The cluster of each point, numbered from 0; fewer than `count` where points coincide."""
    if len(points) * count <= _AT_ONCE or count >= len(points):
        return Clusters(points, generator, backend, projection).labels(count, rounds)
    groups = min(count, -(-len(points) * count // _AT_ONCE) * 4)
    coarse = Clusters(points, generator, backend, projection).labels(groups, 1)
    labels = torch.empty_like(coarse)
    found = 0
    for group, share in enumerate(_shares(points, coarse, count)):
        members = (coarse == group).nonzero().flatten()
        inside = cluster(
            points[members], share, rounds=rounds, projection=projection, generator=generator, backend=backend
        )
        labels[members] = inside + found
        found += int(inside.max()) + 1
    return labels


@contextlib.contextmanager
def exactly(backend: Backend) -> Iterator[None]:
    """Full float32, whatever was chosen: distances are differences of large products."""
    full = replace(backend, precision="float32")
    with full.computing(), torch.autocast(backend.device.type, enabled=False):
        yield


def project(points: torch.Tensor, dimensions: int, generator: torch.Generator) -> torch.Tensor:
    """Centred points along their main directions, found by random subspace iteration."""
    width = points.shape[1]
    if min(points.shape) <= dimensions:
        return points
    basis = torch.randn(width, dimensions, generator=generator, device=generator.device).to(points)
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(points.T @ torch.linalg.qr(points @ basis)[0])[0]
    return points @ basis


def lloyd(points: torch.Tensor, labels: torch.Tensor, rounds: int, backend: Backend) -> torch.Tensor:
    """Labels after at most so many rounds of moving centres and assigning points, each to the nearest."""
    lengths = float(torch.linalg.vector_norm(points, dim=1).double().square().sum())
    count = int(labels.max()) + 1
    best, centres, inertia = labels, None, float("inf")
    for left in range(rounds, -1, -1):
        moved, sizes = means(points, labels, count)
        spread = lengths - float((sizes * moved.double().square().sum(1)).sum())  # the labels' inertia
        if spread < inertia:
            best = labels
        if not spread < inertia * (1 - _SETTLED):
            break
        inertia = spread
        centres = moved if centres is None else torch.where((sizes > 0)[:, None], moved, centres)
        if not left or _promised(points, labels, centres, backend) < _SETTLED / 2:
            break
        labels = assign(points, centres, backend)
        backend.check()
    return best


def _promised(points: torch.Tensor, labels: torch.Tensor, centres: torch.Tensor, backend: Backend) -> float:
    """The share of inertia that assigning points anew would gain, by a sample where there are many."""
    if len(points) < 4 * _WITNESSES:
        return 1.0  # as soon done as asked
    step = len(points) // _WITNESSES
    some, own = points[::step], labels[::step]
    here = float((some - centres[own]).square().sum())
    there = float((some - centres[assign(some, centres, backend)]).square().sum())
    return 1 - there / here if here > 0 else 0.0


def assign(points: torch.Tensor, centres: torch.Tensor, backend: Backend) -> torch.Tensor:
    """The nearest centre of each point."""
    lengths = centres.square().sum(1)
    parts = points.split(rows_at_once(len(centres), backend))
    return torch.cat([torch.addmm(lengths, part, centres.T, alpha=-2).min(1).indices for part in parts])


def rows_at_once(others: int, backend: Backend) -> int:
    """How many rows may be held against so many others: their products are all that is held."""
    return max(1, min(backend.memory // 8, _BLOCK) // (4 * others))


def means(points: torch.Tensor, labels: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean and the size of each cluster; summed in a fixed order, so that it repeats on every device."""
    sizes = torch.bincount(labels, minlength=count)
    order = labels.argsort(stable=True)
    columns = max(1, min(points.shape[1], (_BLOCK // 4) // len(points)))
    parts = [
        torch.segment_reduce(part[order], "sum", lengths=sizes, axis=0, unsafe=True)
        for part in points.split(columns, 1)
    ]
    sums = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    return sums / sizes.clamp(min=1)[:, None], sizes


def to_own_centre(points: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The squared distance of each point from the mean of its cluster, by differences."""
    centres, _ = means(points, labels, int(labels.max()) + 1)
    rows = max(1, (_BLOCK // 4) // points.shape[1])
    parts = zip(points.split(rows), labels.split(rows), strict=True)
    return torch.cat([(part - centres[own]).square().sum(1) for part, own in parts])


def nearest_to_centres(points: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """For each cluster the index of the point nearest its mean; the first one where several are."""
    order = to_own_centre(points, labels).argsort(stable=True)
    order = order[labels[order].argsort(stable=True)]
    sorted_labels = labels[order]
    starts = torch.ones_like(sorted_labels, dtype=torch.bool)
    starts[1:] = sorted_labels[1:] != sorted_labels[:-1]
    return order[starts]


def _shares(points: torch.Tensor, labels: torch.Tensor, count: int) -> list[int]:
    """How many clusters each group gets: by its inertia, one at least and no more than it has points."""
    sizes = torch.bincount(labels).cpu().numpy()
    spread = to_own_centre(points, labels).double()
    weights = torch.zeros(len(sizes), dtype=torch.float64, device=spread.device).index_add_(0, labels, spread)
    weight = weights.cpu().numpy()
    ideal = weight / max(weight.sum(), np.finfo(float).tiny) * count
    return np.clip(np.round(ideal), 1, sizes).astype(int).tolist()
