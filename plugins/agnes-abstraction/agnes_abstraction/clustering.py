"""k-means in float32 matrix products: greedy seeding in blocks, then Lloyd's rounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from agnes.backend import Backend

_BLOCK = 0.1  # new centres of a seeding step, as a share of those there are
_LARGEST_BLOCK = 64
_TRIALS = 4  # points drawn for each new centre of a block
_FIRST_TRIALS = 8  # while centres come one at a time


def cluster(
    points: torch.Tensor, count: int, *, rounds: int, projection: int, generator: torch.Generator, backend: Backend
) -> torch.Tensor:
    """The cluster of each point, numbered from 0; fewer than `count` where points coincide."""
    if count >= len(points):
        return torch.arange(len(points), device=points.device)
    if count == 1:
        return torch.zeros(len(points), dtype=torch.int64, device=points.device)
    with torch.autocast(points.device.type, enabled=False):  # differences of large products: float32 is the least
        points = points - points.mean(0)
        seeds = seed(project(points, projection, generator), count, generator, backend)
        labels = lloyd(points, points[seeds], rounds, backend)
    return torch.unique(labels, return_inverse=True)[1]


def project(points: torch.Tensor, dimensions: int, generator: torch.Generator) -> torch.Tensor:
    """Points in fewer random dimensions, their distances kept on average."""
    width = points.shape[1]
    if width <= dimensions:
        return points
    directions = torch.randn(width, dimensions, generator=generator, device=points.device)
    return points @ (directions / dimensions**0.5)


def seed(points: torch.Tensor, count: int, generator: torch.Generator, backend: Backend) -> torch.Tensor:
    """Indices of starting centres: k-means++, greedy, several centres a step.

    Points are drawn in proportion to their squared distance from the centres so far. Of those drawn, the ones that
    shorten the most are kept, leaving out any that lies in the reach of another.
    """
    first = torch.randint(len(points), (1,), generator=generator, device=points.device)
    near = _distances(points, points[first])[:, 0]
    near[first] = 0
    chosen = [first]
    found = 1
    while found < count:
        block = min(count - found, max(1, int(found * _BLOCK)), _LARGEST_BLOCK)
        drawn = min(block * _TRIALS if block > 1 else _FIRST_TRIALS, int((near > 0).sum()))
        if drawn == 0:
            break  # every point coincides with a centre
        trials = torch.multinomial(near, drawn, replacement=False, generator=generator)
        kept = _best_apart(points, trials, near, block, backend)
        nearer = _by_rows(lambda part, at=points[kept]: _distances(part, at).amin(1), points, len(kept), backend)
        near = torch.minimum(near, nearer)
        near[kept] = 0
        chosen.append(kept)
        found += len(kept)
        backend.check()
    return torch.cat(chosen)


def lloyd(points: torch.Tensor, centres: torch.Tensor, rounds: int, backend: Backend) -> torch.Tensor:
    """Labels after at most so many rounds of assigning points and moving centres."""
    labels = assign(points, centres, backend)
    for _ in range(rounds):
        moved, sizes = means(points, labels, len(centres))
        centres = torch.where((sizes > 0)[:, None], moved, centres)
        before, labels = labels, assign(points, centres, backend)
        if torch.equal(before, labels):
            break
        backend.check()
    return labels


def assign(points: torch.Tensor, centres: torch.Tensor, backend: Backend) -> torch.Tensor:
    """The nearest centre of each point."""
    lengths = centres.square().sum(1)

    def nearest(part: torch.Tensor) -> torch.Tensor:
        return torch.addmm(lengths, part, centres.T, alpha=-2).argmin(1)

    return _by_rows(nearest, points, len(centres), backend)


def means(points: torch.Tensor, labels: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean and the size of each cluster; summed in a fixed order, so that it repeats on every device."""
    sizes = torch.bincount(labels, minlength=count)
    ordered = points[labels.argsort(stable=True)]
    sums = torch.segment_reduce(ordered, "sum", lengths=sizes, axis=0, unsafe=True)
    return sums / sizes.clamp(min=1)[:, None], sizes


def to_own_centre(points: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The squared distance of each point from the mean of its cluster, by differences."""
    centres, _ = means(points, labels, int(labels.max()) + 1)
    return (points - centres[labels]).square().sum(1)


def nearest_to_centres(points: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """For each cluster the index of the point nearest its mean; the first one where several are."""
    order = to_own_centre(points, labels).argsort(stable=True)
    order = order[labels[order].argsort(stable=True)]
    sorted_labels = labels[order]
    starts = torch.ones_like(sorted_labels, dtype=torch.bool)
    starts[1:] = sorted_labels[1:] != sorted_labels[:-1]
    return order[starts]


def _distances(points: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    lengths = others.square().sum(1)
    return torch.addmm(lengths, points, others.T, alpha=-2).add_(points.square().sum(1)[:, None]).clamp_(min=0)


def _best_apart(
    points: torch.Tensor, trials: torch.Tensor, near: torch.Tensor, block: int, backend: Backend
) -> torch.Tensor:
    """Of the points drawn, up to `block` that shorten the distances most and do not take from each other."""
    candidates = points[trials]

    def gained(part: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
        return (near[:, None] - _distances(part, candidates)).clamp_(min=0).sum(0, keepdim=True)

    gains = _by_rows(gained, points, len(candidates), backend, near).sum(0)
    order = gains.argsort(descending=True, stable=True)
    if block == 1:
        return trials[order[:1]]
    between, reach = _distances(candidates, candidates), near[trials]
    clashes = ((between < reach[:, None]) | (between < reach))[order][:, order].cpu().numpy()
    kept: list[int] = []
    for index, row in enumerate(clashes):
        if len(kept) == block:
            break
        if not row[kept].any():
            kept.append(index)
    return trials[order[kept]]


def _by_rows(
    work: Callable[..., torch.Tensor], points: torch.Tensor, others: int, backend: Backend, *more: torch.Tensor
) -> torch.Tensor:
    """`work` over the points' rows, each held against `others`: at once where that surely fits, else measured."""
    surely = 16 * others * len(points) <= backend.memory  # four float32 a pair
    return work(points, *more) if surely else backend.map(work, points, *more)
